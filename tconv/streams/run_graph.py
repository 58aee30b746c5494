"""Graph of one run of a stream: new cells and held ones in, new results and cells to hold out."""

from dataclasses import replace
from typing import NamedTuple

from tconv.graph.graph import Graph, Input, Node
from tconv.graph.pieces.laws import Cut, piece_of
from tconv.graph.pieces.network import Network
from tconv.streams.schedule import Flow, Schedule

__all__ = ["RunGraph", "flows_of", "run_graph"]


class RunGraph(NamedTuple):
    """The graph of a run, and the values behind its inputs and outputs.

    Inputs are new cells of each input, the held cells of each value of `held`, and a mask for each
    value of `masked`: 1 for cells that exist, 0 for others. Outputs are new cells of each output,
    then of each value of `held` the cells that the next run reads; with masks, after which streams
    may have moved by less than the run, all cells, those held before and the new ones.
    """

    graph: Graph
    held: tuple[str, ...]
    masked: tuple[str, ...]


def flows_of(network: Network) -> list[Flow]:
    """The nodes of a network along its one direction."""
    found = []
    for node, _, (law,) in network.nodes:
        both = zip(node.inputs, law.windows, strict=True)
        reads = tuple((name, window) for name, window in both if window is not None)
        title = node.name or node.outputs[0]
        makes = tuple(name for name in node.outputs if name)
        found.append(Flow(title, reads, makes, law.fill))
    return found


def run_graph(network: Network, schedule: Schedule, count: int, is_masked: bool) -> RunGraph:
    """Return the graph of a run of `count` cells of input, whole periods.

    Without masks it is for runs whose cells all exist, and all of which are input of every stream.
    """
    return _Builder(network, schedule, count, is_masked).built()


class _Builder:
    def __init__(self, network: Network, schedule: Schedule, count: int, is_masked: bool) -> None:
        self.network, self.schedule, self.count = network, schedule, count
        self.is_masked = is_masked
        self.nodes = list[Node](network.fixed)
        self.lags = {name: value.lag for name, value in schedule.values.items()}
        self.slices = dict[str, str]()

    def built(self) -> RunGraph:
        schedule, values = self.schedule, self.schedule.values
        held = tuple(name for name, value in values.items() if value.held)
        masked = tuple(
            name for name, value in values.items() if self.is_masked and value.fill is not None
        )
        for name in schedule.inputs:
            self._finish(name, f"{name}#new" if name in masked else name)
        for (node, along, (law,)), flow in zip(self.network.nodes, schedule.flows, strict=True):
            made = -self.lags[flow.makes[0]]
            made_count = int(schedule.rates[flow.makes[0]] * self.count)
            interval = made, made + made_count
            inputs, cuts = list[str](), list[Cut]()
            for name, window in zip(node.inputs, law.windows, strict=True):
                if window is None:
                    inputs.append(name)
                    continue
                read = window.reads(*interval)
                inputs.append(self._sliced(name, *read))
                if not cuts:
                    axis = self._axis(name)
                    cuts.append(Cut(axis, window, interval, read))
            outputs = tuple(f"{name}#new" if name in masked else name for name in node.outputs)
            changed = replace(node, inputs=tuple(inputs), outputs=outputs)
            self.nodes += piece_of(along[0]._replace(node=changed), cuts)
            for name in flow.makes:
                self._finish(name, f"{name}#new" if name in masked else name)
        graph = self.network.graph
        inputs_ = [
            Input(f"{each.name}#new" if each.name in masked else each.name, each.dtype)
            for each in graph.inputs
        ]
        inputs_ += [Input(f"{name}#held", "float32") for name in held]
        inputs_ += [Input(f"{name}#mask", "float32") for name in masked]
        to_hold = [f"{name}#all" if self.is_masked else self._next(name) for name in held]
        outputs = (*schedule.outputs, *to_hold)
        whole = Graph(tuple(inputs_), outputs, tuple(self.nodes), graph.constants)
        return RunGraph(whole, held, masked)

    def _finish(self, name: str, new: str) -> None:
        """Set cells that do not exist to what they count as, and join the held ones."""
        value = self.schedule.values[name]
        if new != name:
            fill = {"fill": value.fill}
            self.nodes.append(Node("Masked", (new, f"{name}#mask"), (name,), fill, name))
        if value.held:
            join = {"axis": self._axis(name)}
            held = f"{name}#held"
            self.nodes.append(Node("Concat", (held, name), (f"{name}#all",), join, name))

    def _next(self, name: str) -> str:
        """The cells of a value that the next run reads."""
        value = self.schedule.values[name]
        last = int(value.rate * self.count) - value.lag
        return self._sliced(name, last - value.held, last)

    def _sliced(self, name: str, first: int, last: int) -> str:
        """The cells [first, last) of a value, if the input of the run begins at cell 0."""
        value = self.schedule.values[name]
        start, whole = -value.lag - value.held, f"{name}#all" if value.held else name
        count = value.held + int(value.rate * self.count)
        if (first, last) == (start, start + count):
            return whole
        to = f"{name}#{first - start}:{last - start}"
        if to not in self.slices:
            self.slices[to] = to
            cut = {"starts": [first - start], "ends": [last - start], "axes": [self._axis(name)]}
            self.nodes.append(Node("Slice", (whole,), (to,), cut, name))
        return to

    def _axis(self, name: str) -> int:
        axis = self.network.extents.axes[name][0]
        assert axis is not None
        return axis
