"""HOW NUMBERS OF TILINGS ARE MADE: of the taps of pairs of channels, before they are packed.

for pairs of channels, some vectors of them at a time:
    taps[t] = w[pairs, t]                                           # transposed
    for n in numbers of the tiling:
        made[n, pairs] = sum of factor * taps[tap] over its factors
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import I64, Value
from tconv.engine.kernels.transpose import transposed

__all__ = ["TRANSFORM_ARGUMENTS", "VECTORS", "factors", "make"]

TRANSFORM_ARGUMENTS = Record(
    pointers=("factor_starts", "factor_taps", "factors"),
    words=("taps", "numbers", "made_size", "made_pitch", "made_run", "weight_run", "is_by_channel"),
)
"""The part of a packing driver's arguments that `make` reads."""
VECTORS = 2  # of pairs, for which the factors are looked up once


def factors(matrix: NDArray[Any], lanes: int) -> list[NDArray[Any]]:
    """Where the factors of each number begin, the places of their taps, and they themselves.

    >>> for each in factors(np.array([[1.0, 0.5], [0.0, 0.5]]), lanes=4):
    ...     print(each)
    [0 1 3]
    [0 0 8]
    [1.  0.5 0.5]
    """
    numbers, taps = np.nonzero(matrix.T)
    starts = np.searchsorted(numbers, np.arange(matrix.shape[1] + 1))
    return [starts.astype(np.int64), taps * (VECTORS * lanes), matrix[taps, numbers]]


def make(
    code: Code, f: dict[str, Value], made: Value, weight: Value, channels: Value, outputs: Value
) -> None:
    """Make the numbers of some channels that are summed and of some outputs, run by run of pairs.

    In a run pairs lie together: the outputs of a channel, or the channels of an output. `made` is
    (numbers, runs, pairs), each run as long as whole vectors are.
    """
    is_by_channel = code.is_equal(f["is_by_channel"], 1)
    runs = code.pick(is_by_channel, channels, outputs)
    pairs = code.pick(is_by_channel, outputs, channels)
    lanes = code.element.lanes
    taps = code.at(made, code.mul(f["numbers"], f["made_pitch"]))
    with code.loop(runs) as run, code.loop(pairs, step=VECTORS * lanes) as first:
        source = code.at(weight, code.mul(run, f["weight_run"]))
        _turn(code, f["taps"], taps, source, first, pairs)
        to = code.at(made, code.add(code.mul(run, f["made_run"]), first))
        with code.loop(f["numbers"]) as n:
            start, end = (code.load(f["factor_starts"], code.add(n, one), I64) for one in (0, 1))
            place, factor = code.at(f["factor_taps"], start, I64), code.at(f["factors"], start)
            carry = [*[code.element.zeros] * VECTORS, place, factor]
            with code.loop_carrying(code.sub(end, start), carry) as (carried, following):
                *totals, place, factor = carried
                tap = code.at(taps, code.load(place, kind=I64))
                many = code.splat(code.load(factor))
                for v, total in enumerate(totals):
                    some = code.load_vector(tap, v * lanes)
                    following.append(code.multiply_add(many, some, total))
                following += [code.at(place, 1, I64), code.at(factor, 1)]
            for v, total in enumerate(following[:VECTORS]):
                of_number = code.at(to, code.mul(n, f["made_pitch"]))
                code.store_vector(total, of_number, v * lanes)


def _turn(code: Code, taps: Value, to: Value, source: Value, first: Value, pairs: Value) -> None:
    """``to[tap] = source[first:][:lanes of all vectors, tap]``; beyond the last, that again."""
    lanes = code.element.lanes
    is_wide = code.is_less(lanes - 1, taps)
    for v in range(VECTORS):
        rows = []
        for n in range(lanes):
            pair = code.least(code.add(first, v * lanes + n), code.sub(pairs, 1))
            rows.append(code.at(source, code.mul(pair, taps)))

        def store(found: list[Value], tap: Value, v: int = v) -> None:
            for n, vector in enumerate(transposed(code, found)):
                place = code.mul(code.add(tap, n), VECTORS * lanes)
                code.store_vector(vector, to, code.add(place, v * lanes))

        with code.when(is_wide), code.loop(taps, step=lanes) as following:
            tap = code.least(following, code.sub(taps, lanes))  # the last overlap others
            store([code.load_vector(row, tap) for row in rows], tap)
        with code.when(code.builder.not_(is_wide)):
            some = code.first_lanes(taps)
            store([code.load_lanes(row, some) for row in rows], code.index(0))
