"""tconv: transposed convolution for Python, exact, fast, explained.

>>> import numpy as np
>>> import tconv
>>> tconv.conv_transpose(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2)
array([[[1., 1., 2., 1., 1.]]])
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tconv.system.fork_lock import importing

__version__ = "0.1.0"

__all__ = [
    "SGD",
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
    "Residual",
    "RuleError",
    "See",
    "Sequential",
    "Sigmoid",
    "Snake",
    "ShapeError",
    "Solution",
    "Stream",
    "TConvError",
    "Tanh",
    "UnsupportedError",
    "check_adjoint",
    "conv",
    "conv_output_shape",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_transpose_jvp",
    "conv_transpose_vjp",
    "conv_weight_gradient",
    "downsample",
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
    "upsample",
]

# A name is imported from its file when it is first asked for, so that `import tconv`, and with it
# the command line's help, loads the standard library only.
_NAMES = {
    "nn.from_torch": "from_torch",
    "errors": (
        "DTypeError MemoryLimitError ModelError OutputSizeError ParameterError RuleError "
        "ShapeError TConvError UnsupportedError"
    ),
    "geometry.geometry": "Geometry",
    "ops.gradients": "check_adjoint conv_transpose_jvp conv_transpose_vjp gradcheck",
    "nn.init": (
        "init_bilinear init_icnr init_kaiming_normal init_kaiming_uniform init_torch "
        "init_xavier_normal init_xavier_uniform"
    ),
    "nn.conv": (
        "Conv Conv1d Conv2d Conv3d ConvTranspose ConvTranspose1d ConvTranspose2d ConvTranspose3d"
    ),
    "nn.layer": "Layer Residual Sequential",
    "nn.activations": "LeakyReLU ReLU Sigmoid Snake Tanh",
    "streams.stream": "Stream",
    "nn.parameter": "Parameter",
    "nn.batch_norm": "BatchNorm fold_batch_norm",
    "ops.functional": (
        "conv conv_output_shape conv_transpose conv_transpose1d conv_transpose2d "
        "conv_transpose3d conv_weight_gradient output_shape"
    ),
    "nn.optim": "SGD Adam",
    "ops.planned_call": "Packed PlannedCall plan",
    "nn.pooling": (
        "MaxPool MaxPool1d MaxPool2d MaxPool3d MaxUnpool MaxUnpool1d MaxUnpool2d MaxUnpool3d"
    ),
    "geometry.solver": "Solution solve",
    "ops.max_pool": "max_pool max_unpool",
    "ops.resample": "downsample upsample",
    "deconvnet.see": "See see see_layers",
    "explainer.explainer": "Explainer explain",
}
_MODULES = ["checkerboard", "images", "tinynet"]
_HOSTS = ["dask", "onnx", "scipy", "torch", "volumes"]
"""Modules that need other libraries: `dir` has them once they are loaded, for `help` loads all."""
_FILE_OF = {name: file for file, names in _NAMES.items() for name in names.split()}

if TYPE_CHECKING:
    from tconv.deconvnet.see import See, see, see_layers
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
    from tconv.explainer.explainer import Explainer, explain
    from tconv.geometry.geometry import Geometry
    from tconv.geometry.solver import Solution, solve
    from tconv.nn.activations import LeakyReLU, ReLU, Sigmoid, Snake, Tanh
    from tconv.nn.batch_norm import BatchNorm, fold_batch_norm
    from tconv.nn.conv import (
        Conv,
        Conv1d,
        Conv2d,
        Conv3d,
        ConvTranspose,
        ConvTranspose1d,
        ConvTranspose2d,
        ConvTranspose3d,
    )
    from tconv.nn.from_torch import from_torch
    from tconv.nn.init import (
        init_bilinear,
        init_icnr,
        init_kaiming_normal,
        init_kaiming_uniform,
        init_torch,
        init_xavier_normal,
        init_xavier_uniform,
    )
    from tconv.nn.layer import Layer, Residual, Sequential
    from tconv.nn.optim import SGD, Adam
    from tconv.nn.parameter import Parameter
    from tconv.nn.pooling import (
        MaxPool,
        MaxPool1d,
        MaxPool2d,
        MaxPool3d,
        MaxUnpool,
        MaxUnpool1d,
        MaxUnpool2d,
        MaxUnpool3d,
    )
    from tconv.ops.functional import (
        conv,
        conv_output_shape,
        conv_transpose,
        conv_transpose1d,
        conv_transpose2d,
        conv_transpose3d,
        conv_weight_gradient,
        output_shape,
    )
    from tconv.ops.gradients import (
        check_adjoint,
        conv_transpose_jvp,
        conv_transpose_vjp,
        gradcheck,
    )
    from tconv.ops.max_pool import max_pool, max_unpool
    from tconv.ops.planned_call import Packed, PlannedCall, plan
    from tconv.ops.resample import downsample, upsample
    from tconv.streams.stream import Stream
else:

    def __getattr__(name: str) -> Any:
        with importing:
            if name in _FILE_OF:
                value = getattr(import_module(f"tconv.{_FILE_OF[name]}"), name)
            elif name.isidentifier() and not name.startswith("_"):
                try:
                    return import_module(f"tconv.{name}")  # which makes it an attribute
                except ModuleNotFoundError as error:
                    if error.name != f"tconv.{name}":
                        raise
                    raise _unknown(name) from None
            else:
                raise _unknown(name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    loaded = [name for name in _HOSTS if name in globals()]
    return sorted([*__all__, *_MODULES, *loaded, "__version__"])


def _unknown(name: str) -> AttributeError:
    with importing:
        from tconv.foreign_names import hint_for

    hint = hint_for(name, [*__all__, *_MODULES, *_HOSTS])
    # No obj: Python would add a hint of its own.
    return AttributeError(f"module 'tconv' has no attribute {name!r}{hint}", name=name, obj=None)


def _is_public(cls: type) -> bool:
    """Whether a class is the one that its name stands for in this package."""
    return cls.__module__ == f"tconv.{_FILE_OF.get(cls.__name__)}"


def _unpickled(name: str, *arguments: Any) -> Any:
    """An object of a public class before it gets its state: pickles name this function."""
    cls = getattr(sys.modules["tconv"], name)
    return cls.__new__(cls, *arguments)


class _MissingModules:
    """The last finder on `sys.meta_path`: its error says what to do about a missing module.

    Pickles of older versions name files that have moved.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        # The import statement passes the very list; tools that search elsewhere pass others.
        package = sys.modules.get(name.rpartition(".")[0])
        if name.startswith("tconv.") and path is getattr(package, "__path__", ()):
            raise ModuleNotFoundError(
                f"No module named {name!r}; import public names from tconv itself. A pickle that "
                "names this module is of another version of tconv: unpickle it there and call "
                "layer.save(path), then make the layer anew here and call layer.load(path); make "
                "objects without save anew.",
                name=name,
            )


sys.meta_path.append(_MissingModules)
