"""Constants of an ONNX graph: initialisers, and nodes that compute from constants only.

The onnx package is imported only when a tensor of it comes in.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import ModelError, ParameterError
from tconv.geometry.arguments import as_array
from tconv.messages import show
from tconv.system.fork_lock import importing

__all__ = ["computed", "constant_of", "stored_array", "stored_arrays"]

_TAKEN = frozenset(
    {"Add", "Cast", "Constant", "DequantizeLinear", "Div", "Identity", "Mul", "Reshape", "Squeeze"}
    | {"Sub", "Transpose", "Unsqueeze"}
)
"""Nodes that exporters put between a stored tensor and the layer that reads it."""
_MOST_NODES = 100  # between a stored tensor and the value read
_MOST_BYTES = 2**31  # of a sparse value once its zeros are filled in
_EXTERNAL = 1  # TensorProto.EXTERNAL: the data lie in another file


def constant_of(weights: Any, name: str) -> NDArray[Any]:
    """Return the value that a node reads under a name, wherever the model keeps it.

    Parameters
    ----------
    weights : onnx.ModelProto or GraphProto, whose value may be an initialiser, dense or sparse, a
        Constant, or computed from these by Identity, Cast, DequantizeLinear and similar nodes;
        the tensors of a graph's initializer; or a mapping of names to tensors or arrays
    name : str

    Raises
    ------
    ParameterError : there is no such value, or it is no constant.
    ModelError : it is damaged, or lies in a file that was not loaded.

    >>> constant_of({"w": [1, 2]}, "w")
    array([1, 2])
    """
    graph = getattr(weights, "graph", weights)
    if _is_message(graph) and hasattr(graph, "initializer"):
        opsets = {each.domain: each.version for each in getattr(weights, "opset_import", ())}
        return _Graph(graph, opsets).constant(name)
    try:
        named = weights if isinstance(weights, Mapping) else dict(_named(weights))
    except (TypeError, AttributeError):
        raise ParameterError(
            f"weights must be a model, its graph, tensors or a mapping, not "
            f"{type(weights).__name__}; pass the model, or a mapping of names to arrays."
        ) from None
    if name not in named:
        raise ParameterError(
            f"weights must have {show(name)}, which the node reads, has "
            f"{show(sorted(map(str, named)))}; pass the model, or a mapping of names to arrays."
        )
    return _array(named[name], name)


def stored_arrays(graph: Any) -> dict[str, NDArray[Any]]:
    """Return all initialisers of a GraphProto as arrays by name; sparse ones become dense."""
    stored = _named((*graph.initializer, *graph.sparse_initializer))
    return {name: _array(tensor, name) for name, tensor in stored}


def stored_array(tensor: Any) -> NDArray[Any]:
    """Return a TensorProto as an array; refuse one that is damaged or was not loaded."""
    with importing:
        from onnx import numpy_helper  # a caller with a TensorProto has onnx

    why: Any = "a size is negative" if min(tensor.dims, default=0) < 0 else None
    if tensor.data_location == _EXTERNAL:
        raise ModelError(
            f"weight {tensor.name!r} lies in another file, which was not loaded; read the model by "
            "onnx.load(path)."
        )
    try:
        if not why:
            return numpy_helper.to_array(tensor)
    except KeyError:
        why = f"there is no type {tensor.data_type}"
    except (ValueError, TypeError, OverflowError) as error:
        why = " ".join(str(error).split()).replace("; ", ", ")
    raise ModelError(
        f"weight {tensor.name!r} of shape {tuple(tensor.dims)} is damaged: {why}; export or "
        "download the model again."
    )


def _array(value: Any, name: str) -> NDArray[Any]:
    if not _is_message(value):
        return as_array(value, show(name))
    return _dense(value, name) if hasattr(value, "indices") else stored_array(value)


def _is_message(value: Any) -> bool:
    """Whether it is a protobuf message, not an object that claims to have every attribute."""
    return hasattr(type(value), "DESCRIPTOR")


def _dense(tensor: Any, name: str) -> NDArray[Any]:
    """Return a SparseTensorProto as a dense array; its indices are flat or one per axis."""
    values, at, shape = (
        stored_array(tensor.values),
        stored_array(tensor.indices),
        tuple(tensor.dims),
    )
    if min(shape, default=0) >= 0 and prod(shape) * values.itemsize <= _MOST_BYTES:
        array = np.zeros(shape, values.dtype)
        try:
            flat = at if at.ndim == 1 else np.ravel_multi_index(tuple(at.T), shape)
            if not flat.size or flat.min() >= 0:
                array.reshape(-1)[flat] = values
                return array
        except (ValueError, TypeError, IndexError):
            pass
    raise ModelError(
        f"weight {name!r} of shape {shape} is sparse and damaged, or too large to be filled; "
        "export or download the model again."
    )


class _Graph:
    """Stored tensors of a graph, the nodes that compute the rest, and values computed so far."""

    def __init__(self, graph: Any, opsets: Mapping[str, int]) -> None:
        self.opsets = opsets
        self.inputs = {value.name for value in graph.input}
        self.stored = dict(_named((*graph.initializer, *graph.sparse_initializer)))
        self.makers = {name: node for node in graph.node for name in node.output}
        self.known: dict[str, NDArray[Any] | None] = {}

    def constant(self, name: str) -> NDArray[Any]:
        """Return a value and cache it; None if other values must be computed first."""
        if name not in self.known and len(self.known) <= _MOST_NODES:
            self.known[name] = None
            self.known[name] = self._found(name)
        value = self.known.get(name)
        if value is None:
            raise _refused(name, "its nodes form a circle or a long chain")
        return value

    def _found(self, name: str) -> NDArray[Any]:
        if name in self.stored:
            return _array(self.stored[name], name)
        node = self.makers.get(name)
        if node is None:
            raise _refused(name, "it is an input" if name in self.inputs else "nothing makes it")
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if kind not in _TAKEN:
            raise _refused(name, f"{kind} makes it")
        if kind == "Constant":
            return _of_constant(node)
        feeds = {each: self.constant(each) for each in node.input if each}
        return feeds[node.input[0]] if kind == "Identity" else computed(node, self.opsets, feeds)


def _refused(name: str, why: str) -> ParameterError:
    return ParameterError(
        f"weights must have {show(name)}, which the node reads, as a constant, but {why}; choose "
        "a node whose weights are constants, or pass a mapping of names to arrays."
    )


def computed(node: Any, opsets: Mapping[str, int], feeds: Mapping[str, Any]) -> NDArray[Any]:
    """Return the output of a node whose inputs are constants.

    Raises
    ------
    ModelError : it cannot be computed
    """
    axes = next((tuple(each.ints) for each in node.attribute if each.name == "axes"), ())
    if node.op_type == "Unsqueeze" and axes:  # before opset 13; onnx 1.23 has dropped it
        return _unsqueezed(node, feeds[node.input[0]], axes)
    with importing:
        from onnx.reference import ReferenceEvaluator

    try:
        (value,) = ReferenceEvaluator(node, opsets=dict(opsets) or None).run(None, dict(feeds))
    except Exception as error:
        raise _failed(node, error) from error
    return np.asarray(value)


def _unsqueezed(node: Any, value: Any, axes: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.expand_dims(value, axes)
    except ValueError as error:
        raise _failed(node, error) from error


def _failed(node: Any, error: Exception) -> ModelError:
    return ModelError(
        f"weight {node.output[0]!r} cannot be computed by {node.op_type}: {error}; export or "
        "download the model again."
    )


def _name(tensor: Any) -> str:
    return str(tensor.values.name if hasattr(tensor, "indices") else tensor.name)


def _named(tensors: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((_name(tensor), tensor) for tensor in tensors)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "value": lambda each: each.t,
    "sparse_value": lambda each: each.sparse_tensor,
    "value_float": lambda each: np.float32(each.f),
    "value_floats": lambda each: np.array(each.floats, np.float32),
    "value_int": lambda each: np.int64(each.i),
    "value_ints": lambda each: np.array(each.ints, np.int64),
}
"""Attributes of Constant that hold elements; a node has one of them."""


def _of_constant(node: Any) -> NDArray[Any]:
    name = node.output[0]
    for attribute in node.attribute:
        if attribute.name in _READ:
            return _array(_READ[attribute.name](attribute), name)
    raise ModelError(f"Constant {name!r} holds no numbers; export or download the model again.")
