"""Programs of a model: the whole model computed by tconv, for inputs of any sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from tconv.engine import host_target
from tconv.graph import Graph, Program, Programs, UnknownOperator
from tconv.onnx.front_end import graph_of
from tconv.onnx.loading import LoadedModel, ModelAnalysis
from tconv.onnx.model.nodes import NotPartitionable
from tconv.onnx.ort.options import Settings
from tconv.onnx.ort.sessions import copied_options

__all__ = ["ModelPrograms", "SizedPrograms", "program_settings"]


def program_settings(model: ModelProto, analysis: ModelAnalysis) -> Settings:
    """Return the settings of a model that tconv computes, with copies of the caller's options.

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


class SizedPrograms:
    """The programs of a graph, and the threads that they take from the settings of a session."""

    def __init__(self, graph: Graph, settings: Settings) -> None:
        self._programs = Programs(graph, settings.threads or host_target().threads)

    @property
    def packed_bytes(self) -> int:
        """Bytes of packed weights."""
        return self._programs.packed_bytes

    def for_operands(self, operands: Sequence[Any]) -> Program:
        """The program for inputs of these sizes."""
        return self._programs.program(tuple([each.shape for each in operands]))

    @staticmethod
    def _check_types(arrays: Sequence[Any]) -> None:
        """Refuse inputs that no program takes.

        Raises
        ------
        UnknownOperator : one is no array of float32
        """
        for array in arrays:
            if type(array) is not np.ndarray or array.dtype != np.float32:
                raise UnknownOperator("an input that is no array of float32")


class ModelPrograms(SizedPrograms):
    """The programs of a model that one process has loaded.

    Raises
    ------
    UnknownOperator : it has what no program has, with the reason
    ModelError : an initialiser is damaged
    """

    def __init__(self, model: ModelProto, analysis: ModelAnalysis) -> None:
        graph = graph_of(model)
        settings = program_settings(model, analysis)
        super().__init__(graph, settings)
        self._inputs = [each.name for each in graph.inputs]
        self._outputs = list(graph.outputs)
        assigned = [layer.index for layer in analysis.layers]
        self.loaded = LoadedModel.of_model(model, analysis, settings, assigned)

    def program(self, shapes: Mapping[str, tuple[int, ...]]) -> Program:
        """Return the program for inputs of these shapes.

        Raises
        ------
        UnknownOperator : there is none, with the reason
        """
        missing = [name for name in self._inputs if name not in shapes]
        if missing:
            raise UnknownOperator(f"input {missing[0]!r} of unknown rank")
        return self._programs.program(tuple([tuple(shapes[name]) for name in self._inputs]))

    def operands(self, feed: Mapping[str, Any]) -> list[Any]:
        """The inputs of the program for a feed."""
        return [feed[name] for name in self._inputs]

    def run(self, names: Sequence[str], feed: Mapping[str, Any], options: Any) -> list[Any]:
        """Compute outputs, as ONNX Runtime's session does.

        Raises
        ------
        UnknownOperator : the inputs are other than a program takes, or options are given
        """
        arrays = [feed[name] for name in self._inputs]
        if options is not None or len(feed) != len(arrays):
            raise UnknownOperator("options of a run, or values for initialisers")
        self._check_types(arrays)
        found = self._programs(arrays)
        if list(names) == self._outputs:
            return found
        results = dict(zip(self._outputs, found, strict=True))
        # An output that is asked for twice is two arrays, as ONNX Runtime's are.
        return [
            results[name].copy() if name in names[:place] else results[name]
            for place, name in enumerate(names)
        ]
