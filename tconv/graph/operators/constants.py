"""Nodes whose operands are all constants, computed by NumPy when a program is written.

Exporters compute sizes by such nodes, of a value's shape, which is a constant of a program.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.graph.graph import Node

__all__ = ["CONSTANT", "computed"]

Array = NDArray[Any]
_NUMPY_TYPES = {  # by ONNX's numbers
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}


def _divided(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    return np.asarray(np.trunc(a / b)).astype(a.dtype)  # towards zero, as in C


def _sliced(node: Node, x: Array, *more: Array | None) -> Array:
    names = ("starts", "ends", "axes", "steps")
    given = (*more, *[None] * 4)[:4]
    starts, ends, axes, steps = (
        each.ravel().tolist() if each is not None else node.argument(name)
        for each, name in zip(given, names, strict=True)
    )
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        places = range(*slice(start, end, step).indices(x.shape[axis]))
        x = np.take(x, np.array(places, np.int64), axis)
    return x


def _axes(node: Node, axes: Array | None) -> tuple[int, ...]:
    return tuple(axes.ravel().tolist() if axes is not None else node.argument("axes") or ())


def _reshaped(node: Node, x: Array, sizes: Array) -> Array:
    shape = [
        x.shape[n] if size == 0 and not node.argument("allowzero", 0) else size
        for n, size in enumerate(sizes.tolist())
    ]
    return x.reshape(shape)


def _squeezed(node: Node, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, _axes(node, axes) or None)


def _filled(node: Node, sizes: Array) -> Array:
    value = node.argument("value", np.zeros(1, np.float32))
    return np.broadcast_to(value.reshape(()), tuple(sizes.tolist()))


def _multiplied(node: Node, x: Array, axes: Array | None = None) -> Array:
    over = _axes(node, axes) or None
    if over is None and node.argument("noop_with_empty_axes", 0):
        return x
    keeps = bool(node.argument("keepdims", 1))
    return np.asarray(np.prod(x, axis=over, dtype=x.dtype, keepdims=keeps))


def _concatenated(node: Node, *arrays: Array) -> Array:
    return np.concatenate(arrays, node.argument("axis", 0))


_OPERATORS: Mapping[str, Callable[..., Array]] = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: _divided(a, b),
    "Neg": lambda _, a: -a,
    "Sqrt": lambda _, a: np.sqrt(a),
    "Floor": lambda _, a: np.floor(a),
    "Ceil": lambda _, a: np.ceil(a),
    "Max": lambda _, *each: np.maximum.reduce(each),
    "Min": lambda _, *each: np.minimum.reduce(each),
    "Cast": lambda node, a: a.astype(_NUMPY_TYPES[node.argument("to")]),
    "Concat": _concatenated,
    "ConstantOfShape": _filled,
    "Equal": lambda _, a, b: a == b,
    "Expand": lambda _, a, sizes: a * np.ones(tuple(sizes.tolist()), a.dtype),
    "Gather": lambda node, a, at: np.take(a, at, node.argument("axis", 0)),
    "Identity": lambda _, a: a,
    "Range": lambda _, a, b, step: np.arange(a.item(), b.item(), step.item(), dtype=a.dtype),
    "ReduceProd": _multiplied,
    "Reshape": _reshaped,
    "Shape": lambda node, a: np.array(
        a.shape[node.argument("start", 0) : node.argument("end")], np.int64
    ),
    "Slice": _sliced,
    "Squeeze": _squeezed,
    "Transpose": lambda node, a: np.transpose(a, node.argument("perm")),
    "Unsqueeze": lambda node, a, axes=None: np.expand_dims(a, _axes(node, axes)),
    "Where": lambda _, a, b, c: np.asarray(np.where(a, b, c)),
}
CONSTANT = frozenset(_OPERATORS)
"""Operators that are computed where all operands are constants."""


def computed(node: Node, operands: Sequence[Array | None]) -> Array | None:
    """Return the result of a node of constants; None if it cannot be computed here."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(_OPERATORS[node.operator](node, *operands))
    except (ValueError, TypeError, IndexError, KeyError, MemoryError):
        return None
