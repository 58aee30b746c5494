"""Executions of a model: as one session of ONNX Runtime, or cut at tconv's layers.

Which is quicker follows from sizes, so it is decided when these are known: as the model is loaded
if the file says all of them, else at the first run with inputs of such shapes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, prod
from time import perf_counter, sleep
from typing import Any

from onnx.helper import np_dtype_to_tensor_dtype

from tconv.errors import ModelError, TConvError
from tconv.onnx.loading import Loaded, Ran, load_cut, load_whole, open_model
from tconv.onnx.model.model import Source, read_model
from tconv.onnx.model.nodes import NotCut
from tconv.onnx.model.shape_inference import Shapes, fixed_shape, sized
from tconv.onnx.ort.float64_errors import explained
from tconv.onnx.ort.options import Settings
from tconv.onnx.partition.profitability import LEAST_GAIN, Decision, predict
from tconv.onnx.report import NodeReport
from tconv.onnx.subgraphs import PieceRun, Values
from tconv.system.fork_lock import ForkLock

__all__ = ["Execution", "Executions"]

_MOST_DECISIONS = 8  # of a model; inputs of further shapes go the way of those of about their size
_MOST_SHAPES = 1024  # that are remembered
_GUESSED = 64  # cells along an axis, until the first run says how many there are
_MEASURED_S, _PAUSE_S, _TURNS = 0.1, 0.04, 2  # of either execution in a turn; threads go to sleep
_CHANGED = "the file has changed since it was loaded"
_SMALL = "too small to gain"
_EVERY_NODE = "force=True leaves no ConvTranspose to ONNX Runtime that tconv can compute"

Key = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Execution:
    """One way to run a model, the decision for it, and all its ConvTranspose.

    `run_whole` runs ONNX Runtime's session where that is all, None else.
    """

    loaded: Loaded
    decision: Decision
    nodes: tuple[NodeReport, ...]
    names: list[str]
    run_whole: Any


class Executions:
    """What one process has loaded of a model.

    `only` is the execution of all runs, if that is known. Else `known` has those of inputs of
    certain shapes, in the order of the feed, and `choose` decides for others. `whole` is the model
    as one session of ONNX Runtime, `first` the execution that was loaded first.

    Raises
    ------
    ModelError, OSError : as `open_model` and `load_whole`
    """

    def __init__(self, source: Source, settings: Settings, method: str, force: bool) -> None:
        self.process = os.getpid()
        # The model with its weights, until something is loaded of it.
        self._opened, self._model = open_model(source, settings)
        self._method, self._lock, self._has_tried = method, ForkLock(), False
        self._needs_run = False  # to find out the sizes of layers
        self.whole = self._opened.whole
        self._whole: Loaded | None = None
        self._cut: Loaded | None = None
        self._decisions: dict[Key, Decision] = {}
        self.known: dict[Key, Execution] = {}
        self.only: Execution | None = None
        try:
            self.first = self._begin(force)
        except ModelError as error:
            bare = self._opened.outline
            raise (error if bare is None else explained(error, bare)) from error
        self._model = None

    def _begin(self, force: bool) -> Execution:
        """Load what the first run should need."""
        candidates, left = self._opened.candidates, self._opened.settings.left
        if self._model is None or not candidates or left or self._method == "onnxruntime":
            why = left or ("method='onnxruntime'" if candidates else "")
            self.only = self._left(Decision("onnxruntime", why))
            return self.only
        if force or self._opened.has_float64:
            why = _EVERY_NODE if force else "ONNX Runtime has none of float64"
            self.only = self._taken(Decision("tconv", why), self._all)
            return self.only
        shapes, is_certain = self._declared()
        decision, taken = self._predicted(shapes, {}) or (None, self._all)
        self._needs_run = decision is None
        if decision is None or self._method == "measure":
            is_certain = False
            decision = decision or Decision("tconv", "sizes of layers follow from the first run")
        execution = self._taken(decision, taken) if decision.by == "tconv" else self._left(decision)
        if is_certain:
            self.only = execution
        return execution

    @property
    def _all(self) -> tuple[int, ...]:
        return tuple(layer.index for layer in self._opened.candidates)

    def _declared(self) -> tuple[dict[str, tuple[int, ...]], bool]:
        """Shapes of the inputs, and whether the file says all; what it does not is guessed."""
        assert self._opened.outline is not None
        found, is_certain = {}, True
        for value in self._opened.outline.graph.input:
            kind = value.type.tensor_type
            shape = fixed_shape(value)
            if shape is None and kind.HasField("shape"):
                is_certain = False
                shape = tuple(
                    max(size.dim_value, 0) or (_GUESSED if n else 1)
                    for n, size in enumerate(kind.shape.dim)
                )
            if shape is None:
                is_certain = False
            else:
                found[value.name] = shape
        return found, is_certain

    def _predicted(
        self, shapes: Shapes, types: Mapping[str, int]
    ) -> tuple[Decision, tuple[int, ...]] | None:
        """Decide by predicted times; None if the sizes of a layer do not follow from these."""
        opened = self._opened
        assert opened.graph is not None
        assert opened.outline is not None
        found = predict(opened.graph, sized(opened.outline, shapes, types), opened.settings.threads)
        if found is None:
            return None
        is_gain = found.gain >= LEAST_GAIN
        why = "predicted to gain" if is_gain else "predicted gain below 3 %"
        decision = Decision(
            "tconv" if is_gain else "onnxruntime",
            why,
            found.onnxruntime_us / 1e3,
            found.tconv_us / 1e3,
        )
        return decision, tuple(layer.index for layer in found.taken)

    def choose(self, feed: Values) -> Execution:
        """Return the execution of inputs that are what the model declares.

        Raises
        ------
        ModelError : neither execution can compute them
        """
        if self.only is not None:
            return self.only
        key: Key = tuple(getattr(value, "shape", ()) for value in feed.values())
        with self._lock:
            found = self.known.get(key)
            if found is None:
                found = self._decided(key, feed)
                if len(self.known) >= _MOST_SHAPES:
                    self.known.clear()
                self.known[key] = found
        return found

    def _decided(self, key: Key, feed: Values) -> Execution:
        if len(self._decisions) >= _MOST_DECISIONS:
            return self._execution(self._nearest(key), ())
        if self._method == "measure":
            decision, taken = self._measured(feed), self._all
        else:
            shapes = {name: v.shape for name, v in feed.items() if hasattr(v, "shape")}
            found = None if self._needs_run else self._predicted(shapes, {})
            found = found or self._tried(feed, shapes)
            decision, taken = found
        execution = self._execution(decision, taken)
        if not self._decisions:  # what was loaded by a guess
            if execution.loaded is not self._cut:
                self._cut = None
            elif not self.whole.is_lent:
                self._whole, self.whole = None, execution.loaded.whole
        self._decisions[key] = execution.decision
        if len(self._decisions) == _MOST_DECISIONS:
            by = {each.by for each in self._decisions.values()}
            self.only = execution if len(by) == 1 else None
        return execution

    def _nearest(self, key: Key) -> Decision:
        """The decision for the inputs that are most alike in size."""

        def size(shapes: Key) -> float:
            return log(1 + sum(map(prod, shapes)))

        return self._decisions[min(self._decisions, key=lambda each: abs(size(each) - size(key)))]

    def _tried(
        self, feed: Values, shapes: dict[str, tuple[int, ...]]
    ) -> tuple[Decision, tuple[int, ...]]:
        """Run all layers once, for the sizes that depend on what is computed."""
        seen: dict[str, Any] = {}
        try:
            loaded = self._cut or self._load_cut(self._all)
            loaded.run(feed, (), shapes=seen)
        except (NotCut, TConvError) as error:
            return Decision("onnxruntime", f"cut, it does not run: {error}"), ()
        self._cut = loaded
        assert self._opened.graph is not None
        between = {name: each for name, each in seen.items() if name in self._opened.graph.maker}
        types = {name: np_dtype_to_tensor_dtype(kind) for name, (kind, _) in between.items()}
        found = self._predicted({n: s for n, (_, s) in seen.items()} | shapes, types)
        return found or (Decision("onnxruntime", "sizes are not known"), ())

    def _measured(self, feed: Values) -> Decision:
        """Time both executions, in turns, and keep the quicker."""
        whole = self._whole or load_whole(self.whole)
        try:
            cut = self._cut or self._load_cut(self._all)
        except NotCut as error:
            return Decision("onnxruntime", str(error))
        self._whole, self._cut = whole, cut
        ways, failed = {"onnxruntime": whole, "tconv": cut}, dict[str, TConvError]()
        for by, loaded in ways.items():
            try:
                loaded.run(feed, ())
            except TConvError as error:
                failed[by] = error
        if len(failed) == len(ways):
            raise failed["onnxruntime"]
        for by, refusal in failed.items():
            other = next(each for each in ways if each != by)
            return Decision(other, f"by {by} it does not run: {refusal}")
        best = dict.fromkeys(ways, inf)
        for _ in range(_TURNS):
            for by, loaded in ways.items():
                sleep(_PAUSE_S)
                until = perf_counter() + _MEASURED_S
                loaded.run(feed, ())
                while True:
                    best[by] = min(best[by], loaded.run(feed, ())[1].elapsed_ms)
                    if perf_counter() >= until:
                        break
        ours, theirs = best["tconv"], best["onnxruntime"]
        is_gain = 1 - ours / theirs >= LEAST_GAIN
        why = "measured to gain" if is_gain else "measured gain below 3 %"
        return Decision("tconv" if is_gain else "onnxruntime", why, theirs, ours, is_measured=True)

    def _execution(self, decision: Decision, taken: Sequence[int]) -> Execution:
        if decision.by == "tconv":
            return self._taken(decision, taken or self._all)
        return self._left(decision)

    def _left(self, decision: Decision) -> Execution:
        """The execution through ONNX Runtime alone; cut, if that refuses the model."""
        if self._whole is None:
            if self._cut is not None and self.whole.has_changed:
                return self._by(self._cut, Decision("tconv", _CHANGED))
            self._model = None  # ONNX Runtime reads it once more
            try:
                self._whole = load_whole(self.whole)
            except ModelError as error:
                if self._opened.settings.left or self._method == "onnxruntime":
                    raise
                self.only = self._refused(error)
                return self.only
        return self._by(self._whole, decision)

    def _taken(self, decision: Decision, taken: Sequence[int]) -> Execution:
        """The execution with layers by tconv; ONNX Runtime alone where the model cannot be cut."""
        if self._cut is None:
            try:
                self._cut = self._load_cut(taken)
            except NotCut as why:
                self.only = self._left(Decision("onnxruntime", str(why)))
                return self.only
        return self._by(self._cut, decision)

    def run_refused(
        self, error: ModelError, feed: Values, names: Sequence[str], options: Any
    ) -> tuple[list[Any], Ran]:
        """Run a model with tconv's layers that ONNX Runtime alone refuses to run, if that helps.

        Raises
        ------
        ModelError : `error`, where it does not
        """
        if not self._opened.candidates or self._opened.settings.left or self._has_tried:
            raise error
        if self._method == "onnxruntime":
            raise error
        with self._lock:
            self._has_tried = True
            execution = self._refused(error)
        try:
            found = execution.loaded.run(feed, names, options)
        except TConvError:
            raise error from None
        self.only = execution
        return found

    def _refused(self, error: ModelError) -> Execution:
        if not self._opened.candidates:
            raise error
        try:
            loaded = self._load_cut(self._all)
        except (NotCut, TConvError):
            raise error from None
        return self._by(loaded, Decision("tconv", f"ONNX Runtime alone refuses it: {error}"))

    def _load_cut(self, taken: Sequence[int]) -> Loaded:
        model, self._model = self._model, None
        if model is None:
            if self.whole.has_changed:
                raise NotCut(_CHANGED)
            model = read_model(self._opened.source)
        loaded = load_cut(self._opened, model, taken)
        if not self.whole.is_loaded:  # its options are copies, which the caller does not change
            self.whole = loaded.whole
        return loaded

    def _by(self, loaded: Loaded, decision: Decision) -> Execution:
        reason = _SMALL if loaded.taken else decision.reason
        nodes = self._opened.reports(loaded.taken, reason)
        names = [each.name for each in loaded.outputs]
        run = None
        if not loaded.taken:
            step = loaded.steps[0]
            assert isinstance(step, PieceRun)
            # Of other providers than CPUs ONNX Runtime's own class may fall back.
            run = step.session.run if self._opened.settings.left else step.run
        return Execution(loaded, decision, nodes, names, run)
