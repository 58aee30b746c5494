"""Tiles: boxes of a network's result, and the graph that computes one from its part of the input.

From the result back to the input every value gets the box that its readers ask for, cut off at its
borders. There a piece has the padding of the whole, elsewhere it reads what lies beside it. So what
is computed of a tile is what is computed of it in the whole, and no seams can arise.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import UnsupportedError
from tconv.geometry.parts import Box, Interval, sizes
from tconv.graph.graph import Graph, Node
from tconv.graph.pieces.laws import Cut, piece_of
from tconv.graph.pieces.network import Network
from tconv.graph.program import Program, Programs
from tconv.graph.values import UnknownOperator
from tconv.system.fork_lock import ForkLock

__all__ = ["Tiles"]

_MOST_PROGRAMS = 64  # of tiles that lie differently to the borders: 27 in space, and shorter ones

Reads = list[tuple[Interval | None, ...]]
"""Of each node, the cells that it reads of each operand along one direction."""


class Tiles:
    """A network's tiles.

    Parameters
    ----------
    network : Network of one input and one output, cut along some directions
    shapes : of all values for the whole input
    threads : of each tile

    Several threads may compute tiles at once.
    """

    def __init__(
        self, network: Network, shapes: Mapping[str, tuple[int, ...]], threads: int
    ) -> None:
        graph = network.graph
        self.network, self._shapes, self._threads = network, shapes, threads
        self.input, (self.output,) = graph.inputs[0].name, graph.outputs
        self._first: Programs | None = None
        self._programs = OrderedDict[Any, Program]()
        self._lock = ForkLock()
        self.axes = [self.axis(self.output, n) for n in range(len(self._directions))]

    @property
    def _directions(self) -> tuple[int | None, ...]:
        return self.network.extents.axes[self.output]

    def axis(self, name: str, direction: int) -> int:
        """The axis of a value along a direction."""
        axis = self.network.extents.axes[name][direction]
        assert axis is not None
        return axis

    def rate(self, direction: int) -> Fraction:
        """Cells of the result for each cell of the input."""
        return self._rates(direction)[self.output]

    def period(self, direction: int) -> int:
        """Cells of the result after which tiles lie alike to the cells of all values."""
        rates = self._rates(direction)
        period = lcm(*[rate.denominator for rate in rates.values()])
        return max(int(rates[self.output] * period), 1)

    def _rates(self, direction: int) -> dict[str, Fraction]:
        found = {self.input: Fraction(1)}
        for node, _, laws in self.network.nodes:
            for name, window in zip(node.inputs, laws[direction].windows, strict=True):
                if window is not None and name in found:
                    made = found[name] * window.rate
                    found.update(dict.fromkeys(filter(None, node.outputs), made))
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole result."""
        return self._shapes[self.output]

    def place(self, direction: int) -> tuple[float, float]:
        """Where cell n of the result stands in the input: at ``scale*n + offset``.

        The middle of a kernel lies on the cell that it spreads, or gathers.
        """
        found = {self.input: (1.0, 0.0)}
        for node, _, laws in self.network.nodes:
            for name, window in zip(node.inputs, laws[direction].windows, strict=True):
                if window is not None and name in found:
                    scale, offset = found[name]
                    by, shift = window.middle
                    place = scale * by, offset + scale * shift
                    found.update(dict.fromkeys(filter(None, node.outputs), place))
                    break
        return found[self.output]

    def window(self, box: Box) -> Box:
        """The cells of the input that a box of the result needs, along all axes of the input."""
        found = [(0, size) for size in self._shapes[self.input]]
        for direction, axis in enumerate(self.axes):
            wanted, _ = self._intervals(direction, box[axis])
            found[self.axis(self.input, direction)] = wanted[self.input]
        return tuple(found)

    def program(self, box: Box) -> Program:
        """The program of a box of the result; boxes that lie alike share it."""
        along = [self._intervals(n, box[axis]) for n, axis in enumerate(self.axes)]
        key = tuple(tuple(self._relative(n, *each)) for n, each in enumerate(along))
        found = self._programs.get(key)
        if found is None:
            graph = self._graph(along)
            with self._lock:
                programs = Programs(
                    graph,
                    self._threads,
                    method="direct",
                    is_simplified=True,
                    beside=self._first,
                )
                self._first = self._first or programs
            try:
                found = programs.program((sizes(self.window(box)),))
            except UnknownOperator as error:
                raise UnsupportedError(f"the network has {error}.") from None
            with self._lock:
                self._programs[key] = found
                while len(self._programs) > _MOST_PROGRAMS:
                    self._programs.popitem(last=False)
        return found

    def compute(self, box: Box, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute a box of the result from the cells of its `window`."""
        (y,) = self.program(box)([x])
        return y

    @property
    def expected_packed_bytes(self) -> int:
        """Bytes of the packed weights, about: as many as the weights have."""
        return sum(array.nbytes for array in self.network.graph.constants.values())

    # ---- intervals and graphs --------------------------------------------------------------------

    def _intervals(self, direction: int, wanted: Interval) -> tuple[dict[str, Interval], Reads]:
        """The interval of every value that an interval of the result needs, and of every node."""
        found = {self.output: wanted}
        reads = list[tuple[Interval | None, ...]]()
        for node, _, laws in reversed(self.network.nodes):
            made = [found[name] for name in node.outputs if name in found]
            of_node: list[Interval | None] = [None] * len(node.inputs)
            if made:
                whole = _hull(made)
                found.update(dict.fromkeys(filter(None, node.outputs), whole))
                for place, window in enumerate(laws[direction].windows):
                    if window is None:
                        continue
                    name = node.inputs[place]
                    size = self._shapes[name][self.axis(name, direction)]
                    read = _within(window.reads(*whole), size)
                    of_node[place] = read
                    found[name] = _hull([read, *([found[name]] if name in found else [])])
            reads.append(tuple(of_node))
        return found, reads[::-1]

    def _relative(self, direction: int, wanted: Mapping[str, Interval], reads: Reads) -> list[Any]:
        """What two intervals of the result have in common whose graphs are alike."""
        found: list[Any] = [wanted[self.input][1] - wanted[self.input][0]]
        for (node, _, laws), of_node in zip(self.network.nodes, reads, strict=True):
            for name, window, read in zip(
                node.inputs, laws[direction].windows, of_node, strict=True
            ):
                if window is not None and read is not None:
                    made = wanted[node.outputs[0]]
                    place = read[0] - wanted[name][0], read[1] - read[0]
                    found.append((made[1] - made[0], place, window.piece(*made, read)))
        return found

    def _graph(self, along: Sequence[tuple[dict[str, Interval], Reads]]) -> Graph:
        network, nodes = self.network, list[Node](self.network.fixed)
        for n, (node, alongs, laws) in enumerate(network.nodes):
            if not all(node.outputs[0] in wanted for wanted, _ in along):
                continue
            inputs = list(node.inputs)
            for place, name in enumerate(node.inputs):
                axes, starts, ends = [], [], []
                for direction, (wanted, reads) in enumerate(along):
                    read = reads[n][place]
                    if read is not None and read != wanted[name]:
                        axes.append(self.axis(name, direction))
                        starts.append(read[0] - wanted[name][0])
                        ends.append(read[1] - wanted[name][0])
                if axes:
                    inputs[place] = f"{name}#{n}.{place}"
                    cut = {"starts": starts, "ends": ends, "axes": axes}
                    nodes.append(Node("Slice", (name,), (inputs[place],), cut, node.name))
            cuts = []
            for direction, (wanted, reads) in enumerate(along):
                read, window = reads[n][0], laws[direction].windows[0]
                if read is not None and window is not None:
                    axis = self.axis(node.inputs[0], direction)
                    cuts.append(Cut(axis, window, wanted[node.outputs[0]], read))
            changed = alongs[0]._replace(node=replace(node, inputs=tuple(inputs)))
            nodes += piece_of(changed, cuts)
        graph = network.graph
        return Graph(graph.inputs, graph.outputs, tuple(nodes), graph.constants)


def _hull(intervals: Sequence[Interval]) -> Interval:
    return min(start for start, _ in intervals), max(stop for _, stop in intervals)


def _within(interval: Interval, size: int) -> Interval:
    """The part of an interval that there is; at least one cell."""
    first = min(max(interval[0], 0), size - 1)
    return first, max(min(interval[1], size), first + 1)
