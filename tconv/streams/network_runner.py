"""Runs of networks as programs: one for each length of a run, with masks and without."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine import host_target
from tconv.errors import UnsupportedError
from tconv.graph import Graph, Program, Programs, UnknownOperator, simplified
from tconv.graph.pieces.extents import extents_of
from tconv.graph.pieces.network import network_of
from tconv.streams.run_graph import RunGraph, flows_of, run_graph
from tconv.streams.run_lengths import RunLengths
from tconv.streams.runner import Arrays, Runner
from tconv.streams.schedule import Schedule
from tconv.system.fork_lock import ForkLock

__all__ = ["NetworkRunner"]

_ITEM_BYTES = 4


class NetworkRunner(Runner):
    """A graph along time.

    Parameters
    ----------
    graph : Graph whose inputs are all of float32
    axes : for each input, its axis along time
    shapes : of the inputs, with None along time; the first axis of all values is the batch
    threads : int

    Raises
    ------
    UnsupportedError : a node needs more of time than its neighbourhood, or is unknown
    """

    def __init__(
        self,
        graph: Graph,
        axes: Mapping[str, int],
        shapes: Mapping[str, tuple[int | None, ...]],
        threads: int,
    ) -> None:
        if not host_target().uses_engine:
            raise UnsupportedError(
                "streams of networks need machine code, which there is none of for this processor; "
                "make the stream of layers instead."
            )
        try:
            graph = simplified(graph)
        except UnknownOperator as error:
            raise UnsupportedError(f"the network has {error}.") from None
        self.network = network_of(graph, shapes, [axes], "time", False)
        names = [each.name for each in graph.inputs]
        for name in graph.outputs:
            if self.network.extents.axes[name][0] is None:
                raise UnsupportedError(
                    f"output {name!r} is the same at all times, so it has no pieces; compute it by "
                    "a model of its own."
                )
        self.schedule = Schedule(names, flows_of(self.network), graph.outputs)
        self.batch = shapes[names[0]][0] or 1
        if self.batch > 1:
            self._check_batch()
        self.dtype = np.dtype(np.float32)
        self._threads, self._lock = threads, ForkLock()
        self._first: Programs | None = None
        self._programs: dict[tuple[int, bool], tuple[RunGraph, Program]] = {}
        self.lengths = self._lengths()

    def _check_batch(self) -> None:
        """Refuse values whose first axis is not the batch, where streams of it are told apart."""
        graph, base = self.network.graph, self.network.extents.shapes
        shapes = {each.name: base[each.name] for each in graph.inputs}
        axes = extents_of(graph, shapes, [dict.fromkeys(shapes, 0)], self.batch).axes
        for name, value in self.schedule.values.items():
            is_apart = value.held or value.fill is not None or name in graph.outputs
            if axes[name][0] != 0 if is_apart else axes[name][0] is None:
                raise UnsupportedError(
                    f"value {name!r} of shape {base[name]} does not have the batch as its first "
                    "axis, so its streams cannot be told apart; pass batch=1, and make more "
                    "streams."
                )

    def _lengths(self) -> RunLengths:
        schedule, constants = self.schedule, self.network.graph.constants
        largest = max(
            float(prod(self.shape(name, 1)) * _ITEM_BYTES * value.rate)
            for name, value in schedule.values.items()
        )
        weight_bytes, flops = 0, 0.0
        for node, _, _ in self.network.nodes:
            if node.operator in ("Conv", "ConvTranspose", "MatMul"):
                weight = constants[node.inputs[1]]
                weight_bytes += weight.nbytes
                # Each weight is read for each cell of x of a transposed convolution, else of y.
                of = node.inputs[0] if node.operator == "ConvTranspose" else node.outputs[0]
                flops += 2.0 * weight.size * float(schedule.rates[of]) * self.batch
        nodes, flops = len(self.network.nodes), flops / self._threads
        return RunLengths.expected(schedule.period, largest, weight_bytes, nodes, flops)

    def shape(self, name: str, count: int) -> tuple[int, ...]:
        """The shape of so many cells of a value."""
        shape = list(self.network.extents.shapes[name])
        shape[self.axis(name)] = count
        return tuple(shape)

    def axis(self, name: str) -> int:
        """The axis of a value along time."""
        axis = self.network.extents.axes[name][0]
        assert axis is not None
        return axis

    def run(
        self, count: int, inputs: Sequence[NDArray[Any]], held: Arrays, masks: Arrays | None
    ) -> tuple[list[NDArray[Any]], Arrays]:
        """Compute a run by its program."""
        names, program = self._program(count, masks is not None)
        given = [*inputs, *(held[name] for name in names.held)]
        if masks is not None:
            given += [masks[name] for name in names.masked]
        results = program(given)
        made = len(self.schedule.outputs)
        return results[:made], dict(zip(names.held, results[made:], strict=True))

    def prepare(self, count: int, is_masked: bool) -> None:
        """Build the program of a length, and run it once."""
        names, program = self._program(count, is_masked)
        program([np.zeros(shape, np.float32) for shape in self._shapes(names, count)])

    def _program(self, count: int, is_masked: bool) -> tuple[RunGraph, Program]:
        found = self._programs.get((count, is_masked))
        if found is None:
            made = run_graph(self.network, self.schedule, count, is_masked)
            with self._lock:
                programs = Programs(
                    made.graph,
                    self._threads,
                    method="direct",
                    is_simplified=True,
                    beside=self._first,
                )
                if self._first is None:
                    self._first = programs
            try:
                program = programs.program(tuple(self._shapes(made, count)))
            except UnknownOperator as error:
                raise UnsupportedError(f"the network has {error}.") from None
            found = self._programs.setdefault((count, is_masked), (made, program))
        return found

    def _shapes(self, names: RunGraph, count: int) -> list[tuple[int, ...]]:
        """The shapes of a run's inputs."""
        schedule = self.schedule
        found = [self.shape(name, count) for name in schedule.inputs]
        found += [self.shape(name, schedule.values[name].held) for name in names.held]
        for name in names.masked:
            shape = [1] * len(self.shape(name, 0))
            shape[0] = self.batch
            shape[self.axis(name)] = int(schedule.rates[name] * count)
            found.append(tuple(shape))
        return found
