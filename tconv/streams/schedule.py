"""Schedule of a stream: when each cell of each value is computed, and how long it is held.

Time is counted in cells without beginning or end. After n cells of input a value is known up to
cell ``rate*n - lag``; from there on a run computes the next cells. Cells before the first and after
the last are zero, and are made zero before an operator with a window reads them: so the first run
and the last compute what every run computes.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, lcm
from typing import NamedTuple

from tconv.errors import ShapeError, UnsupportedError
from tconv.geometry.window import Window
from tconv.system.fork_lock import cached_property

__all__ = ["Flow", "Schedule", "Value"]

_MANY = 2**16  # periods, so that no value is without cells


class Flow(NamedTuple):
    """A node of a stream: the values that it reads through windows, and those that it makes.

    `fill` is what cells outside of what it reads count as.
    """

    title: str
    reads: tuple[tuple[str, Window], ...]
    makes: tuple[str, ...]
    fill: float = 0.0


class Value(NamedTuple):
    """A value along time.

    Attributes
    ----------
    rate : cells for each cell of the input
    lag : after n cells of input, a multiple of the period, ``rate*n - lag`` cells are known
    held : cells before these that later runs read
    fill : what cells outside of it are set to; None where no operator looks at them
    """

    rate: Fraction
    lag: int
    held: int = 0
    fill: float | None = None


def _without_leads(parts: Sequence[tuple[str, Fraction]]) -> list[tuple[str, Fraction]]:
    """The parts of a latency, where what a Pad is ahead by counts for the nodes after it."""
    found, lead = list[tuple[str, Fraction]](), Fraction(0)
    for title, cells in parts:
        lead += cells
        if lead > 0:
            found.append((title, lead))
        lead = min(lead, Fraction(0))
    return [*found, (parts[-1][0], lead)] if lead else found


class Schedule:
    """When cells are known, from the windows of all nodes.

    Parameters
    ----------
    inputs : names of values that get the same number of cells with each push
    flows : nodes in order
    outputs : names of values

    Attributes
    ----------
    period : cells of input after which all values have moved by whole cells
    values : dict of name to Value

    >>> up = Flow("up", (("x", Window("y", reach=4, stride=2, begin=1, end=1)),), ("y",))
    >>> schedule = Schedule(["x"], [up], ["y"])
    >>> schedule.values["x"].held, schedule.known("y", 5), schedule.latency("y")
    (1, 9, 1)
    """

    def __init__(
        self, inputs: Sequence[str], flows: Sequence[Flow], outputs: Sequence[str]
    ) -> None:
        self.inputs, self.flows, self.outputs = tuple(inputs), tuple(flows), tuple(outputs)
        rates = dict.fromkeys(self.inputs, Fraction(1))
        for flow in self.flows:
            found = {rates[name] * window.rate for name, window in flow.reads}
            if len(found) != 1:
                raise UnsupportedError(
                    f"node {flow.title!r} joins values that move at different rates, "
                    f"{' and '.join(map(str, sorted(found)))} cells for each of the input, which "
                    "fit each other at one length only; compute the network in one call."
                )
            rates.update(dict.fromkeys(flow.makes, found.pop()))
        self.rates, self.period = rates, lcm(*[rate.denominator for rate in rates.values()])
        self._check_lengths()
        lags = {name: -count for name, count in self.ready(0).items()}
        held, fills = dict.fromkeys(rates, 0), dict[str, float]()
        for flow in self.flows:
            for name, window in flow.reads:
                first = self.first_read(lags, flow, window)
                held[name] = max(held[name], -lags[name] - first)
                if window.is_local:
                    continue
                if fills.setdefault(name, flow.fill) != flow.fill:
                    raise UnsupportedError(
                        f"node {flow.title!r} takes {flow.fill:g} for cells before the first, "
                        f"another one that reads {name!r} takes {fills[name]:g}; compute the "
                        "network in one call."
                    )
        self.values = {
            name: Value(rate, lags[name], held[name], fills.get(name))
            for name, rate in rates.items()
        }
        self._of_phase: dict[int, dict[str, int]] = {}

    def _check_lengths(self) -> None:
        """Refuse values that have as many cells as each other for no length of the input."""
        many, unlike = _MANY * self.period, ""
        for count in range(many, many + self.period):
            found = dict.fromkeys(self.inputs, count)
            for flow in self.flows:
                sizes = [window.size(found[name]) for name, window in flow.reads]
                if len({*sizes}) > 1:
                    cells = " and ".join(map(str, sorted({*sizes})))
                    unlike = unlike or (
                        f"node {flow.title!r} joins values of {cells} cells, for {count} cells of "
                        "the input; pad the shorter one."
                    )
                    break
                found.update(dict.fromkeys(flow.makes, sizes[0]))
            else:
                return
        raise ShapeError(unlike)

    @staticmethod
    def first_read(lags: Mapping[str, int], flow: Flow, window: Window) -> int:
        """The first cell that the first run reads through a window, if input begins at cell 0."""
        start = -lags[flow.makes[0]]
        return window.reads(start, start + 1)[0]

    def ready(self, count: int) -> dict[str, int]:
        """Cells of every value that are known after so many cells of input; negative at first.

        A cell is known once all that it depends on has arrived, and it is sure to exist.
        """
        found = dict.fromkeys(self.inputs, count)
        sizes = dict(found)
        for flow in self.flows:
            size = min(window.size(sizes[name]) for name, window in flow.reads)
            known = min(window.ready(found[name]) for name, window in flow.reads)
            for name in flow.makes:
                sizes[name], found[name] = size, min(known, size)
        return found

    def sizes(self, count: int) -> dict[str, int]:
        """Cells of every value for a whole input of so many cells."""
        found = dict.fromkeys(self.inputs, count)
        for flow in self.flows:
            size = min(window.size(found[name]) for name, window in flow.reads)
            found.update(dict.fromkeys(flow.makes, max(size, 0) if count else 0))
        return found

    @cached_property
    def lead(self) -> int:
        """Cells before the first with which the first run begins, whole periods.

        Some values have cells that no input reaches, before those that the first cell reaches.
        """
        earliest = max(ceil(-self._seconds(name)) for name in self.rates)
        return -(-max(earliest, 0) // self.period) * self.period

    def known(self, name: str, count: int) -> int:
        """Cells of one value that are known after so many cells of input; 0 before the first."""
        return max(self._known(name, count), 0) if count else 0

    def _known(self, name: str, count: int) -> int:
        periods, phase = divmod(count, self.period)
        if phase not in self._of_phase:
            self._of_phase[phase] = self.ready(phase)
        return self._of_phase[phase][name] + int(self.rates[name] * self.period) * periods

    def latency(self, name: str, in_periods: bool = False) -> int:
        """Cells of a value by which it lags behind the input, at most, rounded up.

        Of input that comes `in_periods` it lags less, where no cell waits for others.
        """
        rate = self.rates[name]
        if in_periods:
            return self.values[name].lag
        return max(ceil(rate * count - self._known(name, count)) for count in range(self.period))

    def parts_of_latency(self, name: str, in_periods: bool = False) -> list[tuple[str, Fraction]]:
        """What the latency is made of: nodes on the way to the latest operand, and their cells.

        In cells of the value. Strides that make less cells than they read add what is lost by
        waiting for a whole one, "whole cells".
        """
        makers = {made: flow for flow in self.flows for made in flow.makes}
        found, rate, at = list[tuple[str, Fraction]](), self.rates[name], name
        while at in makers:
            flow = makers[at]
            lag = self.values[at].lag / self.rates[at]
            latest = max((read for read, _ in flow.reads), key=lambda read: self._seconds(read))
            own = lag - self._seconds(latest)
            if own:
                found.append((flow.title, own * rate))
            at = latest
        found = _without_leads(found[::-1])
        rest = self.latency(name, in_periods) - sum(cells for _, cells in found)
        return found + [("whole cells", Fraction(rest))] * (rest != 0)

    def _seconds(self, name: str) -> Fraction:
        """The lag of a value in cells of the input."""
        return self.values[name].lag / self.rates[name]

    @cached_property
    def starts_after(self) -> int:
        """Cells of input after which no run computes cells before the first, in whole periods."""
        latest = max(ceil(self._seconds(name)) for name in self.rates)
        return -(-max(latest, 0) // self.period) * self.period

    def flushed_after(self, count: int) -> int:
        """Cells of input, with zeros after the last, after which all results are known."""
        sizes, most = self.sizes(count), count
        for name in self.outputs:
            each = self.values[name]
            most = max(most, ceil((sizes[name] + each.lag) / each.rate))
        return most
