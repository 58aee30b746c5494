"""WHAT IS REMEMBERED of calls: plans, by shapes, type and keywords."""

import weakref
from functools import lru_cache
from types import NoneType
from typing import Any, TypeVar

import numpy as np

import tconv.engine as engine
from tconv.arrays.dtypes import USUAL, dtype_name
from tconv.arrays.operands import check_out
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry, Letter
from tconv.ops.dispatch import Call, is_registered, native, needs_no_limit, solve_for

__all__ = ["CacheEntry", "BoundCall", "is_cache_key", "cache_entry", "solve_and_cache"]

A = TypeVar("A")

_PLAIN = frozenset({int, str, bool, NoneType})  # whose values never change


class BoundCall:
    """Contractions of one geometry, type and call, made again and again.

    What has gone well once takes the short way from then on, for NumPy arrays of such shapes and
    type. Whatever is out of the ordinary takes the long way, where all complaints are made.

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
        self._found: dict[Letter, tuple[Any, ...]] = {}  # nothing for what takes the long way

    def plan(self, want: Letter) -> Any:
        """The engine's plan if that is known; None if the long way is to be taken."""
        found = self._found.get(want)
        if not found:
            return None
        here, plan_of = found
        return None if here is not target() or is_registered("numpy") else plan_of()

    def run(self, want: Letter, a: A, b: Any, bias: Any = None, out: Any = None) -> A | None:
        """Return the result for operands of the right shapes and type, or None for the long way.

        Bias and `out` may be anything; b also a weight that was packed for the plan.
        """
        chosen, geometry = self.plan(want), self.geometry
        if chosen is None:
            return None
        if bias is not None:
            channels = geometry.out_channels if want == "y" else geometry.in_channels
            if (
                type(bias) is not np.ndarray
                or USUAL.get(bias.dtype) != self._dtype
                or bias.shape != (channels,)
            ):
                return None
        to = None
        if out is not None:
            to = check_out(out, np, geometry.shape_of(want), self._dtype, [a, b, bias])
        result: Any = engine.contract(geometry, want, a, b, bias=bias, out=to, plan=chosen)  # type: ignore[arg-type]
        return result if out is None else out  # type: ignore[no-any-return]

    def solve(self, want: Letter, a: Any, b: Any, bias: Any = None, out: Any = None) -> Any:
        """Return what `solve_for` does, from the second time on in less time."""
        result = self.run(want, a, b, bias, out)
        if result is None:
            result = solve_for(want, self.geometry, a, b, bias, self.call, out)
            self.bind(want)
        return result

    def bind(self, want: Letter) -> None:
        """Remember one that went well, if its next need not be held against the memory."""
        call, geometry, name = self.call, self.geometry, self._dtype
        if self._found.get(want) == ():
            return
        self._found[want] = ()
        if call.padding_mode != "zeros" or call.max_bytes is not None or name not in USUAL.values():
            return
        chosen = native(geometry, want, name, call.threads, call.method, call.activation)
        if chosen is None or chosen.activation != call.activation:
            return
        if needs_no_limit(geometry, want, name, engine.workspace_bytes(geometry, chosen)):
            # Weakly: how many plans are kept is for the engine to say.
            self._found[want] = target(), weakref.ref(chosen)


class CacheEntry:
    """What is remembered of a call of one of the public functions: nothing at first."""

    def __init__(self) -> None:
        self.bound: BoundCall | None = None

    def run(self, want: Letter, a: A, b: Any, bias: Any = None, out: Any = None) -> A | None:
        """Return the result for arrays of such shapes and type; None if that takes the long way."""
        bound = self.bound
        return None if bound is None else bound.run(want, a, b, bias, out)


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
    """Return what `solve_for` does, and tell that to what `cache_entry` gave."""
    result: A = solve_for(want, geometry, a, b, bias, call, out)
    if entry is not None:
        bound = BoundCall(geometry, a.dtype, call)  # type: ignore[attr-defined]
        bound.bind(want)
        entry.bound = bound
    return result


def cache_entry(a: Any, b: Any, keywords: tuple[Any, ...]) -> CacheEntry | None:
    """Return what is known of such a call, to be asked or to be told; None where it is unusual.

    Values that are equal may mean different things, as 1, 1.0 and True, and others may change.
    """
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return None
    dtype = a.dtype
    if dtype != b.dtype or dtype not in USUAL:
        return None
    if not (_PLAIN.issuperset(map(type, keywords)) or all(map(is_cache_key, keywords))):
        return None
    return _entry(a.shape, b.shape, dtype, *keywords)


def is_cache_key(value: Any) -> bool:
    """Whether a keyword can be told by its value and type from all that mean something else."""
    kind = type(value)
    return kind in _PLAIN or (kind is tuple and all(map(_is_plain_entry, value)))


def _is_plain_entry(value: Any) -> bool:
    """Of a tuple, whose entries are compared without their types: no True, which equals 1."""
    return type(value) is int or (type(value) is tuple and all(map(_is_plain_entry, value)))


@lru_cache(maxsize=256, typed=True)
def _entry(*_: Any) -> CacheEntry:
    return CacheEntry()
