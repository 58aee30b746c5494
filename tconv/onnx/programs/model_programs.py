"""Model as programs: all of it, or its regions with subgraphs of ONNX Runtime between them."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from onnx import ModelProto, TensorProto
from onnx.helper import make_tensor_type_proto

from tconv.graph import Graph, Program, UnknownOperator
from tconv.onnx.front_end import graph_of
from tconv.onnx.loading import LoadedModel, ModelAnalysis
from tconv.onnx.model.nodes import NotPartitionable
from tconv.onnx.model.shape_inference import Shapes
from tconv.onnx.ort.options import Settings
from tconv.onnx.ort.sessions import copied_options
from tconv.onnx.partition.partition import Subgraph
from tconv.onnx.programs.region_step import RegionStep
from tconv.onnx.programs.regions import Piece
from tconv.onnx.programs.report import StepTimes
from tconv.onnx.subgraphs import SubgraphSession, load_subgraph

__all__ = ["ModelPrograms", "WrongType"]


class WrongType(Exception):
    """Values that a region would read are of another type than float32."""

    def __init__(self, names: set[str]) -> None:
        super().__init__("another type than float32")
        self.names = names


class ModelPrograms:
    """A loaded model with regions that programs compute.

    `loaded` has the steps of a run, each a region or a subgraph of ONNX Runtime.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._given = len(loaded.inputs)
        outputs = tuple([each.name for each in loaded.outputs])
        first, *others = loaded.steps
        self._whole: RegionStep | None = None
        if isinstance(first, RegionStep) and not others and first.outputs == outputs:
            self._whole = first

    @classmethod
    def whole(cls, model: ModelProto, analysis: ModelAnalysis, known: Shapes) -> "ModelPrograms":
        """Load a model as a single region; `known` has the shapes that never change.

        Raises
        ------
        UnknownOperator : it has what no program has, with the reason
        ModelError : an initialiser is damaged
        """
        graph, settings = graph_of(model), _settings(model, analysis)
        region = RegionStep(graph, settings.threads, _has_many_sizes(graph, known))
        assigned = [layer.index for layer in analysis.layers]
        return cls(LoadedModel.of_model(model, analysis, settings, assigned, [region]))

    @classmethod
    def of_pieces(
        cls, model: ModelProto, analysis: ModelAnalysis, known: Shapes, pieces: Sequence[Piece]
    ) -> "ModelPrograms":
        """Load a model with these regions; `known` has the shapes that never change.

        Raises
        ------
        UnknownOperator : a region has what no program has, with the reason
        WrongType : a subgraph gives a region a value of another type than float32
        ModelError : ONNX Runtime refuses a subgraph, or an initialiser is damaged
        """
        assert analysis.graph is not None
        settings, nodes = _settings(model, analysis), model.graph.node
        types = {name: value.type for name, value in analysis.graph.values.items()}
        given = {value.name for value in model.graph.input}
        read = {name for piece in pieces if piece.is_region for name in piece.inputs}
        steps: list[RegionStep | SubgraphSession] = []
        for piece in pieces:
            if piece.is_region:
                within = [nodes[index] for index in piece.nodes]
                graph = graph_of(model, within, piece.inputs, piece.outputs)
                own = [nodes[index] for index in piece.own]
                many_sizes = _has_many_sizes(graph, known)
                steps.append(RegionStep(graph, settings.threads, many_sizes, own))
                for name in piece.outputs:
                    types[name] = make_tensor_type_proto(TensorProto.FLOAT, None)
                continue
            try:
                subgraph = Subgraph(piece.nodes, piece.inputs, piece.outputs)
                step = load_subgraph(model, subgraph, types, settings)
            except NotPartitionable as why:
                raise UnknownOperator(str(why)) from None
            made = {each.name: each.type for each in step.session.get_outputs()}
            wrong = {name for name in read & made.keys() if made[name] != "tensor(float)"}
            if wrong:
                raise WrongType(wrong)
            steps.append(step)
        kinds = {name: types[name].tensor_type.elem_type for name in read & given}
        wrong = {name for name, kind in kinds.items() if kind != TensorProto.FLOAT}
        if wrong:
            raise WrongType(wrong)
        taken = {index for piece in pieces if piece.is_region for index in piece.own}
        assigned = [layer.index for layer in analysis.layers if layer.index in taken]
        return cls(LoadedModel.of_model(model, analysis, settings, assigned, steps))

    @property
    def regions(self) -> list[RegionStep]:
        """The regions in the order of their steps."""
        return [step for step in self.loaded.steps if isinstance(step, RegionStep)]

    @property
    def is_whole(self) -> bool:
        """Whether a single region computes all of the model."""
        return self._whole is not None

    def run(self, names: Sequence[str], feed: Mapping[str, Any], options: Any) -> list[Any]:
        """Compute outputs, as ONNX Runtime's session does.

        Raises
        ------
        UnknownOperator : the inputs are other than a program takes
        ModelError : ONNX Runtime cannot compute a subgraph
        """
        if len(feed) != self._given:
            raise UnknownOperator("values for initialisers")
        if self._whole is None:
            return self.loaded.run(dict(feed), names, options)[0]
        if options is not None:
            raise UnknownOperator("options of a run")
        found = self._whole.results(feed)
        if tuple(names) == self._whole.outputs:
            return found
        results = dict(zip(self._whole.outputs, found, strict=True))
        return [
            results[name].copy() if name in names[:place] else results[name]
            for place, name in enumerate(names)
        ]

    def programs(self, feed: Mapping[str, Any]) -> tuple[list[tuple[RegionStep, Program]], float]:
        """The regions with their programs for a feed, and the microseconds of all subgraphs.

        Raises
        ------
        UnknownOperator : a region has no program for its inputs, with the reason
        ModelError : ONNX Runtime cannot compute a subgraph
        """
        found, us = list[tuple[RegionStep, Program]](), 0.0
        values, last = {**self.loaded.defaults, **feed}, self.loaded.steps[-1]
        for step in self.loaded.steps:
            if isinstance(step, RegionStep):
                found.append((step, step.program_for(step.operands(values))))
                if step is last:  # nothing depends on its results
                    break
            step(values)
            if not isinstance(step, RegionStep):
                began = perf_counter()  # the first run of these sizes takes longer
                step(values)
                us += (perf_counter() - began) * 1e6
        return found, us

    def profile(self, feed: Mapping[str, Any], runs: int) -> StepTimes:
        """Time each step of the programs for a feed."""
        found = list[tuple[Program, list[float]]]()
        values = {**self.loaded.defaults, **feed}
        for step in self.loaded.steps:
            if isinstance(step, RegionStep):
                operands = step.operands(values)
                program = step.program_for(operands)
                found.append((program, program.times(operands, runs)))
            step(values)
        return StepTimes.of(found, runs)


def _has_many_sizes(graph: Graph, known: Shapes) -> bool:
    return any(each.name not in known for each in graph.inputs)


def _settings(model: ModelProto, analysis: ModelAnalysis) -> Settings:
    """The settings of a model that tconv computes, with copies of the caller's options.

    Raises
    ------
    UnknownOperator : the arguments of the session leave the model to ONNX Runtime
    """
    if analysis.settings.why_whole or analysis.graph is None:
        raise UnknownOperator(analysis.settings.why_whole or analysis.reason)
    try:
        stored = [tensor.name for tensor in model.graph.initializer]
        return copied_options(model, stored, analysis.settings)
    except NotPartitionable as why:
        raise UnknownOperator(str(why)) from None
