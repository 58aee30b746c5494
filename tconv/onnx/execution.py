"""Executions of a model: by programs, by one session of ONNX Runtime, or partitioned at layers.

Sizes determine which is faster. So the decision is made when they are known: at load time if the
file declares all of them, else at the first run with inputs of these shapes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, log, prod
from time import perf_counter, sleep
from typing import Any

from onnx import ModelProto
from onnx.helper import np_dtype_to_tensor_dtype

from tconv.errors import ModelError, TConvError
from tconv.graph import Program
from tconv.onnx.loading import LoadedModel, RunProfile, analyse_model, load_partitioned, load_whole
from tconv.onnx.model.model import Source, read_model
from tconv.onnx.model.nodes import NotPartitionable
from tconv.onnx.model.shape_inference import Shapes, fixed_shape, infer_shapes
from tconv.onnx.ort.float64_errors import explain_refusal
from tconv.onnx.ort.options import Settings
from tconv.onnx.partition.profitability import LEAST_GAIN, Decision, predict
from tconv.onnx.programs.model_programs import ModelPrograms
from tconv.onnx.programs.region_step import RegionStep
from tconv.onnx.programs.report import StepTimes
from tconv.onnx.programs.search import ProgramSearch
from tconv.onnx.report import NodeReport
from tconv.onnx.subgraphs import SubgraphSession, Values
from tconv.system.fork_lock import ForkLock

__all__ = ["Execution", "Executions"]

_MOST_DECISIONS = 8  # per model; inputs of further shapes follow those closest to them in size
_MOST_SHAPES = 1024  # whose executions are cached
_ASSUMED = 64  # cells along an axis of unknown size, until the first run
# Either execution is timed so long in each of so many rounds, after a pause in which threads of the
# other go to sleep.
_MEASURED_S, _PAUSE_S, _ROUNDS = 0.1, 0.04, 2
_CHANGED = "the file has changed since it was loaded"
_SMALL = "too small to gain"
_AT_FIRST_RUN = "sizes follow from the first run"
_EVERY_NODE = "force=True leaves no ConvTranspose to ONNX Runtime that tconv can compute"

Key = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Execution:
    """A loaded model, the decision for it, reports of its layers and the names of its outputs.

    `run_whole` runs ONNX Runtime's session of the whole model, or programs as it does; None if the
    model is partitioned. `regions` are those of `programs`, each with its program.
    """

    loaded: LoadedModel
    decision: Decision
    nodes: tuple[NodeReport, ...]
    names: list[str]
    run_whole: Any
    programs: ModelPrograms | None = None
    regions: tuple[tuple[RegionStep, Program], ...] = ()


class Executions:
    """The executions of a model that one process has loaded, and the choice between them.

    `only` is the execution of every run, once that is decided. Until then `known` holds executions
    by the shapes of the inputs, in the order of the feed, and `choose` decides for others. `whole`
    is the model as one session of ONNX Runtime, `first` the execution that was loaded first.

    Raises
    ------
    ModelError, OSError : as `analyse_model` and `load_whole`
    """

    def __init__(self, source: Source, settings: Settings, method: str, force: bool) -> None:
        self.process = os.getpid()
        # The model with its weights is held until an execution has been loaded from it.
        self._analysis, self._model = analyse_model(source, settings)
        self._method, self._lock, self._has_tried = method, ForkLock(), False
        self._needs_run = False  # to learn the sizes of layers
        self.whole = self._analysis.whole
        self._whole: LoadedModel | None = None
        self._partitioned: LoadedModel | None = None
        self._search: ProgramSearch | None = None
        self._why_left = ""
        self._decisions: dict[Key, Decision] = {}
        self.known: dict[Key, Execution] = {}
        self.only: Execution | None = None
        try:
            self.first = self._begin(force)
        except ModelError as error:
            bare = self._analysis.stripped
            raise (error if bare is None else explain_refusal(error, bare)) from error
        self._model = None

    @property
    def why_no_program(self) -> str:
        """Why the last inputs had no program."""
        return self._why_left or ("" if self._search is None else self._search.why)

    def profile(self, feed: Values, runs: int) -> StepTimes | None:
        """Time each step of the programs for a feed; None if no program computes it."""
        execution = self.choose(feed)
        return None if execution.programs is None else execution.programs.profile(feed, runs)

    def _begin(self, force: bool) -> Execution:
        """Load the execution that the first run is expected to use."""
        analysis = self._analysis
        candidates, why_whole = analysis.candidates, analysis.settings.why_whole
        is_left = why_whole or self._method == "onnxruntime"
        if self._model is None or is_left or not (candidates or analysis.has_convolution):
            why = why_whole or ("method='onnxruntime'" if candidates else "")
            self.only, self._why_left = self._as_whole(Decision("onnxruntime", why)), why
            return self.only
        if candidates and (force or analysis.has_float64):
            why = _EVERY_NODE if force else "ONNX Runtime has none of float64"
            self.only = self._as_partitioned(Decision("tconv", why), self._all)
            return self.only
        shapes, is_certain = self._declared()
        self._search = ProgramSearch(self._model, analysis, self._read_again, shapes, is_certain)
        found = self._as_program(shapes)
        if found is not None:
            if is_certain and self._method != "measure":
                self.only = found
            return found
        programs = self._search.programs
        if programs is not None and not programs.is_whole:
            expected = Decision("tconv", _AT_FIRST_RUN, is_program=True)
            found = self._program_execution(programs, expected, ())
            # It only describes the model: programs that the search replaces are freed.
            described = replace(found.loaded, steps=(), last_use=())
            return replace(found, loaded=described, run_whole=None, programs=None)
        if not candidates:
            execution = self._as_whole(Decision("onnxruntime", ""))
            if is_certain or programs is None:
                self.only = execution
            return execution
        decision, assigned = self._predicted(shapes, {}) or (None, self._all)
        self._needs_run = decision is None
        if decision is None or self._method == "measure":
            is_certain = False
            decision = decision or Decision("tconv", "sizes of layers follow from the first run")
        execution = self._load_execution(decision, assigned)
        if is_certain:
            self.only = execution
        return execution

    def _as_program(self, shapes: Shapes, feed: Values | None = None) -> Execution | None:
        """The execution by programs that are predicted to gain, else None: `why_no_program`."""
        if self._search is None:
            return None
        found = self._search.forecast(shapes, feed)
        if found is None:
            return None
        if 1 - found.tconv_us / found.onnxruntime_us < LEAST_GAIN:
            self._search.why = "predicted gain below 3 %"
            return None
        theirs_ms, ours_ms = found.onnxruntime_us / 1e3, found.tconv_us / 1e3
        decision = Decision("tconv", "predicted to gain", theirs_ms, ours_ms, is_program=True)
        return self._program_execution(found.programs, decision, found.regions)

    def _program_execution(
        self,
        programs: ModelPrograms,
        decision: Decision,
        regions: tuple[tuple[RegionStep, Program], ...],
    ) -> Execution:
        loaded = programs.loaded
        if not self.whole.is_loaded:  # take the one whose options are copies
            self.whole = loaded.whole
        nodes = self._analysis.reports(loaded.assigned, "outside of the programs")
        names = [each.name for each in loaded.outputs]
        return Execution(loaded, decision, nodes, names, programs.run, programs, regions)

    @property
    def _all(self) -> tuple[int, ...]:
        return tuple(layer.index for layer in self._analysis.candidates)

    def _declared(self) -> tuple[dict[str, tuple[int, ...]], bool]:
        """Shapes of the inputs, and whether the file declares all; the others are assumed."""
        assert self._analysis.stripped is not None
        found, is_certain = {}, True
        for value in self._analysis.stripped.graph.input:
            kind = value.type.tensor_type
            shape = fixed_shape(value)
            if shape is None and kind.HasField("shape"):
                is_certain = False
                shape = tuple(
                    max(size.dim_value, 0) or (_ASSUMED if n else 1)
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
        """Decide by predicted times; None if the sizes of a layer do not follow from `shapes`."""
        analysis = self._analysis
        assert analysis.graph is not None
        assert analysis.stripped is not None
        shapes = infer_shapes(analysis.stripped, shapes, types)
        found = predict(analysis.graph, shapes, analysis.settings.threads)
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
        return decision, tuple(layer.index for layer in found.assigned)

    def choose(self, feed: Values) -> Execution:
        """Return the execution for inputs that fit the model's declarations.

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
        shapes = {name: v.shape for name, v in feed.items() if hasattr(v, "shape")}
        if len(self._decisions) >= _MOST_DECISIONS:
            nearest = self._nearest(key)
            program = self._as_program(shapes, feed) if nearest.is_program else None
            return program or self._load_execution(nearest, ())
        execution = self._as_program(shapes, feed)
        if execution is None and not self._analysis.candidates:
            execution = self._as_whole(Decision("onnxruntime", self.why_no_program))
        elif execution is None and self._method == "measure":
            execution = self._load_execution(self._measured(feed), self._all)
        elif execution is None:
            found = None if self._needs_run else self._predicted(shapes, {})
            execution = self._load_execution(*(found or self._decided_by_run(feed, shapes)))
        if not self._decisions:  # release what was loaded for assumed sizes and is not used
            if execution.loaded is not self._partitioned:
                self._partitioned = None
            elif not self.whole.is_exposed:
                self._whole, self.whole = None, execution.loaded.whole
        self._decisions[key] = execution.decision
        if len(self._decisions) == _MOST_DECISIONS:
            by = {(each.by, each.is_program) for each in self._decisions.values()}
            self.only = execution if len(by) == 1 else None
            if self.only is not None and not execution.decision.is_program:
                self._search, self._why_left = None, self.why_no_program
        return execution

    def _nearest(self, key: Key) -> Decision:
        """The decision for the inputs that are closest in size."""

        def size(shapes: Key) -> float:
            return log(1 + sum(map(prod, shapes)))

        return self._decisions[min(self._decisions, key=lambda each: abs(size(each) - size(key)))]

    def _decided_by_run(
        self, feed: Values, shapes: dict[str, tuple[int, ...]]
    ) -> tuple[Decision, tuple[int, ...]]:
        """Run the model partitioned once, for sizes that depend on values, then predict."""
        seen: dict[str, Any] = {}
        try:
            loaded = self._partitioned or self._load_partitioned(self._all)
            loaded.run(feed, (), shapes=seen)
        except (NotPartitionable, TConvError) as error:
            return Decision("onnxruntime", f"partitioned, it does not run: {error}"), ()
        self._partitioned = loaded
        assert self._analysis.graph is not None
        producer = self._analysis.graph.producer
        between = {name: each for name, each in seen.items() if name in producer}
        types = {name: np_dtype_to_tensor_dtype(kind) for name, (kind, _) in between.items()}
        found = self._predicted({n: s for n, (_, s) in seen.items()} | shapes, types)
        return found or (Decision("onnxruntime", "sizes are not known"), ())

    def _measured(self, feed: Values) -> Decision:
        """Time both executions in interleaved rounds, and choose the faster."""
        whole = self._whole or load_whole(self.whole)
        try:
            partitioned = self._partitioned or self._load_partitioned(self._all)
        except NotPartitionable as error:
            return Decision("onnxruntime", str(error))
        self._whole, self._partitioned = whole, partitioned
        ways, failed = {"onnxruntime": whole, "tconv": partitioned}, dict[str, TConvError]()
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
        for _ in range(_ROUNDS):
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

    def _load_execution(self, decision: Decision, assigned: Sequence[int]) -> Execution:
        if decision.by == "tconv":
            return self._as_partitioned(decision, assigned or self._all)
        return self._as_whole(decision)

    def _as_whole(self, decision: Decision) -> Execution:
        """The execution by ONNX Runtime alone; partitioned if ONNX Runtime refuses the model."""
        if self._whole is None:
            if self._partitioned is not None and self.whole.has_changed:
                return self._execution_of(self._partitioned, Decision("tconv", _CHANGED))
            self._model = None  # ONNX Runtime reads it once more
            try:
                self._whole = load_whole(self.whole)
            except ModelError as error:
                if self._analysis.settings.why_whole or self._method == "onnxruntime":
                    raise
                self.only = self._refused(error)
                return self.only
        return self._execution_of(self._whole, decision)

    def _as_partitioned(self, decision: Decision, assigned: Sequence[int]) -> Execution:
        """The partitioned execution; ONNX Runtime alone if the model cannot be partitioned."""
        if self._partitioned is None:
            try:
                self._partitioned = self._load_partitioned(assigned)
            except NotPartitionable as why:
                self.only = self._as_whole(Decision("onnxruntime", str(why)))
                return self.only
        return self._execution_of(self._partitioned, decision)

    def run_refused(
        self, error: ModelError, feed: Values, names: Sequence[str], options: Any
    ) -> tuple[list[Any], RunProfile]:
        """Run a model partitioned after ONNX Runtime alone has refused to run it.

        Raises
        ------
        ModelError : `error`, if it does not run partitioned either
        """
        if not self._analysis.candidates or self._analysis.settings.why_whole or self._has_tried:
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
        if not self._analysis.candidates:
            raise error
        try:
            loaded = self._load_partitioned(self._all)
        except (NotPartitionable, TConvError):
            raise error from None
        return self._execution_of(
            loaded, Decision("tconv", f"ONNX Runtime alone refuses it: {error}")
        )

    def _read_again(self) -> ModelProto:
        if self.whole.has_changed:
            raise NotPartitionable(_CHANGED)
        return read_model(self._analysis.source)

    def _load_partitioned(self, assigned: Sequence[int]) -> LoadedModel:
        model, self._model = self._model, None
        if model is None:
            model = self._read_again()
        loaded = load_partitioned(self._analysis, model, assigned)
        if not self.whole.is_loaded:  # take the one whose options are copies
            self.whole = loaded.whole
        return loaded

    def _execution_of(self, loaded: LoadedModel, decision: Decision) -> Execution:
        reason = _SMALL if loaded.assigned else decision.reason
        nodes = self._analysis.reports(loaded.assigned, reason)
        names = [each.name for each in loaded.outputs]
        run = None
        if not loaded.assigned:
            step = loaded.steps[0]
            assert isinstance(step, SubgraphSession)
            # With other providers than the CPU, ONNX Runtime's Python class may fall back.
            run = step.session.run if self._analysis.settings.why_whole else step.run
        return Execution(loaded, decision, nodes, names, run)
