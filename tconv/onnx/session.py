"""HOW A MODEL IS RUN: ONNX Runtime's interface, with every ConvTranspose computed by tconv."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from tconv.arguments import as_array, as_flag, as_mapping, as_threads, show
from tconv.errors import DTypeError, ModelError, ParameterError, ShapeError
from tconv.geometry import Geometry
from tconv.onnx.loading import Loaded, load_model
from tconv.onnx.model import ModelMetadata, NodeArg, as_source, parse_type
from tconv.onnx.pieces import LayerRun, Values
from tconv.onnx.report import Report, summary

__all__ = ["Session", "checked_feed"]

# Sessions that a fork has copied. To destroy one would wait for threads that only the parent has.
_of_the_parent: list[Loaded] = []


class _Run(NamedTuple):
    """What is remembered of a run: sizes and milliseconds by the names of the layers' outputs."""

    layers: Mapping[str, tuple[Geometry, float]]
    elapsed_ms: float | None
    elsewhere_ms: float | None


class Session:
    """Run an ONNX model with every ConvTranspose computed by tconv, all else by ONNX Runtime.

    Takes the place of ``onnxruntime.InferenceSession`` on CPUs. Conv of float64, which ONNX Runtime
    has none for, are tconv's as well. The model is cut at the nodes that tconv computes; arrays
    pass between the pieces without a copy. What cannot be cut stays in ONNX Runtime, and `report`
    says what and why: nodes inside If, Loop or Scan, types other than float16, float32 and float64,
    files that only ONNX Runtime can read, and nodes so small that handing them over would cost more
    than it gains. A BatchNormalization of constants that follows, and a Relu, LeakyRelu, Tanh or
    Sigmoid, become part of the layer where nobody else needs what lies between; the report names
    them.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
    threads : int, threads of ONNX Runtime and of tconv; None leaves it to both
    force : bool, take small nodes too

    A session may be called from several threads at once. It pickles as the path or the bytes it was
    made of, and after a fork the child loads the model anew.

    Raises
    ------
    ModelError : the model is damaged, or ONNX Runtime refuses it
    OSError : the file cannot be read
    ParameterError : model is none of the above, or threads is less than 1

    References
    ----------
    ONNX operator ConvTranspose, versions 1, 11 and 22; ONNX Runtime, class InferenceSession.

    >>> import tconv.onnx
    >>> layer = tconv.ConvTranspose2d(1, 1, 2, stride=2, rng=0)
    >>> session = tconv.onnx.Session(layer.to_onnx(), force=True)
    >>> (y,) = session.run(None, {"x": np.ones((1, 1, 2, 3), np.float32)})
    >>> y.shape, session.report().nodes[0].computed_by
    ((1, 1, 4, 6), 'tconv')
    """

    def __init__(self, model: Any, *, threads: int | None = None, force: bool = False) -> None:
        self._threads = as_threads(threads)
        self._force = as_flag(force, "force")
        self._source = as_source(model)
        self._loaded = self._load()
        self._last = _Run({}, None, None)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: Any = None,
    ) -> list[Any]:
        """Compute outputs; None means all of them, in the model's order.

        Parameters
        ----------
        output_names : names of outputs, or None
        input_feed : name to array, for every input; overridable initialisers may be given too
        run_options : onnxruntime.RunOptions for the pieces, or None

        Raises
        ------
        ParameterError : a name is missing or unknown
        ShapeError, DTypeError : an array is not what the model declares, or a ConvTranspose cannot
            take it
        ModelError : another node cannot
        """
        loaded = self._here()
        names = _checked_names(loaded, output_names)
        feed = checked_feed(loaded.inputs, loaded.overridable, input_feed)
        values = loaded.defaults | feed
        began, elsewhere_ms, given = perf_counter(), 0.0, set(values)
        ran: dict[str, tuple[Geometry, float]] = {}
        for step, finished in zip(loaded.steps, loaded.last_use, strict=True):
            if isinstance(step, LayerRun):
                ran[step.layer.output] = step(values)
            else:
                before = perf_counter()
                try:
                    step(values, run_options)
                except ModelError as error:
                    raise ModelError(
                        f"{error}; check the model, and the inputs: {_shown(input_feed)}."
                    ) from error
                elsewhere_ms += (perf_counter() - before) * 1e3
            for name in finished:
                values.pop(name, None)
        results = [values[name].copy() if name in given else values[name] for name in names]
        self._last = _Run(ran, (perf_counter() - began) * 1e3, elsewhere_ms)
        return results

    def report(self) -> Report:
        """Tell of every ConvTranspose who computed it in the last run, at what sizes, how long.

        Of a Conv of float64, which ONNX Runtime has none for, as well.
        """
        loaded, last, nodes = self._loaded, self._last, []
        for node in loaded.nodes:
            if node.output in last.layers:
                geometry, ms = last.layers[node.output]
                x_shape, y_shape = geometry.x_shape, geometry.y_shape
                if node.operator == "Conv":  # the transpose, which reads y and makes x
                    x_shape, y_shape = y_shape, x_shape
                w_shape = geometry.weight_shape
                node = replace(node, x_shape=x_shape, weight_shape=w_shape, y_shape=y_shape, ms=ms)
            nodes.append(node)
        return Report(tuple(nodes), loaded.pieces, last.elapsed_ms, last.elsewhere_ms)

    def get_inputs(self) -> list[NodeArg]:
        """Inputs of the model, those not counted that have a default."""
        return list(self._loaded.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Outputs of the model."""
        return list(self._loaded.outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs that have a default."""
        return list(self._loaded.overridable)

    def get_modelmeta(self) -> ModelMetadata:
        """What the file tells about the model."""
        return self._loaded.metadata

    def get_providers(self) -> list[str]:
        """Where ONNX Runtime's pieces run: on the CPU."""
        return ["CPUExecutionProvider"]

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self._source, "threads": self._threads, "force": self._force}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        what = repr(self._source) if isinstance(self._source, str) else "<bytes>"
        return f"Session({what}: {summary(self._loaded.nodes)} by tconv)"

    def _here(self) -> Loaded:
        """What this process has loaded: the threads of a session do not survive a fork."""
        if self._loaded.process != os.getpid():
            _of_the_parent.append(self._loaded)
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> Loaded:
        return load_model(self._source, self._threads, self._force)


