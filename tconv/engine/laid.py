"""WHAT RUNNING A PLAN TAKES: names of kernels, and numbers that drivers read; kept on disk.

To lay a plan out takes 2 to 25 ms, and to read what came of it 0.2 (Zen 3).
"""

import marshal
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.engine.addresses import address
from tconv.engine.call import POINTERS
from tconv.engine.driver import run, run_spread, run_tiled
from tconv.engine.epilogue import activate
from tconv.engine.gathering import find_runs, gather
from tconv.engine.ir import Number
from tconv.engine.jit import Emit
from tconv.engine.kernels import add_rows, copy_row, micro, pack_rows, stream
from tconv.engine.known import FORMAT
from tconv.engine.layout import Layout
from tconv.engine.packing import PACK_FIELDS, pack_arguments, pack_made_run, pack_run
from tconv.engine.plan import MOST_INTERLEAVED, Plan
from tconv.engine.problem import Problem
from tconv.engine.store import read_entry, warn_once, write_entry
from tconv.engine.target import Target
from tconv.engine.tiled_layout import TiledLayout, layout_of
from tconv.engine.tiles import RESTORED
from tconv.engine.values import Module

__all__ = ["Kernels", "Laid", "Told", "kernels_of", "laid_out", "write"]

_MOST_BYTES = 2**20  # that are kept: to read more would take as long as to make it
_MICROS, _RESTORED = POINTERS.index("micros"), POINTERS.index("restored")


class Told(NamedTuple):
    """Arguments of a driver, and by place in them the arrays whose addresses they need."""

    words: NDArray[np.int64]
    arrays: dict[int, NDArray[Any]]

    def addressed(self) -> NDArray[np.int64]:
        """The arguments with these addresses, right for as long as the arrays live."""
        words = self.words.copy()
        for place, array in self.arrays.items():
            words[place] = address(array)
        return words


class Laid(NamedTuple):
    """All that follows from a plan but addresses. Arrays may be read-only."""

    kernels: tuple[str, ...]
    called: tuple[int, ...]  # where the driver's arguments have kernels: numbers, from 1 on
    drivers: tuple[str, ...]  # what computes, and what packs weights
    packed_shape: tuple[int, int, int]
    scratch_size: int  # numbers that a thread's buffers hold
    packing_bytes: int  # of scratch
    bias_sources: NDArray[np.int64]
    job: Told
    packing: Told

    def located(self, found: Mapping[str, int]) -> Told:
        """What the driver is told, with addresses of kernels; 0 for those that are not found."""
        places = np.array([0, *(found.get(name, 0) for name in self.kernels)], np.int64)
        words, arrays = self.job.words.copy(), dict(self.job.arrays)
        called = [*self.called]
        words[called] = places[words[called]]
        arrays[_MICROS] = places[arrays[_MICROS]]
        if _RESTORED in arrays:
            restored = arrays[_RESTORED] = arrays[_RESTORED].copy()
            restored[:, _KERNEL] = places[restored[:, _KERNEL]]
        return Told(words, arrays)


_KERNEL = RESTORED.index("kernel")


def laid_out(key: tuple[Any, ...], kernels: Callable[[], "Kernels"]) -> Laid:
    """Return what a layout comes to, from disk if it is there: `kernels` gives those of the layout.

    `key` tells all that it follows from.
    """
    name = sha256(repr(key).encode()).hexdigest()
    data, fault = read_entry(name)
    warn_once(fault)
    if data is not None:
        return _unpacked(data)
    found = _laid(kernels())
    data = marshal.dumps(_plain(found), FORMAT)
    if len(data) <= _MOST_BYTES:
        write_entry(name, data)
    return found


