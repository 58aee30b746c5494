"""HOW A PLAN IS RUN: it is laid out in memory, its kernels fetched, weights packed."""

from collections.abc import Mapping
from functools import cached_property, lru_cache, partial
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.dtypes import TYPES, as_dtype
from tconv.engine.addresses import address
from tconv.engine.arena import empty
from tconv.engine.call import POINTERS, TILE
from tconv.engine.choice import best_plans
from tconv.engine.drafts import load_drafted, settle
from tconv.engine.driver import run, run_spread, run_tiled
from tconv.engine.entering import Job
from tconv.engine.epilogue import activate
from tconv.engine.gathering import find_runs, gather
from tconv.engine.ir import Number
from tconv.engine.jit import Emit, load, load_all
from tconv.engine.kernels import add_rows, copy_row, micro, pack_rows, stream
from tconv.engine.known import known_plan
from tconv.engine.packing import pack_arguments, pack_made_run, pack_run
from tconv.engine.plan import MOST_INTERLEAVED, Plan
from tconv.engine.problem import Problem
from tconv.engine.store import version_of
from tconv.engine.target import Target
from tconv.engine.tiled_layout import TiledLayout, layout_of
from tconv.engine.transposing import empty_lines, transpose_arguments, transpose_run
from tconv.engine.turned import run_turned
from tconv.engine.turned_layout import TurnedLayout
from tconv.geometry import Letter

__all__ = ["VERSION", "Prepared", "Ready", "measured", "ready"]

# Of the generated code: kernels on disk that other sources emitted are not those that are wanted.
_SOURCES = (
    *("values.py", "builder.py", "ir.py", "halves.py", "kernels.py", "gathering.py", "call.py"),
    *("panels.py", "spread.py", "winograd.py", "transforms.py", "tiles.py", "epilogue.py"),
    *("output.py", "driver.py", "packing.py", "transposing.py", "making.py", "products.py"),
    *("correlating.py", "turned.py"),
)
VERSION = version_of(_SOURCES)

_MOVING = ("pack_rows", "copy_row")  # which take LLVM longer than all that computes, 25 of 31 ms
_BRIEF_CYCLES = 30_000_000  # 10 ms, of which drafts of them cost less than they take to compile
_CYCLES_PER_US = 2900  # of a server's core at work
_SMALL_BYTES = 2**16  # weights up to this are packed by one thread, in memory of NumPy's
_SMALL_TRANSPOSED_BYTES = 2**18  # and so much of x or y is transposed by one
_MOST_MEASURED, _MEASURED_RUNS = 5, 4


