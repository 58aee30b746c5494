"""Steps from the definition to the engine: a function for each step of docs/algorithms.md.

Each sets up a layer and returns a call, as in peers.py. The steps in NumPy are complete; those of
the engine choose one of its plans. From the first generated code on, a step changes one thing and
keeps what came before.
"""

from typing import Any

import numpy as np

from bench.cases import Case
from bench.peers import Operands, Thunk, Unsupported, plan, plan_of, portable

SAME = "the plan is that of the step before"
DIRECT = ("direct",)
PANELS, GEMMS = (*DIRECT, "im2col"), (*DIRECT, "im2col", "col2im")
ALL = (*GEMMS, "channel_lanes")

# ---- the steps in NumPy --------------------------------------------------------------------------


def number_by_number(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The definition: add each product of a cell of x and a weight to one cell of y."""
    x, weight, bias = arrays

    def call() -> Any:
        full = _full(case, x.dtype)
        for n, c, *i in np.ndindex(x.shape):
            for m, *k in np.ndindex(weight.shape[1:]):
                cell = [case.s * a + case.d * b for a, b in zip(i, k, strict=True)]
                full[(n, m, *cell)] += x[(n, c, *i)] * weight[(c, m, *k)]
        return _cropped(case, full, bias)

    return call


def cell_by_cell(case: Case, arrays: Operands, threads: int) -> Thunk:
    """For each cell of x, add all its channels' copies of the kernel to a window of y."""
    x, weight, bias = arrays

    def call() -> Any:
        full = _full(case, x.dtype)
        for n, *i in np.ndindex(case.N, *case.I):
            window = [slice(case.s * a, case.s * a + _reach(case), case.d) for a in i]
            full[(n, ..., *window)] += np.tensordot(x[(n, slice(None), *i)], weight, 1)
        return _cropped(case, full, bias)

    return call


def inserted_zeros(case: Case, arrays: Operands, threads: int) -> Thunk:
    """Insert zeros between the cells of x, then convolve: a matrix product for each tap."""
    x, weight, bias = arrays
    border, kernel = _reach(case) - 1, (case.K,) * len(case.I)

    def call() -> Any:
        full = _full(case, x.dtype)
        wide = np.zeros((case.N, case.C, *(size + border for size in full.shape[2:])), x.dtype)
        cells = [slice(border, border + (size - 1) * case.s + 1, case.s) for size in case.I]
        wide[(..., *cells)] = x
        for k in np.ndindex(*kernel):
            starts = [border - case.d * tap for tap in k]
            window = [slice(a, a + b) for a, b in zip(starts, full.shape[2:], strict=True)]
            seen = wide[(..., *window)].reshape(case.N, case.C, -1)
            full += (weight[(..., *k)].T @ seen).reshape(full.shape)
        return _cropped(case, full, bias)

    return call


def scattered(case: Case, arrays: Operands, threads: int) -> Thunk:
    """One GEMM makes all products; then col2im adds the copies of each tap to y."""
    x, weight, bias = arrays
    kernel = (case.K,) * len(case.I)

    def call() -> Any:
        full = _full(case, x.dtype)
        copies = weight.reshape(case.C, -1).T @ x.reshape(case.N, case.C, -1)  # (N, M*K, I)
        copies = copies.reshape(case.N, case.M, *kernel, *case.I)
        for k in np.ndindex(*kernel):
            starts = [case.d * tap for tap in k]
            stops = [a + (size - 1) * case.s + 1 for a, size in zip(starts, case.I, strict=True)]
            cells = [slice(a, b, case.s) for a, b in zip(starts, stops, strict=True)]
            full[(..., *cells)] += copies[(slice(None), slice(None), *k)]
        return _cropped(case, full, bias)

    return call


def phases(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The portable path: a matrix product for each phase, which adds nothing afterwards."""
    return portable(case, arrays, threads)


def _reach(case: Case) -> int:
    return case.d * (case.K - 1) + 1


def _full(case: Case, dtype: Any) -> np.ndarray:
    """Zeros for y before it is cropped, of layers that these steps compute."""
    if case.G > 1 or case.a:
        raise Unsupported("one group and no output_padding")
    return np.zeros((case.N, case.M, *((i - 1) * case.s + _reach(case) for i in case.I)), dtype)


def _cropped(case: Case, full: np.ndarray, bias: np.ndarray) -> Any:
    kept = [slice(case.p, size - case.p) for size in full.shape[2:]]
    return full[(..., *kept)] + bias.reshape(-1, *[1] * len(kept))


# ---- the steps of the engine ---------------------------------------------------------------------


def generated(case: Case, arrays: Operands, threads: int) -> Thunk:
    """A kernel with one row by one vector, over a whole image and all channels."""
    plan = _whole(case, _best(case, arrays, threads, DIRECT))._replace(tile=1, vectors=1)
    return _call(_without_shuffles(_ready(case, arrays, plan)), arrays)


def tiles(case: Case, arrays: Operands, threads: int) -> Thunk:
    """Register tiles as large as in the best plan with a padded panel."""
    plan = _whole(case, _best(case, arrays, threads, DIRECT))
    return _call(_without_shuffles(_ready(case, arrays, plan)), arrays)


def tasks(case: Case, arrays: Operands, threads: int) -> Thunk:
    """Tasks and blocks as large as in that plan."""
    plan = _best(case, arrays, threads, DIRECT)
    return _call(_without_shuffles(_ready(case, arrays, plan)), arrays)


def interleaved(case: Case, arrays: Operands, threads: int) -> Thunk:
    """That plan, with the engine's own kernels for interleaving."""
    return _call(_ready(case, arrays, _best(case, arrays, threads, DIRECT)), arrays)


def im2col(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The best plan with a padded or an im2col panel, if it is an im2col panel."""
    return _if_new(case, arrays, threads, DIRECT, PANELS)


def col2im(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The best plan with lanes of cells, if it is GEMM and col2im."""
    return _if_new(case, arrays, threads, PANELS, GEMMS)


def channel_lanes(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The best of all plans, if it is channel-vectorised."""
    return _if_new(case, arrays, threads, GEMMS, ALL)


def all_cores(case: Case, arrays: Operands, threads: int) -> Thunk:
    """The best plan for all threads, which packs the weights in every call."""
    return _call(_ready(case, arrays, _best(case, arrays, threads)), arrays)


def packed(case: Case, arrays: Operands, threads: int) -> Thunk:
    """A plan of `tconv.plan` with method="direct"."""
    import tconv

    x, weight, bias = arrays
    sizes = case.x_shape, case.weight_shape
    call = tconv.plan(*sizes, method="direct", threads=threads, **case.keywords)
    held, y = call.pack(weight), np.empty(case.geometry.y_shape, x.dtype)
    return lambda: call(x, held, bias, y)


def winograd(case: Case, arrays: Operands, threads: int) -> Thunk:
    """A plan of `tconv.plan`, if it chooses Winograd."""
    if "Winograd" not in str(plan_of(case, arrays[0].dtype.name, threads)):
        raise Unsupported(SAME)
    return plan(case, arrays, threads)


def _best(case: Case, arrays: Operands, threads: int, algorithms: tuple[str, ...] = ALL) -> Any:
    """The cheapest plan with one of these algorithms."""
    from tconv.engine.choose import best_plans
    from tconv.engine.plan.problem import Problem
    from tconv.engine.target.target import target

    problem = Problem(case.geometry, without_winograd=True)
    plans = best_plans(problem, arrays[0].dtype.name, target(), threads)
    return next(plan for plan in plans if plan.algorithm in algorithms)


def _whole(case: Case, plan: Any) -> Any:
    """A direct plan with tasks of a whole image and all channels."""
    from tconv.engine.plan.phases import Phases

    _, y, x = Phases.of(case.geometry.axes, plan.is_uncropped).axes
    return plan._replace(rows=y.count, columns=x.count, block=case.M // case.G, splits=1)


def _if_new(
    case: Case, arrays: Operands, threads: int, before: tuple[str, ...], now: tuple[str, ...]
) -> Thunk:
    plan = _best(case, arrays, threads, now)
    if plan == _best(case, arrays, threads, before):
        raise Unsupported(SAME)
    return _call(_ready(case, arrays, plan), arrays)


def _ready(case: Case, arrays: Operands, plan: Any) -> Any:
    from tconv.engine.executor import Primitive
    from tconv.engine.plan.problem import Problem
    from tconv.engine.target.target import target

    return Primitive(
        Problem(case.geometry, without_winograd=True), arrays[0].dtype.name, target(), plan
    )


def _without_shuffles(ready: Any) -> Any:
    """Copy each phase to y cell by cell, as the kernel for wide strides does with part vectors."""
    from tconv.engine.codegen.abi import ARGUMENTS
    from tconv.engine.compile.jit import load_kernel
    from tconv.engine.compile.tiers import wait_for_optimised
    from tconv.engine.kernels.interleave import interleave_row
    from tconv.engine.kernels.limits import MOST_INTERLEAVED
    from tconv.engine.target.target import target

    wait_for_optimised()  # else better code comes in the place of this kernel, too
    stride = MOST_INTERLEAVED + 1
    name, dtype = f"interleave_row_{stride}", ready.dtype.name
    kernel = load_kernel(name, interleave_row(stride), dtype=dtype, target=target())
    ready._job.values[ARGUMENTS.place("interleave_row")] = kernel
    return ready


def _call(ready: Any, arrays: Operands) -> Thunk:
    x, weight, bias = arrays
    geometry = ready.problem.geometry
    weight = weight.reshape(geometry.groups, -1, *weight.shape[1:])
    y = np.empty(geometry.y_shape, x.dtype)

    def call() -> Any:
        ready(x, ready.pack(weight), ready.pack_bias(bias), y)
        return y

    return call
