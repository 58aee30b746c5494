"""Streams of ONNX models: networks along time, computed as their input arrives."""

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto
from onnx.helper import tensor_dtype_to_np_dtype

from tconv.engine import host_target
from tconv.errors import DTypeError, ParameterError, ShapeError, UnsupportedError
from tconv.geometry.arguments import as_array, as_integer, as_mapping, as_threads
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
    ParameterError, ShapeError, DTypeError : an argument is none of the above, or the axis of time
        is not clear
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
        threads = as_threads(threads) or host_target().threads
        proto = open_model(model)
        fixed = _constants(proto, {} if constants is None else constants)
        shapes = _shapes(proto, inputs, fixed, batch)
        axes = {name: shape.index(None) for name, shape in shapes.items()}
        graph = part_of_model(proto, list(shapes), _outputs(proto, outputs), fixed)
        super().__init__(NetworkRunner(graph, axes, shapes, threads), frames)


def _names(value: Any, what: str) -> list[str]:
    """One name or several, at least one."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        raise ParameterError(f"{what}={show(value)} must be names; pass a list of strings.")
    found = list(value)
    for name in found:
        if not isinstance(name, str):
            raise ParameterError(
                f"{what} has {show(name)} for a name, must have strings; pass names of values."
            )
    if not found:
        raise ParameterError(f"{what} must name at least one value; pass its name.")
    return found


def _outputs(model: ModelProto, outputs: Any) -> list[str]:
    names = [each.name for each in model.graph.output]
    if outputs is None:
        return names
    found, (_, made) = _names(outputs, "outputs"), value_names(model)
    for name in found:
        if name not in made:
            raise ParameterError(
                f"outputs has {show(name)}, which no node makes; pass outputs of the model, "
                f"{', '.join(map(show, names))}, or names of values within it."
            )
    return found


def _type_of(model: ModelProto, name: str) -> str | None:
    """NumPy's name of a value's type, where the model says it."""
    for each in (*model.graph.input, *model.graph.value_info):
        if each.name == name and each.type.tensor_type.elem_type:
            return str(tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type))
    return None


def _constants(model: ModelProto, constants: Any) -> dict[str, NDArray[Any]]:
    _, made = value_names(model)
    known = made | {each.name for each in (*model.graph.input, *model.graph.initializer)}
    found = {}
    for name, value in as_mapping(constants, "constants").items():
        if name not in known:
            raise ParameterError(
                f"constants has {show(name)}, which is no value of the model; pass inputs of it, "
                f"{', '.join(show(each.name) for each in model.graph.input)}, or names of values "
                "within it."
            )
        array, kind = as_array(value, name), _type_of(model, name)
        if kind is not None and array.dtype != kind:
            raise DTypeError(
                f"constants[{show(name)}] has dtype {array.dtype}, must be {kind}; convert it by "
                f"astype({kind!r})."
            )
        found[name] = array
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
        given = dict.fromkeys(_names(inputs, "inputs"))
    found = {}
    for name, shape in given.items():
        if name in constants:
            raise ParameterError(f"{show(name)} is in inputs and in constants; drop it from one.")
        if name not in declared and name not in made:
            raise ParameterError(
                f"inputs has {show(name)}, which is no value of the model; pass inputs of it, "
                f"{', '.join(map(show, declared))}, or names of values within it."
            )
        if (kind := _type_of(model, name)) not in (None, "float32"):
            raise UnsupportedError(
                f"input {show(name)} is of {kind}, tconv has programs for float32; convert the "
                "model, or begin after this value, by inputs."
            )
        is_given = shape is not None
        found[name] = _checked(name, shape, batch) if is_given else _declared(model, name, batch)
    if not found:
        raise ParameterError("inputs must name at least one value; leave one out of constants.")
    return found


def _checked(name: str, shape: Any, batch: int) -> Shape:
    what = f"inputs[{show(name)}]"
    if not isinstance(shape, list | tuple):
        raise ParameterError(
            f"{what}={show(shape)} must be a shape; pass ({batch}, channels, None) for example."
        )
    sizes = tuple(None if size is None else as_integer(size, what, 1) for size in shape)
    if sizes.count(None) != 1 or sizes[0] != batch:
        raise ShapeError(
            f"{what}={sizes} must have None along time alone, and batch={batch} first; pass "
            f"({batch}, channels, None) for example."
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
