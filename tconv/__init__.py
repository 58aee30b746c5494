"""tconv: transposed convolution for Python, exact, fast, explained.

>>> import numpy as np
>>> import tconv
>>> tconv.conv_transpose(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2)
array([[[1., 1., 2., 1., 1.]]])
"""

from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    OutputSizeError,
    ParameterError,
    ShapeError,
    TConvError,
    UnsupportedError,
)
from tconv.geometry import Geometry
from tconv.gradients import check_adjoint, conv_transpose_jvp, conv_transpose_vjp, gradcheck
from tconv.ops import (
    conv,
    conv_transpose,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    conv_weight_gradient,
    output_shape,
)
from tconv.solver import Solution, solve

__version__ = "0.1.0"

__all__ = [
    "DTypeError",
    "Geometry",
    "MemoryLimitError",
    "OutputSizeError",
    "ParameterError",
    "ShapeError",
    "Solution",
    "TConvError",
    "UnsupportedError",
    "check_adjoint",
    "conv",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_transpose_jvp",
    "conv_transpose_vjp",
    "conv_weight_gradient",
    "gradcheck",
    "output_shape",
    "solve",
]
