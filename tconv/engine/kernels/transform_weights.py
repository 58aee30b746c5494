"""Winograd filter transform, of a few channels before they are packed.

for pairs of channels of x and y, some vectors of pairs at a time:
    taps[t] = w[pairs, t]                                           # transposed
    for n in elements of the transformed filter:
        transformed[n, pairs] = sum of factor * taps[tap] over the factors of n

The matrix of the transform is sparse: `transform_factors` lists its factors by element.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import I64, Value
from tconv.engine.kernels.transpose import transpose_vectors

__all__ = ["TRANSFORM_ARGUMENTS", "VECTORS", "transform", "transform_factors"]

TRANSFORM_ARGUMENTS = Record(
    pointers=("factor_starts", "factor_taps", "factors"),
    words=(
        *("taps", "elements", "transformed_size", "transformed_pitch", "transformed_run"),
        *("weight_run", "is_by_channel"),
    ),
)
"""The part of a packing driver's arguments that `transform` reads."""
VECTORS = 2  # of pairs, which share one look-up of the factors


def transform_factors(matrix: NDArray[Any], lanes: int) -> list[NDArray[Any]]:
    """Return where the factors of each element begin, the offsets of their taps, and the factors.

    >>> for each in transform_factors(np.array([[1.0, 0.5], [0.0, 0.5]]), lanes=4):
    ...     print(each)
    [0 1 3]
    [0 0 8]
    [1.  0.5 0.5]
    """
    elements, taps = np.nonzero(matrix.T)
    starts = np.searchsorted(elements, np.arange(matrix.shape[1] + 1))
    return [starts.astype(np.int64), taps * (VECTORS * lanes), matrix[taps, elements]]


def transform(
    code: Code,
    f: dict[str, Value],
    transformed: Value,
    weight: Value,
    channels: Value,
    outputs: Value,
) -> None:
    """Emit the transform of some channels that are summed and of some outputs, run by run of pairs.

    The pairs of a run are contiguous: the outputs of one channel, or the channels of one output.
    `transformed` is (elements, runs, pairs), each run padded to whole vectors.
    """
    is_by_channel = code.is_equal(f["is_by_channel"], 1)
    runs = code.pick(is_by_channel, channels, outputs)
    pairs = code.pick(is_by_channel, outputs, channels)
    lanes = code.element.lanes
    taps = code.at(transformed, code.mul(f["elements"], f["transformed_pitch"]))
    with code.loop(runs) as run, code.loop(pairs, step=VECTORS * lanes) as first:
        source = code.at(weight, code.mul(run, f["weight_run"]))
        _load_taps(code, f["taps"], taps, source, first, pairs)
        to = code.at(transformed, code.add(code.mul(run, f["transformed_run"]), first))
        with code.loop(f["elements"]) as n:
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
                of_element = code.at(to, code.mul(n, f["transformed_pitch"]))
                code.store_vector(total, of_element, v * lanes)


def _load_taps(
    code: Code, taps: Value, to: Value, source: Value, first: Value, pairs: Value
) -> None:
    """Emit ``to[tap] = source[first:][:lanes of all vectors, tap]``; beyond the last pair, that."""
    lanes = code.element.lanes
    is_wide = code.is_less(lanes - 1, taps)
    for v in range(VECTORS):
        rows = []
        for n in range(lanes):
            pair = code.least(code.add(first, v * lanes + n), code.sub(pairs, 1))
            rows.append(code.at(source, code.mul(pair, taps)))

        def store(found: list[Value], tap: Value, v: int = v) -> None:
            for n, vector in enumerate(transpose_vectors(code, found)):
                place = code.mul(code.add(tap, n), VECTORS * lanes)
                code.store_vector(vector, to, code.add(place, v * lanes))

        with code.when(is_wide), code.loop(taps, step=lanes) as following:
            tap = code.least(following, code.sub(taps, lanes))  # the last ones overlap
            store([code.load_vector(row, tap) for row in rows], tap)
        with code.when(code.builder.not_(is_wide)):
            some = code.first_lanes(taps)
            store([code.load_lanes(row, some) for row in rows], code.index(0))