class Prepared:
    """What can be done for one problem: here x and y are turned from layout to layout."""

    _job: Job
    _turns_back = True  # what is wanted; for w, both x and y are read

    def __init__(self, problem: Problem, dtype: str, target: Target, threads: int) -> None:
        self.problem, self.threads, self.activation = problem, threads, problem.activation
        self.dtype: np.dtype[Any] = as_dtype(np, dtype)  # of x, y and the weight
        self.computed = np.dtype(TYPES[dtype].accumulator)
        self._kernel = partial(_kernel, dtype=dtype, target=target)
        self._load = partial(load, target=target)
        self._transposed_sizes: dict[Any, Job] = {}

    def transposed(
        self, letter: Letter, array: NDArray[Any], to: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return what is read, which is channels last, channels first; what is written, back.

        Both are C-contiguous; `to` is written and returned if it is given.
        """
        job = self._transpositions[letter]
        if to is None:
            to = empty_lines(array.shape, self.dtype)
        job((array, to), self.threads if to.nbytes > _SMALL_TRANSPOSED_BYTES else 1)
        return to

    def transpose(self, size: tuple[int, int, int], source: NDArray[Any], to: NDArray[Any]) -> None:
        """Write images x rows x columns numbers to `to`, every image transposed."""
        if 1 in size[1:]:
            to.reshape(-1).view(self.dtype)[...] = source.reshape(-1).view(self.dtype)
            return
        job = self._transposed_sizes.get(size)
        if job is None:
            job = self._transposed_sizes[size] = self._transposition(*size)
        job((source, to), self.threads if to.nbytes > _SMALL_TRANSPOSED_BYTES else 1)

    def _transposition(self, images: int, rows: int, columns: int) -> Job:
        kernel = self._kernel("transpose_run", transpose_run, dtype=self._moved)
        values = transpose_arguments(images, rows, columns, self.dtype.itemsize)
        return Job(kernel, values, self._load)

    @property
    def _moved(self) -> str:
        """The type for kernels that do not look at the numbers."""
        return "int16" if self.dtype != self.computed else self.dtype.name

    @cached_property
    def _transpositions(self) -> dict[Letter, Job]:
        problem, geometry = self.problem, self.problem.geometry
        found: dict[Letter, Job] = {}
        for letter in (problem.read, problem.want):
            batch, channels, *size = geometry.shape_of(letter)
            rows, columns = prod(size), channels
            if self._turns_back and letter == problem.want:
                rows, columns = columns, rows
            found[letter] = self._transposition(batch, rows, columns)
        return found


class Ready(Prepared):
    """A plan with everything done that does not depend on the numbers.

    `pack` brings weights into the order of the kernels, ``ready(x, packed, bias, y)`` computes:
    x is what is read, y what is written.
    """

    def __init__(
        self,
        problem: Problem,
        dtype: str,
        target: Target,
        plan: Plan,
        threads: int | None = None,
    ) -> None:
        super().__init__(problem, dtype, target, threads or plan.threads)
        self.plan = plan
        self.layout = layout = layout_of(problem, plan, self.dtype, target)
        self._kept = self._arrays()
        wanted, drafted = Wanted(target), Wanted(target)
        moving = drafted if plan.cycles < _BRIEF_CYCLES else wanted
        kernels = partial(self._kernels, partial(wanted, dtype=dtype), partial(moving, dtype=dtype))
        kernels()
        wanted.load()  # all that are not there yet are compiled together
        addresses = kernels()
        arguments = layout.arguments()
        addresses |= {name: address(array) for name, array in self._kept.items()}
        for name, place in addresses.items():
            arguments[POINTERS.index(name)] = place
        self._job = Job(0, arguments, self._load, plan.cycles)
        self._bias_sources = layout.bias_sources()
        self._no_bias = np.zeros(self._bias_sources.shape, self.computed)
        self._scratch_bytes = layout.scratch_size * plan.threads * self.computed.itemsize
        arguments, self._kept["packing"], self._packing_bytes = pack_arguments(layout)
        self._packing = Job(0, arguments, self._load, plan.cycles)
        self._drive(drafted, dtype, target)

    def _drive(self, drafted: "Wanted", dtype: str, target: Target) -> None:
        """Fetch drivers and what else is drafted, and better code than drafts once it is there."""
        plan = self.plan
        slots = ((name, slot) for name in drafted.emits for slot in _MOVING)
        places = {name: POINTERS.index(slot) for name, slot in slots if name.startswith(slot)}
        kinds = (
            (plan.is_spread, run_spread),
            (plan.is_tiled, run_tiled),
            (plan.is_turned, run_turned),
        )
        emit = next((emit for is_kind, emit in kinds if is_kind), run)
        pack = pack_run if self.layout.weight_matrix is None else pack_made_run
        jobs = {}
        for each, job in ((emit, self._job), (pack, self._packing)):
            drafted(each.__name__, each, dtype=dtype)
            jobs[f"{each.__name__}_{dtype}"] = job

        def use(found: Mapping[str, int]) -> None:
            for name in jobs.keys() & found.keys():
                jobs[name].function = found[name]
            if moved := {places[name]: found[name] for name in places.keys() & found.keys()}:
                self._job.revise(moved)

        load_drafted(drafted.emits, target, version=VERSION, use=use)

    def _arrays(self) -> dict[str, Any]:
        """What the driver reads by its address, and so must live as long as the plan."""
        layout, plan, activation = self.layout, self.plan, self.activation
        slope = np.array([activation.slope if activation else 0], self.computed)
        if isinstance(layout, TurnedLayout):
            return {"slope": slope, **layout.lists}
        offsets, starts = layout.offsets()
        none = np.zeros(1, np.int64)
        sums, sum_starts = layout.sums() if plan.is_spread else (none, none)
        lists = [layout.tiles(tiles, starts) for tiles in (layout.block_tiles, layout.last_tiles)]
        rows, count = (np.concatenate(lists)[:, TILE.index(name)] for name in ("rows", "count"))
        return {
            "sums": sums,
            "sum_starts": sum_starts,
            "zeros": np.zeros((rows * count).max(), self.computed),
            "slope": slope,
            "offsets": offsets,
            "tiles": lists[0],
            "last_tiles": lists[1],
            "lines": layout.lines(),
            "table": layout.table() if plan.is_gathered else np.zeros(1, np.int32),
            "lattices_of_x": layout.lattices(),
        }

    def _kernels(self, kernel: Any, moving: Any) -> dict[str, int]:
        """Addresses of all kernels, those of the micro-kernels in a list that is kept.

        `moving` gives those that compute nothing, `kernel` the others.
        """
        layout, activation = self.layout, self.activation
        if isinstance(layout, TurnedLayout):
            addresses, kept = layout.kernels(kernel)
            self._kept |= kept
        else:
            addresses = self._kernels_of_cells(kernel, moving)
        if activation is not None:
            name = f"activate_{activation.name}"
            emit = activate(activation.name)
            addresses["activate"] = kernel(name, emit, dtype=self.computed.name)
        return addresses

    def _kernels_of_cells(self, kernel: Any, moving: Any) -> dict[str, int]:
        """Those of plans whose lanes are cells."""
        layout, plan = self.layout, self.plan
        kernel_of_sums = partial(kernel, dtype=self.computed.name)
        micros = self._kept["micros"] = np.zeros(2 * max(layout.heights) + 2, np.int64)
        for rows in layout.heights:
            for n, vectors in enumerate(layout.widths):
                if vectors:
                    shape = (rows, vectors, layout.unroll, layout.reads_ahead(rows))
                    name = "micro_" + "_".join(str(int(each)) for each in shape)
                    micros[2 * rows + n] = kernel_of_sums(name, micro(*shape))
        step, stride = (
            min(layout.fields[name], MOST_INTERLEAVED + 1) for name in ("step_x", "stride_x")
        )
        copies = not plan.is_gathered
        addresses = {
            "pack_rows": moving(f"pack_rows_{step}", pack_rows(step)) if copies else 0,
            "find_runs": kernel("find_runs", find_runs) if plan.is_gathered else 0,
            "gather": kernel("gather", gather) if plan.is_gathered else 0,
            "add_rows": kernel_of_sums("add_rows", add_rows) if plan.is_spread else 0,
            "stream": kernel("stream", stream, dtype=self._moved) if layout.streams else 0,
            "copy_row": moving(f"copy_row_{stride}", copy_row(stride)),
        }
        if isinstance(layout, TiledLayout):
            more, kept = layout.kernels(kernel)
            self._kept |= kept
            addresses |= more
        return addresses

    def pack(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Bring weights (groups, C, M, *kernel), C-contiguous, into the order of the kernels."""
        packed = empty(self._packed_shape, self.computed, _SMALL_BYTES + 1)
        threads = self.plan.threads if packed.nbytes > _SMALL_BYTES else 1
        self._packing((weight, packed), threads, self._packing_bytes)
        return packed

    def pack_bias(self, bias: NDArray[Any] | None) -> NDArray[Any]:
        """Repeat the bias, a number per channel that is written, for every row of every tile."""
        if bias is None:
            return self._no_bias
        return bias.astype(self.computed, copy=False).take(self._bias_sources)

    @cached_property
    def _packed_shape(self) -> tuple[int, int, int]:
        return self.problem.geometry.groups, self.layout.blocks, self.layout.weight_block

    @cached_property
    def workspace_bytes(self) -> int:
        """Bytes of scratch for all threads, and of packed weights and biases."""
        layout, threads = self.layout, self.plan.threads
        weights = layout.weight_block + layout.fields["bias_block"]
        blocks = self.problem.geometry.groups * layout.blocks
        numbers = threads * layout.scratch_size + blocks * weights
        return numbers * self.computed.itemsize

    def describe(self) -> list[str]:
        """What was chosen, and what it should cost."""
        plan, layout, geometry = self.plan, self.layout, self.problem.geometry
        read, written = self.problem.read, self.problem.want
        panel = "gathered panel" if plan.is_gathered else "flat panel"
        if plan.is_spread:
            panel = "x as it lies" if self.dtype == self.computed else "x as it lies, but widened"
        panel = f"{panel}, uncropped" if plan.is_uncropped else panel
        cells = f"{plan.planes} x {plan.rows} x {plan.columns} cells, {panel}"
        if plan.is_turned:
            cells = f"{plan.planes} images, x as it lies, vectors of channels"
        by_tap = ", tap by tap" if plan.part.by_tap else ""
        then = f", then {self.activation}" if self.activation else ""
        moved = self.dtype.itemsize * sum(
            prod(shape) for shape in (geometry.x_shape, geometry.weight_shape, geometry.y_shape)
        )
        items = f"{layout.fields['items']:,} items of {cells}"
        return [
            f"{self._algorithm}, {plan.threads} threads, {items}",
            f"tiles of {plan.tile} rows x {plan.vectors} vectors of {layout.lanes}, blocks of "
            f"{plan.block} channels of {written}, sums of {plan.part.channels} channels of {read}"
            f"{by_tap}{then}",
            f"{moved:,} bytes of operands and result, {self.workspace_bytes:,} of workspace and "
            "packed weights",
            f"expected {plan.cycles / _CYCLES_PER_US:,.0f} us",
        ]

    @property
    def _algorithm(self) -> str:
        """How it is computed, in words."""
        if not self.plan.is_tiled:
            return "direct"
        made = " x ".join(map(str, self.plan.outputs[-self.problem.geometry.rank :]))
        return f"Winograd, {made} outputs at a time"

    def __call__(
        self, x: NDArray[Any], packed: NDArray[Any], bias: NDArray[Any], y: NDArray[Any]
    ) -> None:
        """Write y; x and y are C-contiguous (N, groups*channels, *spatial), bias is packed too."""
        self._job((x, packed, bias, y), self.plan.threads, self._scratch_bytes)


@lru_cache(maxsize=256)
def ready(problem: Problem, dtype: str, target: Target, threads: int) -> Ready:
    """Return the cheapest plan, ready to run."""
    plan = known_plan(problem, dtype, target, threads)
    assert plan is not None, "the engine does not serve this problem"
    return Ready(problem, dtype, target, plan, threads)


@lru_cache(maxsize=256)
def measured(problem: Problem, dtype: str, target: Target, threads: int) -> Ready:
    """Return the plan that is quickest on this machine, of the few that should be.

    They sum in the same order, so which one wins does not show in the result.
    """
    rng, geometry, kind = np.random.default_rng(0), problem.geometry, as_dtype(np, dtype)
    x = rng.standard_normal(geometry.shape_of(problem.read)).astype(kind)
    share = (geometry.groups, -1, *geometry.weight_shape[1:])
    weight = np.ascontiguousarray(np.ones(geometry.weight_shape, kind).reshape(share))
    y = np.empty(geometry.shape_of(problem.want), kind)
    found = []
    for n, plan in enumerate(best_plans(problem, dtype, target, threads)[:_MOST_MEASURED]):
        candidate = Ready(problem, dtype, target, plan, threads)
        settle()
        packed, bias = candidate.pack(weight), candidate.pack_bias(None)
        times = []
        for _ in range(_MEASURED_RUNS):
            began = perf_counter()
            candidate(x, packed, bias, y)
            times.append(perf_counter() - began)
        found.append((min(times), n, candidate))
    return min(found)[2]


class Wanted:
    """Kernels that are asked for twice: noted at first, then loaded together, then found."""

    def __init__(self, target: Target) -> None:
        self._target, self.emits = target, dict[str, Emit]()
        self._found: dict[str, int] = {}

    def __call__(self, name: str, emit: Any, *, dtype: str) -> int:
        """Return its address; 0 as long as there is none, and then it is noted."""
        full = f"{name}_{dtype}"
        if full not in self._found:
            self.emits[full] = partial(_write, emit, full, dtype, self._target)
        return self._found.get(full, 0)

    def load(self) -> None:
        """Make all that are noted callable."""
        self._found = load_all(self.emits, self._target, version=VERSION)


def _write(emit: Any, name: str, dtype: str, target: Target, module: Any) -> None:
    emit(module, name, Number(dtype, target))


def _kernel(name: str, emit: Any, *, dtype: str, target: Target) -> int:
    full = f"{name}_{dtype}"
    return load(full, partial(_write, emit, full, dtype, target), target, version=VERSION)
