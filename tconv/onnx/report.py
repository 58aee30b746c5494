"""Reports of a run and of a comparison, which print themselves as tables."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from numpy.typing import NDArray

from tconv.onnx.partition.profitability import Decision
from tconv.onnx.programs.report import ProgramReport
from tconv.tables import Column, Table, Tabular

__all__ = [
    "Comparison",
    "NodeComparison",
    "NodeReport",
    "OfflineComparison",
    "Report",
    "ResultComparison",
    "summary",
]

Shape = tuple[int, ...]
ROUNDING = 1e-5
"""Of the largest value: the effect of another order of summation in float32."""
NUDGE = 1e-7
"""Relative change of every floating input that shows how much a model amplifies rounding."""


@dataclass(frozen=True)
class NodeReport:
    """One ConvTranspose or Conv: who computed it in the last run, at what sizes, in how many ms.

    `output` is the name of its result, "" inside another node. `reason` says why ONNX Runtime
    computed it; its time is then part of a subgraph's. `folded` are the following operators that
    tconv fused into it; their time is part of its own.
    """

    name: str
    output: str
    attributes: str
    computed_by: str
    reason: str = ""
    folded: tuple[str, ...] = ()
    x_shape: Shape | None = None
    weight_shape: Shape | None = None
    y_shape: Shape | None = None
    ms: float | None = None
    operator: str = "ConvTranspose"


@dataclass(frozen=True)
class Report(Tabular):
    """A model's ConvTranspose, and the Conv that tconv may compute; times of the last run in ms.

    `elapsed_ms` is the time of the whole run, `elsewhere_ms` that of ONNX Runtime in it, for
    `pieces` subgraphs; both are None before the first run, and the latter where programs ran beside
    subgraphs. `decision` says why the model was partitioned, or was not. `programs` describes the
    programs that ran, one for each region.
    """

    nodes: tuple[NodeReport, ...]
    pieces: int
    elapsed_ms: float | None = None
    elsewhere_ms: float | None = None
    decision: Decision | None = None
    programs: tuple[ProgramReport, ...] = ()

    def table(self) -> Table:
        """One row for each node."""
        columns = (
            Column("layer", folds=True),
            Column("x"),
            Column("weight"),
            Column("y"),
            Column("attributes", folds=True),
            Column("computed by", folds=True),
            Column("ms", right=True),
        )
        rows = tuple(
            (
                _named(node),
                _sizes(node.x_shape),
                _sizes(node.weight_shape),
                _sizes(node.y_shape),
                node.attributes,
                _who(node),
                _ms(node.ms),
            )
            for node in self.nodes
        )
        return Table(columns, rows, self._footer())

    def _footer(self) -> str:
        decided, times = _decided(self.nodes, self.decision), list[str]()
        if self.elapsed_ms is not None:
            times.append(f"whole model {_ms(self.elapsed_ms)} ms")
            if self.elsewhere_ms is not None:
                times.append(f"of which ONNX Runtime {_ms(self.elsewhere_ms)} ms")
        if not self.programs:
            return " · ".join([*decided, *times])
        programs = [str(each) for each in self.programs]
        rest = f"subgraphs of ONNX Runtime: {self.pieces}", *times
        return "\n".join([" · ".join(decided), *programs, " · ".join(rest)])

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class NodeComparison:
    """One ConvTranspose by tconv and by ONNX Runtime: fastest times in ms, and the difference.

    `difference` is the largest absolute difference, `largest` the largest absolute value; both are
    None for a node inside another one. tconv's time includes the `folded` operators, ONNX Runtime's
    does not. `faster` is "tconv" or "onnxruntime", None if the rounds disagree.
    """

    name: str
    computed_by: str
    reason: str
    x_shape: Shape | None
    y_shape: Shape | None
    difference: float | None
    largest: float | None
    tconv_ms: float | None
    onnxruntime_ms: float | None
    folded: tuple[str, ...] = ()
    faster: str | None = None


@dataclass(frozen=True)
class ResultComparison:
    """One output of the model: the largest difference, and the largest value.

    `moved` is how far ONNX Runtime's own output moves if every floating input changes by 1e-7 of
    it; None if no output differs by more than rounding explains, or no input is floating. `varied`
    is how far it moves from one run to the next with the same inputs.
    """

    name: str
    shape: Shape
    difference: float
    largest: float
    moved: float | None = None
    varied: float | None = None


@dataclass(frozen=True)
class Comparison(Tabular):
    """A model run by `Session` and by ONNX Runtime alone: outputs, and medians of `runs` in ms.

    `faster` is "tconv" or "onnxruntime", None if the rounds disagree. `decision` says why the model
    was partitioned, or was not.
    """

    nodes: tuple[NodeComparison, ...]
    results: tuple[ResultComparison, ...]
    tconv_ms: float
    onnxruntime_ms: float
    runs: int
    outputs: dict[str, NDArray[Any]] = field(repr=False, compare=False)
    faster: str | None = None
    decision: Decision | None = None

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference of any output."""
        return max((result.difference for result in self.results), default=0.0)

    def table(self) -> Table:
        """One row for each ConvTranspose, one for each output of the model, one for the whole."""
        columns = (
            Column("layer", folds=True),
            Column("y"),
            Column("by", folds=True),
            Column("difference", right=True),
            Column("tconv ms", right=True),
            Column("ORT ms", right=True),
            Column("ratio", right=True),
        )
        rows = [
            (
                node.name,
                _sizes(node.y_shape),
                _who(node),
                _apart(node.difference, node.largest),
                _ms(node.tconv_ms),
                _ms(node.onnxruntime_ms),
                _ratio(node.onnxruntime_ms, node.tconv_ms, node.faster),
            )
            for node in self.nodes
        ]
        for result in self.results:
            apart = _apart(result.difference, result.largest)
            rows.append((f"output {result.name}", _sizes(result.shape), "", apart, "", "", ""))
        times = (_ms(self.tconv_ms), _ms(self.onnxruntime_ms))
        ratio = _ratio(self.onnxruntime_ms, self.tconv_ms, self.faster)
        rows.append(("whole model", "", "", "", *times, ratio))
        footer = (
            "largest difference of largest value · whole model: medians of "
            f"{self.runs} runs each, layers: the fastest · "
            "ORT: ONNX Runtime alone, in its own process"
        )
        if any(row[-1] == _ALIKE for row in rows):
            footer += f" · {_ALIKE} not told apart"
        lines = " · ".join(_decided(self.nodes, self.decision)), footer, self.explanation()
        return Table(columns, tuple(rows), "\n".join(filter(None, lines)))

    def explanation(self) -> str:
        """Why an output differs by more than rounding, in words; "" if none does."""
        return _explanation(self.results)

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain values, without the outputs."""
        shown = asdict(self)
        del shown["outputs"]
        of_all = {"largest_difference": self.largest_difference, "explanation": self.explanation()}
        return shown | of_all


@dataclass(frozen=True)
class OfflineComparison(Tabular):
    """Results of a stream, and those of ONNX Runtime alone of the whole input.

    `onnxruntime_ms` is the median time of its runs.
    """

    results: tuple[ResultComparison, ...]
    onnxruntime_ms: float

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference of any output."""
        return max((result.difference for result in self.results), default=0.0)

    def table(self) -> Table:
        """One row for each output."""
        columns = Column("output", folds=True), Column("y"), Column("difference", right=True)
        rows = tuple(
            (result.name, _sizes(result.shape), _apart(result.difference, result.largest))
            for result in self.results
        )
        footer = (
            "largest difference of largest value, from ONNX Runtime of the whole input, "
            f"{_ms(self.onnxruntime_ms)} ms"
        )
        verdict = self.explanation()
        if not verdict:
            is_rounding = all(each.difference <= ROUNDING * each.largest for each in self.results)
            verdict = f"{'no ' * is_rounding}more than another order of summation explains"
        return Table(columns, rows, f"{footer}\n{verdict}")

    def explanation(self) -> str:
        """Why an output differs by more than rounding, in words; "" if none does."""
        return _explanation(self.results)

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain values."""
        of_all = {"largest_difference": self.largest_difference, "explanation": self.explanation()}
        return asdict(self) | of_all


def _explanation(results: Sequence[ResultComparison]) -> str:
    """Why an output differs by more than rounding, in words; "" if none does."""
    moved = [result for result in results if result.moved is not None]
    if not moved:
        return ""
    worst = max(moved, key=_part)
    if worst.varied and 3 * worst.varied >= worst.difference:
        return (
            f"with the same inputs ONNX Runtime's own answer {worst.name} moves "
            f"{_how_far(worst.varied, worst.largest)} from run to run: the model draws random "
            "numbers, and two answers are never the same"
        )
    found = (
        f"changing the inputs by {NUDGE:g} moves ONNX Runtime's own answer {worst.name} "
        f"{_how_far(worst.moved or 0.0, worst.largest)}: "
    )
    if 3 * (worst.moved or 0.0) >= worst.difference:
        return found + "the model amplifies rounding, which explains the difference"
    return found + "less than the difference, which rounding does not explain"


def _decided(nodes: Sequence[NodeReport | NodeComparison], decision: Decision | None) -> list[str]:
    """How many nodes tconv computes, and the decision."""
    parts = [f"{summary(nodes)} computed by tconv"]
    if decision is not None and decision.reason:
        parts.append(decision.sentence)
    return parts


def summary(nodes: Sequence[NodeReport | NodeComparison]) -> str:
    """How many nodes tconv computes, of how many of which operators."""
    taken = sum(node.computed_by == "tconv" for node in nodes)
    has_conv = any(isinstance(node, NodeReport) and node.operator == "Conv" for node in nodes)
    return f"{taken} of {len(nodes)} {'Conv and ' * has_conv}ConvTranspose"


def _named(node: NodeReport) -> str:
    return node.name if node.operator == "ConvTranspose" else f"{node.name} ({node.operator})"


_ALIKE = "≈"


def _sizes(shape: Shape | None) -> str:
    return "–" if shape is None else "×".join(map(str, shape))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _apart(difference: float | None, largest: float | None) -> str:
    return "–" if difference is None else f"{difference:.2g} of {largest:.3g}"


def _part(result: ResultComparison) -> float:
    """Difference relative to the largest value."""
    if not result.difference:
        return 0.0
    return result.difference / result.largest if 0 < result.largest < inf else inf


def _how_far(moved: float, largest: float) -> str:
    return "to another shape" if moved == inf else f"by {_apart(moved, largest)}"


def _ratio(other: float | None, own: float | None, faster: str | None) -> str:
    if not other or not own:
        return "–"
    return f"{other / own:.2f}×" if faster else _ALIKE


def _who(node: NodeReport | NodeComparison) -> str:
    if node.computed_by == "tconv":
        return " + ".join(("tconv", *node.folded))
    return f"ONNX Runtime: {node.reason}" if node.reason else "ONNX Runtime"
