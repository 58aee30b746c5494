"""Primitives: plans with kernels loaded and buffers sized, ready to be called."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, lru_cache, partial
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.dtypes import TYPES, as_dtype
from tconv.engine.compile.fingerprint import fingerprint
from tconv.engine.compile.jit import find, held, load, load_all
from tconv.engine.lowered_plan import Arguments, SizedPlan, digest, load_or_lower
from tconv.engine.plan.plan import CYCLES_PER_US, Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.plan_cache import cached_plan, cached_sized_plan, keep_sized_plan
from tconv.engine.runtime.job import Job
from tconv.engine.target.target import Target
from tconv.geometry.geometry import Letter
from tconv.system.allocator import empty
from tconv.system.fork_lock import cached_property, importing

if TYPE_CHECKING:
    from tconv.engine.codegen.llvm import Module
    from tconv.engine.direct.layout import Layout
    from tconv.engine.lowering import Lowering
    from tconv.engine.runtime.reorder import Reorders

__all__ = ["INNER", "Primitive", "create_fastest", "create_primitive"]

# 10 and 0.3 ms: for brief calls all but the inner loops are compiled by the baseline tier, for tiny
# ones these, too. A first call loses less by that than LLVM takes to optimise them: 12 ms for an
# inner loop, 24 for the interleaving of six phases, 63 for a Winograd input transform in space.
_BRIEF_CYCLES, _TINY_CYCLES = 30_000_000, 1_000_000
INNER = ("micro_", "broadcast_", "slide_", "row_")  # prefixes of the names of inner loops
_SMALL_BYTES = 2**16  # weights up to this are packed by one thread, in NumPy's memory
_MOST_MEASURED, _MEASURED_RUNS = 5, 4
_MOST_FAMILIES = 256


class PackedWinograd(NamedTuple):
    """Transformed and packed weights, and the weight itself."""

    transformed: NDArray[Any]
    weight: NDArray[Any]


class Primitive:
    """A plan with everything done that does not depend on the values of the operands.

    `pack` brings weights into the order of the kernels, ``primitive(x, packed, bias, y)`` computes:
    x is what is read, y what is written. `sized` is what `SizedPlan` keeps on disk.

    With Winograd, a cell that is not finite, or so large that a sum of cells could overflow, would
    spread to outputs that do not read it. Images with such cells are computed directly instead:
    whole images, because which cells a task covers depends on the threads.
    """

    def __init__(
        self,
        problem: Problem,
        dtype: str,
        target: Target,
        plan: Plan,
        threads: int | None = None,
        sized: SizedPlan | None = None,
    ) -> None:
        self.problem, self.activation = problem, problem.activation
        self.dtype: np.dtype[Any] = as_dtype(np, dtype)  # of x, y and the weight
        self.computed = np.dtype(TYPES[dtype].accumulator)
        self.threads, self._load = threads or plan.threads, partial(load, target=target)
        self.plan, self._target, self._is_winograd = plan, target, plan.algorithm == "winograd"
        # Kernels that wait to be optimised hold these, and should not hold the primitive.
        self._layout = layout = cache(partial(_layout_of, problem, plan, self.dtype, target))
        lowering = cache(partial(_lowering_of, layout))
        self.sized = sized = sized or self._sized()
        self._family = family = _family_of(sized.family, self, lowering)
        self._lowered, self._packing = family.lowered, family.packing
        self._linked: list[Arguments] = []  # have arrays that the job's addresses are of
        self._job = Job(0, sized.sizes.words, self._load, plan.cycles, self._is_winograd)
        self._scratch_bytes = sized.scratch_size * plan.threads * self.computed.itemsize
        family.load(plan.cycles, lowering, self._use)

    @property
    def layout(self) -> "Layout":
        """The memory layout, computed when something needs it that is not on disk."""
        return self._layout()

    def _sized(self) -> SizedPlan:
        """Everything that follows from the plan and the sizes but addresses."""
        with importing:
            from tconv.engine.codegen.abi import ARGUMENTS

        layout = self.layout
        arrays = {ARGUMENTS.place(name): array for name, array in layout.sized().items()}
        return SizedPlan(
            self.plan,
            digest((fingerprint(), layout.family)),
            digest(layout.packing),
            layout.scratch_size,
            Arguments(layout.arguments(), arrays),
        )

    def _use(self, found: Mapping[str, int]) -> None:
        """Take drivers and kernels, and optimised ones in their place once they are there."""
        lowered, family = self._lowered, self._family
        family.found |= found
        self._job.function, self._packing.function = map(family.found.__getitem__, lowered.drivers)
        linked = lowered.link(family.found, self.sized.sizes)
        self._linked.append(linked)  # besides those before, for calls that are under way
        self._job.revise(linked.bind())

    @cached_property
    def _reorders(self) -> "Reorders":
        """Reorders of x and y, which only channels last and split types need."""
        with importing:
            from tconv.engine.runtime.reorder import Reorders

        return Reorders(self.problem, self.dtype.name, self._target, self.threads)

    def transposed(
        self, letter: Letter, array: NDArray[Any], to: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Reorder x or y between channels last and channels first, as `Reorders.transposed`."""
        return self._reorders.transposed(letter, array, to)

    def transpose(self, size: tuple[int, int, int], source: NDArray[Any], to: NDArray[Any]) -> None:
        """Transpose every image of a stack, as `Reorders.transpose`."""
        self._reorders.transpose(size, source, to)

    @property
    def packing(self) -> str:
        """A digest that primitives which read the same packed weights share."""
        return self.sized.packing

    @property
    def keeps_weight(self) -> bool:
        """Whether packed weights hold the weight itself, too."""
        return self._is_winograd

    def pack(self, weight: NDArray[Any]) -> Any:
        """Bring weights (groups, C, M, *kernel), C-contiguous, into the order of the kernels."""
        packed = self._packed(weight)
        return PackedWinograd(packed, weight) if self._is_winograd else packed

    def _packed(self, weight: NDArray[Any]) -> NDArray[Any]:
        lowered = self._lowered
        packed = empty(lowered.packed_shape, self.computed, _SMALL_BYTES + 1)
        threads = self.plan.threads if packed.nbytes > _SMALL_BYTES else 1
        self._packing((weight, packed), threads, lowered.packing_bytes)
        return packed

    def pack_bias(self, bias: NDArray[Any] | None) -> NDArray[Any]:
        """Repeat the bias, one per output channel, for every row of every tile."""
        family = self._family
        if bias is None:
            return family.no_bias
        if family.takes_bias and bias.dtype is self.computed and bias.flags.carray:
            return bias
        return bias.astype(self.computed, copy=False).take(self._lowered.bias_sources)

    @cached_property
    def workspace_bytes(self) -> int:
        """Bytes of scratch for all threads, and of packed weights and biases."""
        lowered = self._lowered
        scratch = self.plan.threads * self.sized.scratch_size
        elements = scratch + prod(lowered.packed_shape) + lowered.bias_sources.size
        if self._is_winograd:  # packed once more for images that are computed directly
            elements += prod(self.problem.geometry.weight_shape)
        return elements * self.computed.itemsize

    def describe(self) -> list[str]:
        """What was chosen, and what it should cost."""
        plan, layout, geometry = self.plan, self.layout, self.problem.geometry
        read, written = self.problem.read, self.problem.want
        moved = self.dtype.itemsize * sum(
            prod(shape) for shape in (geometry.x_shape, geometry.weight_shape, geometry.y_shape)
        )
        per_tap = ", tap by tap" if plan.k_block.per_tap else ""
        then = f", then {self.activation}" if self.activation else ""
        return [
            f"{self._algorithm}, {plan.threads} threads, {layout.fields['tasks']:,} tasks of "
            f"{self._task}",
            f"tiles of {plan.tile} rows x {plan.vectors} vectors of {layout.lanes}, blocks of "
            f"{plan.block} channels of {written}, sums of {plan.k_block.channels} channels of "
            f"{read}{per_tap}{then}",
            f"{moved:,} bytes of operands and result, {self.workspace_bytes:,} of workspace and "
            "packed weights",
            f"expected {plan.cycles / CYCLES_PER_US:,.0f} us",
        ]

    @property
    def _algorithm(self) -> str:
        """The algorithm in words; all but Winograd compute every product, so they are direct."""
        plan = self.plan
        if plan.algorithm == "winograd":
            made = " x ".join(map(str, plan.outputs[-self.problem.geometry.rank :]))
            return f"Winograd, {made} outputs at a time"
        how = {
            "im2col": " by im2col",
            "col2im": " by col2im",
            "channel_lanes": " by channel lanes",
            "depthwise": " by sliding rows",
            "row_gemm": " row by row",
        }
        return f"direct{how.get(plan.algorithm, '')}"

    @property
    def _task(self) -> str:
        """A task in words: what it covers, and how it reads x."""
        plan = self.plan
        if plan.algorithm == "channel_lanes":
            return f"{plan.planes} images, x read in place"
        if plan.algorithm == "depthwise":
            return f"{plan.rows} rows of {plan.planes} planes, x read in place"
        if plan.algorithm == "row_gemm":
            panel = "x read in place" if plan.panel == "none" else "im2col panel"
            return f"{plan.rows} x {plan.columns} cells, {panel}"
        read = "x read in place" if self.dtype == self.computed else "x widened"
        panel = {"padded": "padded panel", "im2col": "im2col panel"}.get(plan.panel, read)
        uncropped = ", uncropped" if plan.is_uncropped else ""
        return f"{plan.planes} x {plan.rows} x {plan.columns} cells, {panel}{uncropped}"

    def __call__(
        self,
        x: NDArray[Any],
        packed: Any,
        bias: NDArray[Any],
        y: NDArray[Any],
        *residual: NDArray[Any],
    ) -> None:
        """Write y; x and y are C-contiguous (N, groups*channels, *spatial), bias is packed too.

        `residual`, if the problem has one, is an array like y that shares no memory with it.
        """
        if not self._is_winograd:
            operands = (x, packed, bias, y, *residual)
            self._job(operands, self.plan.threads, self._scratch_bytes)
            return
        operands = (x, packed.transformed, bias, y, *residual)
        if self._job(operands, self.plan.threads, self._scratch_bytes):
            self.compute_directly(x, packed.weight, bias, y, *residual)

    def write_images(
        self, x: NDArray[Any], packed: Any, bias: NDArray[Any], y: NDArray[Any]
    ) -> None:
        """Write y as `__call__` does, whose images are contiguous but apart."""
        with importing:  # few arrays are such
            from tconv.engine.codegen.abi import ARGUMENTS

        weight = packed.transformed if self._is_winograd else packed
        words = {ARGUMENTS.place("y_batch"): y.strides[0] // y.itemsize}
        operands, threads = (x, weight, bias, y), self.plan.threads
        if self._job(operands, threads, self._scratch_bytes, words):
            self.compute_directly(x, packed.weight, bias, y)

    def compute_directly(
        self,
        x: NDArray[Any],
        weight: NDArray[Any],
        bias: NDArray[Any],
        *written: NDArray[Any],
    ) -> None:
        """Write the images of y whose x holds cells that are not finite, or `LARGE`.

        `written` is y, and the residual if there is one.
        """
        x = x.reshape(self.problem.geometry.batch, -1)
        y, *residual = [each.reshape(len(x), *each.shape[1:]) for each in written]
        found = [n for n, image in enumerate(x) if not _is_moderate(image, self.computed)]
        if not found:
            return
        geometry = replace(self.problem.geometry, batch=1)
        problem = replace(self.problem, geometry=geometry, without_winograd=True)
        direct = create_primitive(problem, self.dtype.name, self._target, self.threads)
        of_channels = np.zeros(geometry.groups * problem.outputs, self.computed)
        sources = self._lowered.bias_sources
        of_channels[sources] = bias.reshape(sources.shape)
        packed, of_direct = direct.pack(weight), direct.pack_bias(of_channels)
        for n in found:
            direct(x[n], packed, of_direct, y[n], *[each[n] for each in residual])


@lru_cache(maxsize=256)
def create_primitive(problem: Problem, dtype: str, target: Target, threads: int) -> Primitive:
    """Return a primitive of the cheapest plan."""
    plan = cached_plan(problem, dtype, target, threads)
    assert plan is not None, "the engine does not serve this problem"
    sized = cached_sized_plan(problem, dtype, target, threads)
    made = Primitive(problem, dtype, target, plan, threads, sized)
    if sized is None:
        keep_sized_plan(problem, dtype, target, threads, made.sized)
    return made


@lru_cache(maxsize=256)
def create_fastest(problem: Problem, dtype: str, target: Target, threads: int) -> Primitive:
    """Return a primitive of the plan that is quickest on this machine, among the cheapest few.

    All sum in the same order, so which one wins does not show in the result.
    """
    with importing:
        from tconv.engine.choose import best_plans
        from tconv.engine.compile.tiers import wait_for_optimised

    rng, geometry, kind = np.random.default_rng(0), problem.geometry, as_dtype(np, dtype)
    x = rng.standard_normal(geometry.shape_of(problem.read)).astype(kind)
    share = (geometry.groups, -1, *geometry.weight_shape[1:])
    weight = np.ascontiguousarray(np.ones(geometry.weight_shape, kind).reshape(share))
    y = np.empty(geometry.shape_of(problem.want), kind)
    found = []
    for n, plan in enumerate(best_plans(problem, dtype, target, threads)[:_MOST_MEASURED]):
        candidate = Primitive(problem, dtype, target, plan, threads)
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
    with importing:  # which only Winograd with such cells needs
        from tconv.engine.winograd.transform import LARGE

    most = LARGE[computed.itemsize]
    with np.errstate(invalid="ignore"):
        least, largest = cells.min(), cells.max()  # NaN if any cell is
        return bool(-most < least and largest < most)


class _Family:
    """What all sizes of a layer share whose plans differ in nothing else."""

    def __init__(self, name: str, first: Primitive, lowering: "Callable[[], Lowering]") -> None:
        self._target = first._target
        self.lowered = load_or_lower(name, lambda: lowering().lower())
        sources = self.lowered.bias_sources
        self.no_bias = np.zeros(sources.shape, first.computed)
        self.takes_bias = np.array_equal(sources.ravel(), np.arange(sources.size))  # as it is
        words, load_here = self.lowered.packing.bind(), partial(load, target=first._target)
        self.packing = Job(0, words, load_here, first.plan.cycles)
        self.found: dict[str, int] = {}  # addresses of kernels and drivers, by name
        self._is_done = False  # once all of them are optimised

    def load(
        self,
        cycles: float,
        lowering: "Callable[[], Lowering]",
        use: Callable[[Mapping[str, int]], None],
    ) -> None:
        """Make kernels and drivers callable, and let `use` take them."""
        lowered = self.lowered
        names = (*lowered.kernels, *lowered.drivers)
        if not self._is_done:
            found = held(names, self._target)
            if len(found) < len(names):
                found = find(names, self._target)
            if len(found) == len(names):
                self.found = found  # before another thread is told that it is there
                self._is_done = True
        if self._is_done:
            use({})
            return
        with importing:
            from tconv.engine.compile.tiers import load_tiered

        emits = {name: partial(_emit, lowering, name) for name in names}
        well: tuple[str, ...] = () if cycles < _TINY_CYCLES else INNER
        well = well if cycles < _BRIEF_CYCLES else ("",)  # with which all names begin
        wanted = {name: emits.pop(name) for name in lowered.kernels if name.startswith(well)}
        self.found |= load_all(wanted, self._target)
        load_tiered(emits, self._target, use=use)


_families: dict[str, _Family] = {}


def _family_of(name: str, first: Primitive, lowering: "Callable[[], Lowering]") -> _Family:
    found = _families.get(name)
    if found is None:
        if len(_families) >= _MOST_FAMILIES:
            _families.clear()  # primitives that run hold theirs
        found = _families[name] = _Family(name, first, lowering)
    return found


def _layout_of(problem: Problem, plan: Plan, dtype: np.dtype[Any], target: Target) -> "Layout":
    """Compute a layout, which few processes need and so few import."""
    with importing:
        from tconv.engine.layouts import layout_of

    return layout_of(problem, plan, dtype, target)


def _lowering_of(layout: "Callable[[], Layout]") -> "Lowering":
    """Lower a plan, which few processes need and so few import."""
    with importing:
        from tconv.engine.lowering import Lowering

    return Lowering(layout())


def _emit(lowering: "Callable[[], Lowering]", name: str, module: "Module") -> None:
    lowering().emits[name](module)