def _checked_names(loaded: Loaded, names: Sequence[str] | None) -> list[str]:
    known = [output.name for output in loaded.outputs]
    if names is None:
        return known
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ParameterError(
            f"output_names={show(names)} must be a list of outputs of the model, or None for all; "
            f"pass {show(known)}."
        )
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise ParameterError(
                f"output_names has {show(name)}, must be outputs of the model: {_list(known)}; "
                f"{_closest(name, known)}."
            )
    return list(map(str, names)) or known


def checked_feed(
    inputs: Sequence[NodeArg], overridable: Sequence[NodeArg], feed: Mapping[str, Any]
) -> Values:
    """Arrays as ONNX Runtime takes them, each held against what the model declares."""
    known = {each.name: each for each in (*inputs, *overridable)}
    feed = as_mapping(feed, "input_feed")
    for name in feed:
        if name not in known:
            raise ParameterError(
                f"input_feed has {show(name)}, must be inputs of the model: {_list(known)}; "
                f"{_closest(name, list(known))}."
            )
    missing = [each.name for each in inputs if each.name not in feed]
    if missing:
        raise ParameterError(
            f"input_feed lacks {_list(missing)}, must have every input; pass "
            f"{', '.join(_described(known[name]) for name in missing[:5])}."
        )
    return {name: _checked_array(known[name], value) for name, value in feed.items()}


def _checked_array(declared: NodeArg, value: Any) -> Any:
    """An array in native byte order, of the declared type and shape; no tensor is passed on."""
    if not declared.type.startswith("tensor("):
        return value
    if hasattr(value, "ortvalue_from_numpy"):
        value = value.numpy()
    expected = tensor_dtype_to_np_dtype(parse_type(declared.type).tensor_type.elem_type)
    if isinstance(value, list | tuple | int | float | bool):
        try:
            array = as_array(value, f"input {declared.name!r}")
            value = array if expected.hasobject else array.astype(expected)
        except (ValueError, TypeError, OverflowError) as error:
            raise DTypeError(
                f"input {declared.name!r} is no array of {expected} ({error}); pass one."
            ) from None
    array = value
    if type(value) is not np.ndarray:
        array = as_array(value, f"input {declared.name!r}")
    if not expected.hasobject and not array.dtype.isnative:  # ONNX Runtime would misread it
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype != expected and not (expected.hasobject and array.dtype.kind in "OUST"):
        raise DTypeError(
            f"input {declared.name!r} has dtype {array.dtype}, must be {expected}; pass "
            f"{declared.name}.astype({str(expected)!r})."
        )
    wrong = len(declared.shape) != array.ndim and declared.has_rank
    wrong = wrong or any(
        isinstance(size, int) and size != found
        for size, found in zip(declared.shape, array.shape, strict=False)
    )
    if wrong:
        raise ShapeError(
            f"input {declared.name!r} has shape {array.shape}, must be {_described(declared)}; "
            "pass such an array."
        )
    return array


def _shown(feed: Mapping[str, Any]) -> str:
    """Names and shapes of what was given."""
    shapes = [f"{name} {tuple(np.shape(value))}" for name, value in list(feed.items())[:5]]
    return ", ".join(shapes) + (" …" if len(feed) > 5 else "") or "none"


def _described(each: NodeArg) -> str:
    return f"{each.name} {each.type}[{', '.join(str(size or '?') for size in each.shape)}]"


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _closest(name: Any, known: list[str]) -> str:
    found = get_close_matches(show(name), known, 1)
    return f"did you mean {found[0]!r}?" if found else "pass one of these"
