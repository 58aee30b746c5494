"""Search for the programs of a model: the whole, else the regions that are predicted to gain."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from onnx import ModelProto, NodeProto

from tconv.errors import ModelError
from tconv.graph import Program, UnknownOperator
from tconv.onnx.loading import ModelAnalysis
from tconv.onnx.model.nodes import NotPartitionable
from tconv.onnx.model.shape_inference import Shapes, infer_shapes
from tconv.onnx.partition.cost_model import COLD_US, PROGRAM_US, RUN_US, SUBGRAPH_US
from tconv.onnx.partition.profitability import nodes_us, whole_us
from tconv.onnx.programs.model_programs import ModelPrograms, WrongType
from tconv.onnx.programs.region_step import RegionStep
from tconv.onnx.programs.regions import Regions
from tconv.onnx.subgraphs import Values

__all__ = ["Forecast", "ProgramSearch"]

_MOST_TRIES = 12  # to find regions, each without some nodes more
BORDER_US = PROGRAM_US + SUBGRAPH_US + COLD_US
"""What a region costs beyond its program, and the subgraph beside it."""


class Forecast(NamedTuple):
    """Programs for given sizes, and predicted microseconds of a run without and with them."""

    programs: ModelPrograms
    regions: tuple[tuple[RegionStep, Program], ...]
    onnxruntime_us: float
    tconv_us: float


class ProgramSearch:
    """The programs of a model, narrowed as sizes show which nodes no program can have.

    `programs` are the current ones, None if there are none; `why` then says so.

    Parameters
    ----------
    model, analysis : the model with its weights, and what is known of it
    read : function that reads the model once more
    shapes : of the inputs, as far as they are known
    is_certain : whether the file declares all of them
    """

    def __init__(
        self,
        model: ModelProto,
        analysis: ModelAnalysis,
        read: Callable[[], ModelProto],
        shapes: Shapes,
        is_certain: bool,
    ) -> None:
        self._analysis, self._read, self.why = analysis, read, ""
        self._known: Shapes = {}
        if is_certain and analysis.stripped is not None:
            self._known = infer_shapes(analysis.stripped, shapes, {})
        self._excluded, self._has_served = set[int](), False
        self.programs: ModelPrograms | None = None
        try:
            self.programs = ModelPrograms.whole(model, analysis, self._known)
            self.programs.regions[0].program(shapes)
            return
        except (UnknownOperator, ModelError) as why:
            self.why = str(why)
            fault = why.node if isinstance(why, UnknownOperator) else ""
        # A node may be at fault for sizes that were assumed, and not for others.
        if self.programs is None or not fault or is_certain:
            self._narrow(model, fault)

    def forecast(self, shapes: Shapes, feed: Values | None) -> Forecast | None:
        """Return programs for inputs of these shapes; None if there are none: `why` says so.

        Where a subgraph comes first, the sizes of regions follow from a run with a feed.
        """
        before = self.programs, set(self._excluded)
        for _ in range(_MOST_TRIES):
            if self.programs is None:
                return None
            try:
                found = self._forecast(self.programs, shapes, feed)
                self._has_served |= found is not None
                return found
            except UnknownOperator as why:
                self.why, fault = str(why), why.node
                if feed is None or self._has_served or not fault:
                    return None
            except ModelError as why:  # the inputs may be wrong, for which nothing is narrowed
                self.why = str(why)
                self.programs, self._excluded = before
                return None
            try:
                self._narrow(self._read(), fault)
            except (NotPartitionable, ModelError, OSError) as why:
                self.why = str(why)
                self.programs, self._excluded = before
                return None
        return None

    def _forecast(
        self, programs: ModelPrograms, shapes: Shapes, feed: Values | None
    ) -> Forecast | None:
        analysis = self._analysis
        assert analysis.graph is not None
        assert analysis.stripped is not None
        if programs.is_whole:
            (region,) = programs.regions
            program = region.program(shapes)
            known = infer_shapes(analysis.stripped, shapes, {})
            theirs_us = whole_us(analysis.graph, known, analysis.settings.threads)
            ours_us = PROGRAM_US + program.expected_us
            return Forecast(programs, ((region, program),), theirs_us, ours_us)
        if feed is None:
            return None
        found, others_us = programs.programs(feed)
        # The model as a whole is one run, however many subgraphs were timed.
        theirs_us = others_us + RUN_US * (1 - programs.loaded.subgraph_count)
        theirs_us += sum(region.theirs_us(program) for region, program in found)
        ours_us = others_us + sum(program.expected_us + BORDER_US for _, program in found)
        return Forecast(programs, tuple(found), theirs_us, ours_us)

    def _narrow(self, model: ModelProto, fault: str) -> None:
        """Load the regions without what is excluded, and without the nodes of a name."""
        assert self._analysis.graph is not None
        self.programs = None
        try:
            regions = Regions(model, self._analysis.graph)
            self._excluded |= regions.named(fault) if fault else set()
            for _ in range(_MOST_TRIES):
                inside = regions.chosen(self._excluded, self._is_worth)
                if not inside:
                    return
                try:
                    pieces = regions.pieces(inside)
                    self.programs = ModelPrograms.of_pieces(
                        model, self._analysis, self._known, pieces
                    )
                    return
                except WrongType as wrong:
                    self._excluded |= regions.readers_of(wrong.names)
                except UnknownOperator as why:
                    nodes = regions.named(why.node) if why.node else set()
                    if nodes <= self._excluded:
                        raise
                    self._excluded |= nodes
        except (UnknownOperator, ModelError) as why:
            self.why = str(why)

    def _is_worth(self, nodes: Sequence[NodeProto]) -> bool:
        """Whether a region might gain more than its borders cost, as far as sizes are known."""
        if any(name not in self._known for node in nodes for name in filter(None, node.output)):
            return True
        return nodes_us(nodes, self._known, self._analysis.settings.threads) > BORDER_US
