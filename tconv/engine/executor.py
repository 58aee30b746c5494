"""HOW A PLAN IS RUN: it is laid out in memory, its kernels fetched, weights packed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, lru_cache, partial
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.dtypes import as_dtype
from tconv.engine.choose import best_plans
from tconv.engine.codegen.abi import ARGUMENTS
from tconv.engine.codegen.llvm import Module
from tconv.engine.compile.jit import held, load, load_all
from tconv.engine.compile.tiers import load_tiered, wait_for_optimised
from tconv.engine.lowered_plan import Told, laid_out
from tconv.engine.plan.plan import CYCLES_PER_US, Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.plan_cache import known_plan
from tconv.engine.runtime.job import Job
from tconv.engine.target.target import Target
from tconv.engine.winograd.transform import LARGE
from tconv.system.allocator import empty
from tconv.system.fork_lock import cached_property, importing

if TYPE_CHECKING:
    from tconv.engine.direct.layout import Layout
    from tconv.engine.lowering import Kernels

from tconv.engine.runtime.reorder import Prepared

__all__ = ["INNER", "Ready", "measured", "ready"]

# 10 and 0.3 ms: of brief calls all but the inner loops are drafts, of tiny ones these, too. What a
# first call loses by that is less than LLVM takes to compile them well: 12 ms for an inner loop, 24
# for six phases that are interleaved, 63 for sums of the cells of a tile in space.
_BRIEF_CYCLES, _TINY_CYCLES = 30_000_000, 1_000_000
INNER = ("micro_", "broadcast_")  # how names of these begin
_SMALL_BYTES = 2**16  # weights up to this are packed by one thread, in memory of NumPy's
_MOST_MEASURED, _MEASURED_RUNS = 5, 4
_MOST_FAMILIES = 256


class PackedTiles(NamedTuple):
    """Numbers that products are made with, and the weight that they were made of."""

    numbers: NDArray[Any]
    weight: NDArray[Any]


class Ready(Prepared):
    """A plan with everything done that does not depend on the numbers.

    `pack` brings weights into the order of the kernels, ``ready(x, packed, bias, y)`` computes:
    x is what is read, y what is written.

    Where outputs share products, a cell that is not finite, or so large that a sum of cells could
    overflow, would spread to outputs that do not read it. Images with such cells are computed
    directly instead: whole images, because which cells an item holds depends on the threads.
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
        self.plan, self._target, self._is_tiled = plan, target, plan.is_tiled
        self.layout = layout = _layouts()(problem, plan, self.dtype, target)
        self._family = family = _family_of(layout)
        self._laid, self._packing = family.laid, family.packing
        arrays = {ARGUMENTS.place(name): array for name, array in layout.sized().items()}
        self._sizes = Told(layout.arguments(), arrays)
        self._told: list[Told] = []  # have arrays that the job's addresses are of
        self._job = Job(0, self._sizes.words, self._load, plan.cycles, plan.is_tiled)
        self._scratch_bytes = layout.scratch_size * plan.threads * self.computed.itemsize
        family.load(layout, self._use)

    def _use(self, found: Mapping[str, int]) -> None:
        """Take drivers and what else is drafted, and better code than drafts once it is there."""
        laid, family = self._laid, self._family
        family.found |= found
        self._job.function, self._packing.function = map(family.found.__getitem__, laid.drivers)
        told = laid.located(family.found, self._sizes)
        self._told.append(told)  # besides those before, for calls that are under way
        self._job.revise(told.addressed())

    @property
    def packing(self) -> tuple[Any, ...]:
        """What tells plans that read the same packed weights."""
        return self.layout.packing

    @property
    def keeps_weight(self) -> bool:
        """Whether what `pack` gives holds the weight that it is given, too."""
        return self._is_tiled

    def pack(self, weight: NDArray[Any]) -> Any:
        """Bring weights (groups, C, M, *kernel), C-contiguous, into the order of the kernels."""
        packed = self._packed(weight)
        return PackedTiles(packed, weight) if self._is_tiled else packed

    def _packed(self, weight: NDArray[Any]) -> NDArray[Any]:
        laid = self._laid
        packed = empty(laid.packed_shape, self.computed, _SMALL_BYTES + 1)
        threads = self.plan.threads if packed.nbytes > _SMALL_BYTES else 1
        self._packing((weight, packed), threads, laid.packing_bytes)
        return packed

    def pack_bias(self, bias: NDArray[Any] | None) -> NDArray[Any]:
        """Repeat the bias, a number per channel that is written, for every row of every tile."""
        if bias is None:
            return self._family.no_bias
        return bias.astype(self.computed, copy=False).take(self._laid.bias_sources)

    @cached_property
    def workspace_bytes(self) -> int:
        """Bytes of scratch for all threads, and of packed weights and biases."""
        laid = self._laid
        scratch = self.plan.threads * self.layout.scratch_size
        numbers = scratch + prod(laid.packed_shape) + laid.bias_sources.size
        if self.plan.is_tiled:  # packed once more for images that are computed directly
            numbers += self.problem.weight_count
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
            f"expected {plan.cycles / CYCLES_PER_US:,.0f} us",
        ]

    @property
    def _algorithm(self) -> str:
        """How it is computed, in words."""
        if not self._is_tiled:
            return "direct"
        made = " x ".join(map(str, self.plan.outputs[-self.problem.geometry.rank :]))
        return f"Winograd, {made} outputs at a time"

    def __call__(self, x: NDArray[Any], packed: Any, bias: NDArray[Any], y: NDArray[Any]) -> None:
        """Write y; x and y are C-contiguous (N, groups*channels, *spatial), bias is packed too."""
        if not self._is_tiled:
            self._job((x, packed, bias, y), self.plan.threads, self._scratch_bytes)
        elif self._job((x, packed.numbers, bias, y), self.plan.threads, self._scratch_bytes):
            self._compute_directly(x, packed.weight, bias, y)

    def _compute_directly(
        self, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any], y: NDArray[Any]
    ) -> None:
        """Write the images of y whose x holds cells that are not finite, or `LARGE`."""
        x, y = (each.reshape(self.problem.geometry.batch, -1) for each in (x, y))
        found = [n for n, image in enumerate(x) if not _is_moderate(image, self.computed)]
        if not found:
            return
        geometry = replace(self.problem.geometry, batch=1)
        problem = replace(self.problem, geometry=geometry, is_direct=True)
        direct = ready(problem, self.dtype.name, self._target, self.threads)
        of_channels = np.zeros(geometry.groups * problem.outputs, self.computed)
        of_channels[self._laid.bias_sources] = bias
        packed, of_direct = direct.pack(weight), direct.pack_bias(of_channels)
        for n in found:
            direct(x[n], packed, of_direct, y[n])


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
        wait_for_optimised()
        packed, bias = candidate.pack(weight), candidate.pack_bias(None)
        times = []
        for _ in range(_MEASURED_RUNS):
            began = perf_counter()
            candidate(x, packed, bias, y)
            times.append(perf_counter() - began)
        found.append((min(times), n, candidate))
    return min(found)[2]


