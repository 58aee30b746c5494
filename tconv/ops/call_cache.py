"""Call cache: bound calls, found by the shapes, the type and the keywords of a call.

A bound call has passed every check once. The next call of the same shapes, type and keywords runs
its plan at once.
"""

import weakref
from functools import lru_cache
from types import NoneType
from typing import Any, TypeVar

import numpy as np

import tconv.engine as engine
from tconv.arrays.dtypes import NATIVE_DTYPES, dtype_name
from tconv.arrays.operands import check_out
from tconv.engine import host_target as target
from tconv.geometry.arguments import is_cache_key
from tconv.geometry.geometry import Geometry, Letter
from tconv.ops.dispatch import Call, is_registered, native, needs_no_limit, solve_for

__all__ = ["BoundCall", "CacheEntry", "cache_entry", "solve_and_cache"]

A = TypeVar("A")

_SCALARS = frozenset({int, str, bool, NoneType})  # `is_cache_key` for most keywords at once


class BoundCall:
    """Contractions of one geometry, type and `Call`, each bound to the engine's plan.

    The first solution for a letter takes every check of `solve_for`, then binds the plan. From then
    on NumPy arrays of these shapes and this type go straight to the engine. All other operands,
    and calls that must be held against the memory, take every check each time.

    >>> geometry = Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> bound = BoundCall(geometry, np.dtype("float64"), Call("conv_transpose"))
    >>> for _ in range(2):
    ...     bound.solve("y", np.ones((1, 1, 2)), np.ones((1, 1, 3)))
    array([[[1., 1., 2., 1., 1.]]])
    array([[[1., 1., 2., 1., 1.]]])
    """

    def __init__(self, geometry: Geometry, dtype: Any, call: Call) -> None:
        self.geometry, self.call = geometry, call
        self._dtype = dtype_name(dtype)
        # Target and plan by letter; () where every call takes every check.
        self._plans: dict[Letter, tuple[Any, ...]] = {}

    def plan(self, want: Letter) -> Any:
        """The plan that is bound for a letter; None where a call has to take every check."""
        found = self._plans.get(want)
        if not found:
            return None
        here, plan_of = found
        return None if here is not target() or is_registered("numpy") else plan_of()

    def run(self, want: Letter, a: A, b: Any, bias: Any = None, out: Any = None) -> A | None:
        """Run the bound plan; return None where there is none, or where bias needs every check.

        a and b must have the right shapes and type; b may be a weight packed for the plan. Bias and
        `out` may be anything.
        """
        chosen, geometry = self.plan(want), self.geometry
        if chosen is None:
            return None
        if bias is not None:
            channels = geometry.out_channels if want == "y" else geometry.in_channels
            if (
                type(bias) is not np.ndarray
                or NATIVE_DTYPES.get(bias.dtype) != self._dtype
                or bias.shape != (channels,)
            ):
                return None
        to = None
        if out is not None:
            to = check_out(out, np, geometry.shape_of(want), self._dtype, [a, b, bias])
        result: Any = engine.contract(geometry, want, a, b, bias=bias, out=to, plan=chosen)  # type: ignore[arg-type]
        return result if out is None else out  # type: ignore[no-any-return]

    def solve(self, want: Letter, a: Any, b: Any, bias: Any = None, out: Any = None) -> Any:
        """Return what `solve_for` returns; bind the plan if that went well."""
        result = self.run(want, a, b, bias, out)
        if result is None:
            result = solve_for(want, self.geometry, a, b, bias, self.call, out)
            self._bind(want)
        return result

    def _bind(self, want: Letter) -> None:
        """Bind the engine's plan, unless each call has to be held against the memory."""
        call, geometry, name = self.call, self.geometry, self._dtype
        if self._plans.get(want) == ():
            return
        self._plans[want] = ()
        if (
            call.padding_mode != "zeros"
            or call.max_bytes is not None
            or name not in NATIVE_DTYPES.values()
        ):
            return
        how = call.threads, call.method, call.activation
        chosen = native(geometry, want, name, *how, kept=call.kept)
        if chosen is None or chosen.activation != call.activation:
            return
        if needs_no_limit(geometry, want, name, chosen):
            # By a weak reference: the engine's plan cache decides how many plans live.
            self._plans[want] = target(), weakref.ref(chosen)


CacheEntry = list[BoundCall]
"""The bound call of some shapes, type and keywords; empty before the first such call."""


def cache_entry(a: Any, b: Any, keywords: tuple[Any, ...]) -> CacheEntry | None:
    """Return the entry for such a call, to be read or filled; None if the call is not cached.

    Cached are NumPy arrays of one floating type, with keywords that `is_cache_key` accepts.
    """
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return None
    dtype = a.dtype
    if dtype != b.dtype or dtype not in NATIVE_DTYPES:
        return None
    if not (_SCALARS.issuperset(map(type, keywords)) or all(map(is_cache_key, keywords))):
        return None
    return _entry(a.shape, b.shape, dtype, *keywords)


@lru_cache(maxsize=256, typed=True)
def _entry(*_: Any) -> CacheEntry:
    return []


def solve_and_cache(
    entry: CacheEntry | None,
    want: Letter,
    geometry: Geometry,
    a: A,
    b: A,
    bias: A | None,
    call: Call,
    out: A | None,
) -> A:
    """Return what `solve_for` returns, and put the bound call into its entry, if it has one."""
    if entry is None:
        return solve_for(want, geometry, a, b, bias, call, out)  # type: ignore[no-any-return]
    if not entry:
        entry.append(BoundCall(geometry, a.dtype, call))  # type: ignore[attr-defined]
    return entry[0].solve(want, a, b, bias, out)  # type: ignore[no-any-return]