def _plain(value: Any) -> Any:
    """Tuples, dicts and arrays as `marshal` writes them."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _unpacked(data: bytes) -> Laid:
    """What stands in an entry, whose checksum is right."""
    *others, bias_sources, job, packing = marshal.loads(data)
    return Laid._make((*others, _array(bias_sources), _told(*job), _told(*packing)))


def _told(words: Any, arrays: dict[int, Any]) -> Told:
    return Told(_array(words), {place: _array(each) for place, each in arrays.items()})


def _array(parts: tuple[str, tuple[int, ...], bytes]) -> NDArray[Any]:
    dtype, shape, data = parts
    return np.frombuffer(data, dtype).reshape(shape)


# ---- made of a layout ----------------------------------------------------------------------------


class Kernels:
    """Kernels of a layout: numbers of those that its driver calls, and what emits them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.emits: dict[str, Emit] = {}  # in the order of their numbers; drivers come last
        self.called: dict[str, int] = {}  # by pointer, 0 for none
        self.arrays: dict[str, NDArray[Any]] = {}  # that have numbers of kernels, and more
        self._number()
        self.names = tuple(self.emits)
        for emit in _drivers(layout):
            self(emit.__name__, emit)
        self.drivers = tuple(self.emits)[len(self.names) :]

    def __call__(self, name: str, emit: Any, *, dtype: str = "") -> int:
        """Return the number of one; it is for the type of x and y unless another is named."""
        dtype = dtype or self.layout.dtype.name
        full = f"{name}_{dtype}"
        self.emits[full] = partial(write, emit, full, dtype, self.layout.target)
        return [*self.emits].index(full) + 1

    def _number(self) -> None:
        layout, plan, activation = self.layout, self.layout.plan, self.layout.problem.activation
        computed = layout.computed.name
        moved = "int16" if layout.dtype != layout.computed else layout.dtype.name
        heights = layout.heights
        micros = self.arrays["micros"] = np.zeros(2 * max(heights) + 2, np.int64)
        for rows in heights:
            for n, vectors in enumerate(layout.widths):
                if vectors:
                    shape = (rows, vectors, layout.unroll, layout.reads_ahead(rows))
                    name = "micro_" + "_".join(str(int(each)) for each in shape)
                    micros[2 * rows + n] = self(name, micro(*shape), dtype=computed)
        step, stride = (
            min(layout.fields[name], MOST_INTERLEAVED + 1) for name in ("step_x", "stride_x")
        )
        copies = not plan.is_gathered
        self.called = {
            "pack_rows": self(f"pack_rows_{step}", pack_rows(step)) if copies else 0,
            "find_runs": self("find_runs", find_runs) if plan.is_gathered else 0,
            "gather": self("gather", gather) if plan.is_gathered else 0,
            "add_rows": self("add_rows", add_rows, dtype=computed) if plan.is_spread else 0,
            "stream": self("stream", stream, dtype=moved) if layout.streams else 0,
            "copy_row": self(f"copy_row_{stride}", copy_row(stride)),
        }
        if isinstance(layout, TiledLayout):
            more, of_tiles = layout.kernels(self)
            self.called |= more
            self.arrays |= of_tiles
        if activation is not None:
            name = f"activate_{activation.name}"
            self.called["activate"] = self(name, activate(activation.name), dtype=computed)


def kernels_of(problem: Problem, plan: Plan, dtype: np.dtype[Any], target: Target) -> Kernels:
    """Return the kernels of a plan, which has to be laid out for that."""
    return Kernels(layout_of(problem, plan, dtype, target))


def write(emit: Any, name: str, dtype: str, target: Target, module: Module) -> None:
    """Write a function into a module, for numbers of a type and a processor."""
    emit(module, name, Number(dtype, target))


def _laid(kernels: Kernels) -> Laid:
    layout, words = kernels.layout, kernels.layout.arguments()
    for name, number in kernels.called.items():
        words[POINTERS.index(name)] = number
    arrays = kernels.arrays | _arrays(layout)
    packing, of_packing, packing_bytes = pack_arguments(layout)
    end = packing.size - len(PACK_FIELDS)
    first = end - len(of_packing)
    packing[first:end] = 0  # the addresses of these arrays, here and now
    return Laid(
        kernels.names,
        tuple(POINTERS.index(name) for name, number in kernels.called.items() if number),
        kernels.drivers,
        (layout.problem.geometry.groups, layout.blocks, layout.weight_block),
        layout.scratch_size,
        packing_bytes,
        layout.bias_sources(),
        Told(words, {POINTERS.index(name): array for name, array in arrays.items()}),
        Told(packing, dict(enumerate(of_packing, first))),
    )


def _drivers(layout: Layout) -> tuple[Any, Any]:
    """What computes, and what packs weights."""
    plan = layout.plan
    driver = run_spread if plan.is_spread else run_tiled if plan.is_tiled else run
    return driver, pack_run if layout.weight_matrix is None else pack_made_run


def _arrays(layout: Layout) -> dict[str, NDArray[Any]]:
    """What the driver reads by its address."""
    plan, activation = layout.plan, layout.problem.activation
    offsets, starts = layout.offsets()
    none = np.zeros(1, np.int64)
    sums, sum_starts = layout.sums() if plan.is_spread else (none, none)
    return {
        "sums": sums,
        "sum_starts": sum_starts,
        "zeros": np.zeros(max(layout.heights), layout.computed),
        "slope": np.array([activation.slope if activation else 0], layout.computed),
        "offsets": offsets,
        "tiles": layout.tiles(layout.block_tiles, starts),
        "last_tiles": layout.tiles(layout.last_tiles, starts),
        "lines": layout.lines(),
        "table": layout.table() if plan.is_gathered else np.zeros(1, np.int32),
        "lattices_of_x": layout.lattices(),
    }
