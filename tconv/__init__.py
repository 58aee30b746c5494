"""tconv: transposed convolution for Python, exact, fast, explained.

>>> import numpy as np
>>> import tconv
>>> tconv.conv_transpose(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2)
array([[[1., 1., 2., 1., 1.]]])
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tconv.forks import importing

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "BatchNorm",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DTypeError",
    "Explainer",
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
    "ModelError",
    "OutputSizeError",
    "Packed",
    "Parameter",
    "ParameterError",
    "PlannedCall",
    "ReLU",
    "RuleError",
    "SGD",
    "See",
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
    "explain",
    "fold_batch_norm",
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
    "plan",
    "see",
    "see_layers",
    "solve",
]

# A name is imported from its file when it is first asked for, so that `import tconv`, and with it
# the command line's help, loads the standard library only.
_NAMES = {
    "adoption": "from_torch",
    "errors": (
        "DTypeError MemoryLimitError ModelError OutputSizeError ParameterError RuleError "
        "ShapeError TConvError UnsupportedError"
    ),
    "geometry": "Geometry",
    "gradients": "check_adjoint conv_transpose_jvp conv_transpose_vjp gradcheck",
    "initialisers": (
        "init_bilinear init_icnr init_kaiming_normal init_kaiming_uniform init_torch "
        "init_xavier_normal init_xavier_uniform"
    ),
    "layers": (
        "Conv Conv1d Conv2d Conv3d ConvTranspose ConvTranspose1d ConvTranspose2d ConvTranspose3d"
    ),
    "module": "Layer LeakyReLU Parameter ReLU Sequential",
    "normalisation": "BatchNorm fold_batch_norm",
    "ops": (
        "conv conv_transpose conv_transpose1d conv_transpose2d conv_transpose3d "
        "conv_weight_gradient output_shape"
    ),
    "optimisers": "SGD Adam",
    "planned": "Packed PlannedCall plan",
    "pooling": (
        "MaxPool MaxPool1d MaxPool2d MaxPool3d MaxUnpool MaxUnpool1d MaxUnpool2d MaxUnpool3d"
    ),
    "solver": "Solution solve",
    "switches": "max_pool max_unpool",
    "visualise.deconvnet": "See see see_layers",
    "visualise.explainer": "Explainer explain",
}
_FILE_OF = {name: file for file, names in _NAMES.items() for name in names.split()}

if TYPE_CHECKING:
    from tconv.adoption import from_torch
    from tconv.errors import (
        DTypeError,
        MemoryLimitError,
        ModelError,
        OutputSizeError,
        ParameterError,
        RuleError,
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
    )
    from tconv.module import Layer, LeakyReLU, Parameter, ReLU, Sequential
    from tconv.normalisation import BatchNorm, fold_batch_norm
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
    from tconv.planned import Packed, PlannedCall, plan
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
    from tconv.visualise.deconvnet import See, see, see_layers
    from tconv.visualise.explainer import Explainer, explain
else:

    def __getattr__(name: str) -> Any:
        with importing:
            if name in _FILE_OF:
                value = getattr(import_module(f"tconv.{_FILE_OF[name]}"), name)
            elif name.isidentifier() and not name.startswith("_") and find_spec(f"tconv.{name}"):
                return import_module(f"tconv.{name}")  # which makes it an attribute
            else:
                raise AttributeError(f"module 'tconv' has no attribute {name!r}{_hint(name)}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _hint(name: str) -> str:
    with importing:
        from difflib import get_close_matches

    close = get_close_matches(name, __all__, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
