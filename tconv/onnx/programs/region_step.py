"""Step of a loaded model that computes a region by programs of tconv."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from tconv.engine import host_target
from tconv.graph import Graph, Program, Programs, UnknownOperator
from tconv.onnx.partition.profitability import nodes_us

__all__ = ["RegionStep"]


class RegionStep:
    """Nodes of a model as programs for inputs of any sizes.

    `nodes` are those that ONNX Runtime would compute otherwise. `many_sizes` is as in `Programs`.

    Raises
    ------
    UnknownOperator : a node breaks the rules of its operator
    """

    def __init__(
        self,
        graph: Graph,
        threads: int | None,
        many_sizes: bool,
        nodes: Iterable[NodeProto] = (),
    ) -> None:
        self.inputs = tuple([each.name for each in graph.inputs])
        self.outputs = graph.outputs
        self._programs = Programs(graph, threads or host_target().threads, many_sizes)
        self._threads, self._nodes = threads, list(map(_copied, nodes))

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed weights of the programs of all sizes."""
        return self._programs.packed_bytes

    def __call__(self, values: dict[str, Any]) -> None:
        """Run and add the outputs to the values.

        Raises
        ------
        UnknownOperator : the inputs are other than a program takes
        """
        values.update(zip(self.outputs, self.results(values), strict=True))

    def results(self, values: Mapping[str, Any]) -> list[Any]:
        """Compute the outputs.

        Raises
        ------
        UnknownOperator : the inputs are other than a program takes
        """
        return self._programs(self.operands(values))

    def operands(self, values: Mapping[str, Any]) -> list[Any]:
        """The inputs of a program.

        Raises
        ------
        UnknownOperator : one is no array of float32
        """
        arrays = [values[name] for name in self.inputs]
        for array in arrays:
            if type(array) is not np.ndarray or array.dtype != np.float32:
                raise UnknownOperator("an input that is no array of float32")
        return arrays

    def program_for(self, operands: Sequence[Any]) -> Program:
        """Return the program for these inputs.

        Raises
        ------
        UnknownOperator : there is none, with the reason
        """
        return self._programs.program(tuple([each.shape for each in operands]))

    def program(self, shapes: Mapping[str, tuple[int, ...]]) -> Program:
        """Return the program for inputs of these shapes.

        Raises
        ------
        UnknownOperator : there is none, with the reason
        """
        for name in self.inputs:
            if name not in shapes:
                raise UnknownOperator(f"input {name!r} of unknown rank")
        return self._programs.program(tuple([tuple(shapes[name]) for name in self.inputs]))

    def theirs_us(self, program: Program) -> float:
        """Predicted microseconds of the nodes within a run of ONNX Runtime."""
        return nodes_us(self._nodes, program.shapes, self._threads)


def _copied(node: NodeProto) -> NodeProto:
    """A copy; a node of a model would keep all of the model in memory."""
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