def _is_moderate(cells: NDArray[Any], computed: np.dtype[Any]) -> bool:
    """Whether all cells are finite, and so small that their sums are, too."""
    most = LARGE[computed.itemsize]
    with np.errstate(invalid="ignore"):
        least, largest = cells.min(), cells.max()  # NaN if any cell is
        return bool(-most < least and largest < most)


class _Family:
    """What is done once for all sizes of a layer whose plans differ in nothing else."""

    def __init__(self, layout: "Layout") -> None:
        self._target = layout.target
        kernels = cache(partial(_kernels_of, layout))
        self.laid = laid_out(layout.family, lambda: kernels().laid())
        self.no_bias = np.zeros(self.laid.bias_sources.shape, layout.computed)
        words, load_here = self.laid.packing.addressed(), partial(load, target=layout.target)
        self.packing = Job(0, words, load_here, layout.plan.cycles)
        self.found: dict[str, int] = {}  # addresses of kernels and drivers, by name
        self._is_done = False  # once none of them is a draft

    def load(self, layout: "Layout", use: Callable[[Mapping[str, int]], None]) -> None:
        """Make kernels and drivers callable, and let `use` take them."""
        laid, cycles = self.laid, layout.plan.cycles
        names = (*laid.kernels, *laid.drivers)
        if not self._is_done:
            found = held(names, self._target)
            if len(found) == len(names):
                self.found = found  # before another thread is told that it is there
                self._is_done = True
        if self._is_done:
            use({})
            return
        kernels = cache(partial(_kernels_of, layout))
        emits = {name: partial(_emit, kernels, name) for name in names}
        well: tuple[str, ...] = () if cycles < _TINY_CYCLES else INNER
        well = well if cycles < _BRIEF_CYCLES else ("",)  # with which all names begin
        wanted = {name: emits.pop(name) for name in laid.kernels if name.startswith(well)}
        self.found |= load_all(wanted, self._target)
        load_tiered(emits, self._target, use=use)


_families: dict[tuple[Any, ...], _Family] = {}


def _family_of(layout: "Layout") -> _Family:
    found = _families.get(layout.family)
    if found is None:
        if len(_families) >= _MOST_FAMILIES:
            _families.clear()  # plans that run hold theirs
        found = _families[layout.family] = _Family(layout)
    return found


@cache
def _layouts() -> "Callable[..., Layout]":
    with importing:
        from tconv.engine.layouts import layout_of

    return layout_of


def _kernels_of(layout: "Layout") -> "Kernels":
    """Lay a plan out, which few processes need and so few import."""
    with importing:
        from tconv.engine.lowering import Kernels

    return Kernels(layout)


def _emit(kernels: Callable[[], "Kernels"], name: str, module: Module) -> None:
    kernels().emits[name](module)
