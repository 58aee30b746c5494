"""`Session`: an InferenceSession whose networks and layers tconv computes where that is faster."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from time import perf_counter
from typing import Any, Unpack

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from tconv.errors import DTypeError, ModelError, ParameterError, ShapeError, UnsupportedError
from tconv.geometry.arguments import as_array, as_choice, as_flag, as_integer, as_mapping
from tconv.graph import UnknownOperator
from tconv.messages import show
from tconv.onnx.execution import Execution, Executions
from tconv.onnx.inference_session import InferenceSessionBase
from tconv.onnx.loading import LoadedModel, RunProfile
from tconv.onnx.model.model import NodeArg, as_source, parse_type
from tconv.onnx.ort.options import OrtKeywords, Settings
from tconv.onnx.ort.sessions import clean_message
from tconv.onnx.programs.report import ProgramReport, StepTimes
from tconv.onnx.report import NodeReport, Report, summary
from tconv.onnx.subgraphs import Values

__all__ = ["Session", "checked_feed"]

METHODS = ("auto", "onnxruntime", "measure")


class Session(InferenceSessionBase):
    """Run an ONNX model as ONNX Runtime does, by tconv where that is faster.

    A drop-in for ``onnxruntime.InferenceSession`` on CPUs: it is a subclass with all its members.
    The session predicts the time of a run by ONNX Runtime alone and the time with tconv, as soon as
    the sizes are known, at the latest at the first run. If tconv gains less than 3 %, one session
    of ONNX Runtime runs the whole model. For inputs of other shapes it decides anew, up to eight
    times; later shapes follow the closest of these.

    tconv compiles a network of float32 to a program, native steps that one call runs, if it
    supports all operators. If it supports some, it compiles the regions of these operators, and
    ONNX Runtime runs the subgraphs between the regions. A model without a program is partitioned:
    tconv computes its ConvTranspose, and ONNX Runtime runs the subgraphs between them. Arrays pass
    between both without a copy.

    In a partitioned model ONNX Runtime keeps nodes inside If, Loop or Scan, and types other than
    float16, float32 and float64. A model for other providers than the CPU is not partitioned.
    `report` says which nodes ONNX Runtime computes, and why. tconv fuses into a layer the operators
    after it, if nothing else reads the values between: arithmetic with constants for each channel,
    a BatchNormalization, and then an activation such as Relu, Clip or Gelu. A model that ONNX
    Runtime alone refuses, such as one of float64, is always partitioned; tconv computes Conv of
    float64, too.

    Parameters
    ----------
    path_or_bytes : path, bytes or onnx.ModelProto
    sess_options : onnxruntime.SessionOptions, or None
    providers, provider_options : as for ``InferenceSession``; None means the CPU
    threads : int, threads of ONNX Runtime and of tconv; None leaves it to both
    method : "auto" decides by predicted times, "measure" by timing both at the first run;
        "onnxruntime" leaves every node to ONNX Runtime
    force : bool, partition the model and compute every ConvTranspose by tconv that it can compute,
        even if that is slower
    kwargs : enable_fallback, read_config_from_model and disabled_optimizers of ONNX Runtime

    Several threads may call a session at once. A pickle of it holds the path or the bytes that it
    was made of; a session with sess_options cannot be pickled. After a fork the child loads the
    model again. Members other than `run` and those that describe the model use one session of ONNX
    Runtime for the whole model, which is loaded when the first of them is called.

    Raises
    ------
    ModelError : the model is damaged, or ONNX Runtime refuses it
    OSError : the file cannot be read
    ParameterError : an argument is none of the above, threads is less than 1 or differs from that
        of sess_options, or force is given with a method

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

    def __init__(
        self,
        path_or_bytes: Any,
        sess_options: Any = None,
        providers: Any = None,
        provider_options: Any = None,
        *,
        threads: int | None = None,
        method: str = "auto",
        force: bool = False,
        **kwargs: "Unpack[OrtKeywords]",
    ) -> None:
        asked = (threads, sess_options, providers, provider_options, kwargs)
        self._settings = Settings.of(*asked)
        self._method = as_choice(method, "method", METHODS)
        self._force = as_flag(force, "force")
        if self._force and self._method != "auto":
            raise ParameterError(
                f"force=True excludes method={self._method!r}; pass one of the two."
            )
        self._source = as_source(path_or_bytes)
        self._last: tuple[Execution, RunProfile | None, float] | None
        self._executions = self._load()

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
        run_options : onnxruntime.RunOptions, or None

        Raises
        ------
        ParameterError : a name is missing or unknown
        ShapeError, DTypeError : an array is not what the model declares, or a ConvTranspose cannot
            take it
        ModelError : another node fails
        """
        executions = self._executions
        if executions.process != os.getpid():
            executions = self._in_this_process()
        execution = executions.only
        if execution is None:
            try:
                execution = executions.known[tuple([value.shape for value in input_feed.values()])]
            except (AttributeError, KeyError, TypeError):
                feed = _checked(executions.first.loaded, input_feed)
                try:
                    execution = executions.choose(feed)
                except ModelError as error:
                    raise _with_feed(error, feed) from error
        run = execution.run_whole
        if run is None:
            return self._run_partitioned(execution, output_names, input_feed, run_options)
        began = perf_counter()
        try:
            for value in input_feed.values():
                if type(value) is not np.ndarray or not value.dtype.isnative:
                    break
            else:
                found: list[Any] = run(output_names or execution.names, input_feed, run_options)
                self._last = execution, None, (perf_counter() - began) * 1e3
                return found
        except Exception:  # run again below, with all inputs checked for an error that says why
            pass
        return self._run_whole(executions, execution, output_names, input_feed, run_options)

    def _run_partitioned(
        self, execution: Execution, output_names: Any, input_feed: Any, options: Any
    ) -> list[Any]:
        names = _checked_names(execution.loaded, output_names)
        feed = _checked(execution.loaded, input_feed)
        try:
            results, ran = execution.loaded.run(feed, names, options)
        except ModelError as error:
            raise _with_feed(error, feed) from error
        self._last = execution, ran, ran.elapsed_ms
        return results

    def _run_whole(
        self,
        executions: Executions,
        execution: Execution,
        output_names: Any,
        input_feed: Any,
        options: Any,
    ) -> list[Any]:
        """Run the whole model after checking the arguments, which ONNX Runtime may have refused."""
        loaded = execution.loaded
        names, feed = _checked_names(loaded, output_names), _checked(loaded, input_feed)
        began = perf_counter()
        if execution.decision.is_program and options is None:
            try:
                found: list[Any] = execution.run_whole(names, feed, None)
                self._last = execution, None, (perf_counter() - began) * 1e3
                return found
            except (UnknownOperator, ModelError):  # of these sizes, or initialisers are overridden
                pass
        try:
            results = loaded.whole.session().run(names, feed, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            refusal = _with_feed(ModelError(clean_message(error)), feed)
            results, ran = executions.run_refused(refusal, feed, names, options)
            assert executions.only is not None
            self._last = executions.only, ran, ran.elapsed_ms
            return results
        self._last = execution, None, (perf_counter() - began) * 1e3
        return list(results)

    def report(self) -> Report:
        """Report who computed every ConvTranspose in the last run, with sizes, times and reasons.

        Before the first run it reports who is expected to.
        """
        executions, last = self._executions, self._last
        if last is None:
            decision = None if executions.only is None else executions.only.decision
            first = executions.first
            return Report(first.nodes, first.loaded.subgraph_count, decision=decision)
        execution, ran, elapsed_ms = last
        nodes = execution.nodes
        if ran is not None:
            nodes = tuple(_with_run(node, ran) for node in nodes)
        elsewhere_ms: float | None = elapsed_ms if ran is None else ran.elsewhere_ms
        count = execution.loaded.subgraph_count
        if execution.regions:
            elsewhere_ms = None if count else 0.0
        programs = tuple(
            [
                ProgramReport.of(program, region.packed_bytes)
                for region, program in execution.regions
            ]
        )
        return Report(nodes, count, elapsed_ms, elsewhere_ms, execution.decision, programs)

    def profile(self, input_feed: Mapping[str, Any], runs: int = 5) -> StepTimes:
        """Time every step of the model's program for these inputs; print the result as a table.

        Parameters
        ----------
        input_feed : as for `run`
        runs : int, at least 1; each step's least time is kept

        Returns
        -------
        StepTimes
            each of its `steps` has what it computes, its nodes, the shape of its result and its
            `ms`; `table()` and `as_dict()` as of a report

        Raises
        ------
        UnsupportedError : no program computes the model for these inputs; `report` says why
        ParameterError, ShapeError, DTypeError : as `run`
        """
        executions = self._in_this_process()
        runs = as_integer(runs, "runs", 1)
        feed = _checked(executions.first.loaded, input_feed)
        found = executions.profile(feed, runs)
        if found is None:
            why = executions.why_no_program or "the model is not computed by a program"
            raise UnsupportedError(
                f"no program computes this model: {why}; `report` says who computes it."
            )
        return found

    def __getstate__(self) -> dict[str, Any]:
        names = ("_source", "_settings", "_method", "_force")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._executions = self._load()

    def __repr__(self) -> str:
        what = repr(self._source) if isinstance(self._source, str) else "<bytes>"
        return f"Session({what}: {summary(self.report().nodes)} by tconv)"

    def _load(self) -> Executions:
        executions = Executions(self._source, self._settings, self._method, self._force)
        self._last = None
        return executions


def _with_run(node: NodeReport, ran: RunProfile) -> NodeReport:
    if node.output not in ran.layers:
        return node
    geometry, ms = ran.layers[node.output]
    x_shape, y_shape = geometry.x_shape, geometry.y_shape
    if node.operator == "Conv":  # the geometry is that of its transpose, which maps x to y
        x_shape, y_shape = y_shape, x_shape
    w_shape = geometry.weight_shape
    return replace(node, x_shape=x_shape, weight_shape=w_shape, y_shape=y_shape, ms=ms)


def _with_feed(error: ModelError, feed: Mapping[str, Any]) -> ModelError:
    return ModelError(f"{error}; check the model, and the inputs: {_shown(feed)}.")


def _checked(loaded: LoadedModel, feed: Any) -> Values:
    return checked_feed(loaded.inputs, loaded.overridable, feed)


def _checked_names(loaded: LoadedModel, names: Sequence[str] | None) -> list[str]:
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
    """Return the inputs as ONNX Runtime takes them, each checked against its declaration."""
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
    """Return an array in native byte order, of the declared type and shape.

    Tensors of other libraries are converted to arrays.
    """
    expected = _expected(declared.type)
    if expected is None:
        return value
    if type(value) is np.ndarray and value.dtype is expected and _fits(declared, value):
        return value
    if hasattr(value, "ortvalue_from_numpy"):
        value = value.numpy()
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
    if not _fits(declared, array):
        raise ShapeError(
            f"input {declared.name!r} has shape {array.shape}, must be {_described(declared)}; "
            "pass such an array."
        )
    return array


@cache
def _expected(kind: str) -> Any:
    """NumPy's type of an input that is an array, None for other inputs."""
    if not kind.startswith("tensor("):
        return None
    return tensor_dtype_to_np_dtype(parse_type(kind).tensor_type.elem_type)


def _fits(declared: NodeArg, array: Any) -> bool:
    """Whether an array has the sizes that the model declares."""
    if declared.has_rank and len(declared.shape) != array.ndim:
        return False
    for size, found in zip(declared.shape, array.shape, strict=False):
        if size != found and isinstance(size, int):
            return False
    return True


def _shown(feed: Mapping[str, Any]) -> str:
    """Names and shapes of the inputs in a feed."""
    shapes = [f"{name} {tuple(np.shape(value))}" for name, value in list(feed.items())[:5]]
    return ", ".join(shapes) + (" …" if len(feed) > 5 else "") or "none"


def _described(each: NodeArg) -> str:
    return f"{each.name} {each.type}[{', '.join(str(size or '?') for size in each.shape)}]"


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _closest(name: Any, known: list[str]) -> str:
    found = get_close_matches(show(name), known, 1)
    return f"did you mean {found[0]!r}?" if found else "pass one of these"
