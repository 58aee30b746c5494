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
from tconv.initialisers import (
    init_bilinear,
    init_icnr,
    init_kaiming_normal,
    init_kaiming_uniform,
    init_torch,
    init_xavier_normal,
    init_xavier_uniform,
)
from tconv.layers import (
    Conv,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    from_torch,
)
from tconv.module import Layer, LeakyReLU, Parameter, ReLU, Sequential
from tconv.ops import (
    conv,
    conv_transpose,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    conv_weight_gradient,
    output_shape,
)
from tconv.optimisers import SGD, Adam
from tconv.pooling import (
    MaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MaxUnpool,
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
)
from tconv.solver import Solution, solve
from tconv.switches import max_pool, max_unpool

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DTypeError",
    "Geometry",
    "Layer",
    "LeakyReLU",
    "MaxPool",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "MemoryLimitError",
    "OutputSizeError",
    "Parameter",
    "ParameterError",
    "ReLU",
    "SGD",
    "Sequential",
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
    "from_torch",
    "gradcheck",
    "init_bilinear",
    "init_icnr",
    "init_kaiming_normal",
    "init_kaiming_uniform",
    "init_torch",
    "init_xavier_normal",
    "init_xavier_uniform",
    "max_pool",
    "max_unpool",
    "output_shape",
    "solve",
]
