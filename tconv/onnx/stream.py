"""Streams of ONNX models: networks along time, computed as their input arrives."""

from collections.abc import Mapping
from typing import Any

from onnx import ModelProto

from tconv.engine import host_target
from tconv.errors import ParameterError, ShapeError
from tconv.geometry.arguments import as_array, as_integer, as_mapping
from tconv.messages import show
from tconv.onnx.model_part import known_sizes, open_model, part_of_model, value_names
from tconv.streams.network_runner import NetworkRunner
from tconv.streams.stream import Stream as _Stream

__all__ = ["Stream"]

Shape = tuple[int | None, ...]


class Stream(_Stream):
    """A model along time, computed as its input arrives, with the bits of the whole.

    For decoders of sound and other networks of convolutions, transposed convolutions and
    elementwise operators along one axis, causal or not. `push` takes any number of frames and
    returns the results that they complete; `flush` returns the rest. Joined, they equal the results
    of the whole input bit by bit, where tconv computes it with ``method="direct"``, and those of
    ONNX Runtime but for rounding.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
    inputs : what arrives piece by piece: None for all inputs that are not in `constants`; names of
        inputs, or of values within the model, which is then cut there; or a dict of names and
        shapes with None along time, such as ``{"z": (1, 192, None)}``
    outputs : names of outputs, or of values within the model; None for all outputs
    constants : dict of inputs that stay the same, such as a speaker's embedding, and their arrays
    batch : int, streams that are computed together
    threads : int; None for all cores
    frames : int or None; with it all pushes are of that length and return as many results each
        time, the first ``latency`` of which are zeros

    Raises
    ------
    UnsupportedError : a node needs more of time than its neighbourhood, such as a normalisation
        over time, or is one that tconv has no program for; its name, and why
    ParameterError, ShapeError : an argument is none of the above, or the axis of time is not clear
    ModelError, OSError : the model is damaged, or its file cannot be read

    References
    ----------
    The windows of ONNX's operators Conv and ConvTranspose; `tconv.graph.pieces` has the rules.

    >>> import tconv.onnx
    >>> layer = tconv.ConvTranspose1d(2, 1, 4, stride=2, padding=1, rng=0)
    >>> stream = tconv.onnx.Stream(layer.to_onnx())
    >>> import numpy as np
    >>> x = np.ones((1, 2, 5), np.float32)
    >>> y = np.concatenate([stream.push(x), stream.flush()], 2)
    >>> y.shape, bool(np.array_equal(y, layer.predict(x)))
    ((1, 1, 10), True)
    """

    def __init__(
        self,
        model: Any,
        *,
        inputs: Any = None,
        outputs: Any = None,
        constants: Mapping[str, Any] | None = None,
        batch: int = 1,
        threads: int | None = None,
        frames: int | None = None,
    ) -> None:
        batch = as_integer(batch, "batch", 1)
        threads = host_target().threads if threads is None else as_integer(threads, "threads", 1)
        proto = open_model(model)
        fixed = {
            name: as_array(array, name)
            for name, array in as_mapping(constants or {}, "constants").items()
        }
        shapes = _shapes(proto, inputs, fixed, batch)
        axes = {name: _axis_of_time(name, shape) for name, shape in shapes.items()}
        graph = part_of_model(proto, list(shapes), _names(proto, outputs), fixed)
        super().__init__(NetworkRunner(graph, axes, shapes, threads), frames)


def _names(model: ModelProto, outputs: Any) -> list[str]:
    names = [each.name for each in model.graph.output]
    if outputs is None:
        return names
    found = [outputs] if isinstance(outputs, str) else list(outputs)
    _, made = value_names(model)
    for name in found:
        if name not in made:
            raise ParameterError(
                f"outputs has {show(name)}, which no node makes; pass outputs of the model, "
                f"{', '.join(map(show, names))}, or names of values within it."
            )
    return found


def _shapes(
    model: ModelProto, inputs: Any, constants: Mapping[str, Any], batch: int
) -> dict[str, Shape]:
    """The shape of every value that arrives piece by piece, with None along time."""
    declared, made = value_names(model)
    if isinstance(inputs, Mapping):
        given: dict[str, Any] = dict(inputs)
    elif inputs is None:
        given = dict.fromkeys(name for name in declared if name not in constants)
    else:
        given = dict.fromkeys([inputs] if isinstance(inputs, str) else inputs)
    found = {}
    for name, shape in given.items():
        if name not in declared and name not in made:
            raise ParameterError(
                f"inputs has {show(name)}, which is no value of the model; pass inputs of it, "
                f"{', '.join(map(show, declared))}, or names of values within it."
            )
        found[name] = _checked(name, shape, batch) if shape else _declared(model, name, batch)
    if not found:
        raise ParameterError("inputs must name at least one value; leave one out of constants.")
    return found


def _checked(name: str, shape: Any, batch: int) -> Shape:
    sizes = tuple(None if size is None else as_integer(size, name, 1) for size in shape)
    if sizes.count(None) != 1 or sizes[0] != batch:
        raise ShapeError(
            f"inputs has shape {sizes} for {name!r}, which must have None along time alone, and "
            f"batch={batch} first; pass ({batch}, channels, None) for example."
        )
    return sizes


def _declared(model: ModelProto, name: str, batch: int) -> Shape:
    """The shape that a model declares for a value, or what the convolution asks that reads it."""
    sizes = known_sizes(model, name)
    if sizes[:1] in ([None], [1]):
        sizes[0] = batch
    if sizes[:1] != [batch] or sizes.count(None) != 1:
        hint = f"inputs={{{name!r}: ({batch}, channels, None)}}"
        raise ShapeError(
            f"input {name!r} has shape {tuple(sizes)} in the model, where None is any size: which "
            f"axis is time is not clear. Pass {hint}, with None along time, or put an input that "
            "stays the same into constants."
        )
    return tuple(sizes)


def _axis_of_time(name: str, shape: Shape) -> int:
    axis = shape.index(None)
    if axis == 0:
        raise ShapeError(
            f"inputs has None first for {name!r}, where the batch is; put it along time."
        )
    return axis
