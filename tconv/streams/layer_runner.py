"""Runs of layers: their planned calls, one for each length, and what works cell by cell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.activations import Activation
from tconv.arrays.dtypes import dtype_name
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.geometry.geometry import Geometry
from tconv.geometry.window import SAME, Window
from tconv.messages import show
from tconv.ops.planned_call import PackedWeights, PlannedCall
from tconv.streams.run_lengths import RunLengths
from tconv.streams.runner import Arrays, Runner
from tconv.streams.schedule import Flow, Schedule
from tconv.system.fork_lock import ForkLock

__all__ = ["Convolution", "LayerRunner", "Trace"]

_CALL_NODES = 20  # that a planned call takes as long as, besides what it computes

Compute = Callable[..., NDArray[Any]]


@dataclass(frozen=True)
class Convolution:
    """A convolution along time or a transposed one, with the values that its weights have now."""

    window: Window
    kernel: int
    dilation: int
    groups: int
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    activation: Activation | None
    calls: dict[tuple[int, ...], tuple[PlannedCall, Any]] = field(default_factory=dict)
    packed: PackedWeights = field(default_factory=PackedWeights)

    @property
    def channels(self) -> tuple[int, int]:
        """Of what it reads, and of what it makes."""
        first, second = self.weight.shape[0], self.weight.shape[1] * self.groups
        return (first, second) if self.window.want == "y" else (second, first)

    def __call__(
        self, x: NDArray[Any], border: tuple[int, int, int], threads: int | None
    ) -> NDArray[Any]:
        """Compute the results of a piece; its padding or crop is `border`."""
        key = (*x.shape, *border)
        found = self.calls.get(key)
        if found is None:
            call = self._planned(x.shape, border, threads)
            found = self.calls[key] = call, self.packed.of_call(call, self.weight)
        call, packed = found
        return call(np.ascontiguousarray(x), packed, self.bias)

    def _planned(
        self, shape: tuple[int, ...], border: tuple[int, int, int], threads: int | None
    ) -> PlannedCall:
        begin, end, extra = border
        settings: dict[str, Any] = {
            "stride": self.window.stride,
            "padding": ((begin, end),),
            "dilation": self.dilation,
            "groups": self.groups,
        }
        if self.window.want == "y":
            size = self.window._replace(begin=begin, end=end, extra=extra).size(shape[2])
            settings["output_size"] = size
            geometry = Geometry.of(shape, self.weight.shape, **settings)
        else:
            geometry = Geometry.of_conv(shape, self.weight.shape, **settings)
        kind = dtype_name(self.weight.dtype)
        return PlannedCall(geometry, kind, threads, "direct", self.activation, self.window.want)


class _Node(NamedTuple):
    flow: Flow
    compute: Compute | Convolution


class Trace:
    """The nodes of layers in order, as a layer's `trace` adds them.

    `titles` are the names of the layers that are being traced, from the outermost.
    """

    def __init__(self) -> None:
        self.nodes, self.channels = list[_Node](), dict[str, int | None]({"x": None})
        self.dtypes = list[tuple[str, np.dtype[Any]]]()
        self.titles = list[str]()

    def convolution(self, x: str, layer: Convolution) -> str:
        """Add a convolution of a value; return its result."""
        reads, makes = layer.channels
        known, title = self.channels[x], self._title()
        if known is None:
            self._set_channels(x, reads)
        elif known != reads:
            raise ShapeError(
                f"layer {title} takes {reads} channels, but gets {known}; make it with so many."
            )
        self.dtypes.append((title, layer.weight.dtype))
        return self._add([(x, layer.window)], layer, makes)

    def pointwise(self, compute: Compute, *x: str, channels: int | None = None) -> str:
        """Add what works cell by cell, of values with the same channels: so many, if given."""
        if channels is not None and self.channels[x[0]] not in (None, channels):
            raise ShapeError(
                f"layer {self._title()} takes {channels} channels, but gets "
                f"{self.channels[x[0]]}; make it with so many."
            )
        known = (self.channels[each] for each in x if self.channels[each])
        channels = channels or next(known, None)
        for each in x:
            if channels is not None and self.channels[each] is None:
                self._set_channels(each, channels)
            if self.channels[each] != channels:
                raise ShapeError(
                    f"layer {self._title()} joins values of {self.channels[each]} and {channels} "
                    "channels; make them alike."
                )
        return self._add([(each, SAME) for each in x], compute, channels)

    def _set_channels(self, name: str, channels: int) -> None:
        """Set those of a value and of all that it is made of, cell by cell."""
        self.channels[name] = channels
        for node in self.nodes:
            if name in node.flow.makes:
                for read, _ in node.flow.reads:
                    if self.channels[read] is None:
                        self._set_channels(read, channels)

    def _add(self, reads: Sequence[tuple[str, Window]], compute: Any, channels: int | None) -> str:
        made = f"{self._title()}#{len(self.nodes)}"
        self.nodes.append(_Node(Flow(self._title(), tuple(reads), (made,)), compute))
        self.channels[made] = channels
        return made

    def _title(self) -> str:
        return ".".join(self.titles) or "0"


class LayerRunner(Runner):
    """Layers along time, of any type that they have.

    Parameters
    ----------
    trace : of the layers, from the value "x" to `result`
    channels, dtype : of x, where no convolution says them
    """

    def __init__(
        self,
        trace: Trace,
        result: str,
        batch: int,
        channels: int | None,
        dtype: np.dtype[Any] | None,
        threads: int | None,
    ) -> None:
        self.batch, self._threads, self._nodes = batch, threads, trace.nodes
        kinds = {kind: title for title, kind in trace.dtypes}
        if dtype is not None:
            kinds[dtype] = "the argument dtype"
        if len(kinds) > 1:
            both = " and ".join(f"{kind} ({title})" for kind, title in kinds.items())
            raise DTypeError(f"layers of a stream must be of one type, but are of {both}.")
        self.dtype = next(iter(kinds), np.dtype(np.float32))
        known = trace.channels["x"]
        if known is None and channels is None:
            raise ParameterError(
                "channels must be given, as no layer says how many x has; pass channels=1, for "
                "example."
            )
        if known is not None and channels not in (None, known):
            raise ParameterError(f"channels={channels} must be {known}, which the layers take.")
        self._channels = {name: each or known or channels or 1
                          for name, each in trace.channels.items()}  # fmt: skip
        self.schedule = Schedule(["x"], [node.flow for node in self._nodes], [result])
        self._masked = [name for name, value in self.schedule.values.items()
                        if value.fill is not None]  # fmt: skip
        self.lengths = self._lengths()
        self._lock = ForkLock()

    def _lengths(self) -> RunLengths:
        schedule, itemsize = self.schedule, self.dtype.itemsize
        largest = max(
            float(prod(self.shape(name, 1)) * itemsize * value.rate)
            for name, value in schedule.values.items()
        )
        weight_bytes, flops = 0, 0.0
        for flow, compute in self._nodes:
            if isinstance(compute, Convolution):
                weight_bytes += compute.weight.nbytes
                of = flow.reads[0][0] if compute.window.want == "y" else flow.makes[0]
                flops += 2.0 * compute.weight.size * float(schedule.rates[of]) * self.batch
        nodes = _CALL_NODES * len(self._nodes)
        return RunLengths.expected(schedule.period, largest, weight_bytes, nodes, flops)

    def shape(self, name: str, count: int) -> tuple[int, ...]:
        """The shape of so many cells of a value."""
        return self.batch, self._channels[name], count

    def axis(self, name: str) -> int:
        """The axis of a value along time."""
        return 2

    def run(
        self, count: int, inputs: Sequence[NDArray[Any]], held: Arrays, masks: Arrays | None
    ) -> tuple[list[NDArray[Any]], Arrays]:
        """Compute a run, layer by layer."""
        schedule, every = self.schedule, dict[str, NDArray[Any]]()
        new = {"x": self._finished("x", inputs[0], held, masks, every)}
        for flow, compute in self._nodes:
            title, (name, *_), rate = flow.title, flow.makes, schedule.rates[flow.makes[0]]
            start = -schedule.values[name].lag
            made = start, start + int(rate * count)
            pieces = []
            for read, window in flow.reads:
                cells = window.reads(*made)
                pieces.append((self._cells(read, cells, every), window.piece(*made, cells)))
            if isinstance(compute, Convolution):
                ((x, border),) = pieces
                y = compute(x, border, self._threads)
            else:
                y = compute(*(x for x, _ in pieces))
                _check_pointwise(title, y, pieces[0][0])
            new[name] = self._finished(name, y, held, masks, every)
        results = [new[name] for name in schedule.outputs]
        if masks is not None:
            return results, every
        return results, {name: self._next(name, every[name]) for name in held}

    def _next(self, name: str, cells: NDArray[Any]) -> NDArray[Any]:
        """Of all cells of a value those that the next run reads."""
        start = cells.shape[2] - self.schedule.values[name].held
        return cells[:, :, start:].copy()

    def prepare(self, count: int, is_masked: bool) -> None:
        """Run zeros, with held cells that are zeros."""
        values = self.schedule.values
        held = {
            name: np.zeros(self.shape(name, value.held), self.dtype)
            for name, value in values.items()
        }
        self.run(count, [np.zeros(self.shape("x", count), self.dtype)], held, None)

    def _finished(
        self,
        name: str,
        new: NDArray[Any],
        held: Arrays,
        masks: Arrays | None,
        every: dict[str, NDArray[Any]],
    ) -> NDArray[Any]:
        """Set cells that do not exist to zero, and join the held ones."""
        value = self.schedule.values[name]
        if masks is not None and value.fill is not None:
            new = np.where(masks[name] > 0, new, self.dtype.type(value.fill))
        every[name] = np.concatenate([held[name], new], 2) if value.held else new
        return new

    def _cells(
        self, name: str, cells: tuple[int, int], every: dict[str, NDArray[Any]]
    ) -> NDArray[Any]:
        value = self.schedule.values[name]
        first = -value.lag - value.held
        return every[name][:, :, cells[0] - first : cells[1] - first]


def _check_pointwise(title: str, y: Any, x: NDArray[Any]) -> None:
    """Refuse what a layer of a user's makes, if it does not work cell by cell."""
    if not isinstance(y, np.ndarray) or (y.shape, y.dtype) != (x.shape, x.dtype):
        made = f"{y.shape}, {y.dtype}" if isinstance(y, np.ndarray) else show(y)
        raise ShapeError(
            f"layer {title} has is_pointwise, but makes {made} of x of {x.shape}, {x.dtype}; "
            "return an array like x, or leave is_pointwise out."
        )
