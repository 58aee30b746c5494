"""Operator ConvTranspose for onnx's ReferenceEvaluator."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from tconv.arrays.operands import as_operands
from tconv.geometry.onnx_attributes import NodeAttributes
from tconv.ops.dispatch import Call, solve_for

__all__ = ["ConvTranspose"]

_ATTRIBUTES = tuple(NodeAttributes.__dataclass_fields__)


class ConvTranspose(OpRun):
    """ConvTranspose for ``onnx.reference.ReferenceEvaluator(model, new_ops=[ConvTranspose])``.

    The evaluator's own version is wrong for groups, and for a bias with depthwise weights.

    Raises
    ------
    ParameterError, ShapeError, OutputSizeError, DTypeError : as `conv_transpose`

    References
    ----------
    ONNX operator ConvTranspose, versions 1, 11 and 22.

    >>> import tconv.onnx
    >>> from onnx.reference import ReferenceEvaluator
    >>> model = tconv.ConvTranspose1d(2, 2, 2, groups=2, rng=0).to_onnx()
    >>> evaluator = ReferenceEvaluator(model, new_ops=[tconv.onnx.ConvTranspose])
    >>> evaluator.run(None, {"x": np.ones((1, 2, 3), np.float32)})[0].shape
    (1, 2, 4)
    """

    op_domain = ""

    def _run(self, x: Any, weight: Any, bias: Any = None, **attributes: Any) -> tuple[NDArray[Any]]:
        given = {name: attributes.get(name) for name in _ATTRIBUTES}
        settings = NodeAttributes.of({n: v for n, v in given.items() if v is not None})
        _, (x, weight, bias) = as_operands({"x": x, "weight": weight, "bias": bias})
        geometry = settings.geometry(x.shape, weight.shape)
        y = solve_for("y", geometry, x, weight, bias, Call("ConvTranspose"))
        return (np.asarray(y),)
