"""HOW CHANNELS CHANGE PLACES WITH CELLS: the matrix of every image is transposed, natively.

    while (item := counter++) < items:                # a block of an image
        for row, column in tiles of the block:
            to[image, column:, row:][:lanes, :lanes] = x[image, row:, column:][:lanes, :lanes].T

Channels last, an image is cells by channels; channels first, it is channels by cells. So one kernel
serves both ways.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from tconv.engine.ir import I64, PTR, Code, Number, begin

__all__ = ["TRANSPOSE_FIELDS", "transpose_arguments", "transpose_run"]

_POINTERS = ("x", "to", "counter")
TRANSPOSE_FIELDS = (
    *("items", "row_blocks", "column_blocks", "rows", "columns", "block_rows", "block_columns"),
)
_LINE_BYTES = 64  # of the processor's caches
_QUAD_BYTES = 16  # within which every processor shuffles in one step
_BLOCK_ROWS, _BLOCK_COLUMNS = 64, 64
Value = Any


def transpose_run(module: ir.Module, name: str, number: Number) -> None:
    """Emit ``transpose_run(arguments, thread)``: take blocks of images until there are none."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, number)
    p = {name: code.load(a["arguments"], n, PTR) for n, name in enumerate(_POINTERS)}
    f = {
        name: code.load(a["arguments"], len(_POINTERS) + n, I64)
        for n, name in enumerate(TRANSPOSE_FIELDS)
    }
    rows, columns = f["rows"], f["columns"]
    is_narrow = code.is_less(code.least(rows, columns), number.lanes)
    with code.forever() as done:
        item = code.builder.atomic_rmw("add", p["counter"], code.index(1), "monotonic")
        code.leave_when(code.is_less(code.sub(f["items"], 1), item), done)
        rest, column_block = code.divmod(item, f["column_blocks"])
        image, row_block = code.divmod(rest, f["row_blocks"])
        start = code.mul(image, code.mul(rows, columns))
        x, to = code.at(p["x"], start), code.at(p["to"], start)
        block = [
            _run(code, row_block, f["block_rows"], rows),
            _run(code, column_block, f["block_columns"], columns),
        ]
        with code.builder.if_else(is_narrow) as (narrow, wide):
            with narrow, _tiles(code, block) as (row, column):
                _transpose_some(code, x, to, (row, column), (rows, columns))
            with wide, _tiles(code, block) as (row, column):
                _transpose_all(code, x, to, (row, column), (rows, columns))
    code.end()


def _run(code: Code, number: Value, size: Value, total: Value) -> tuple[Value, Value]:
    """Where the block of this number begins and ends."""
    start = code.mul(number, size)
    return start, code.least(code.add(start, size), total)


@contextmanager
def _tiles(code: Code, block: list[tuple[Value, Value]]) -> Iterator[tuple[Value, Value]]:
    """``for row, column in tiles``: those of a square as wide as a cache line, then the next."""
    (row, last_row), (column, last_column) = block
    lanes, line = code.number.lanes, _LINE_BYTES // code.number.bytes
    with (
        code.loop(last_row, row, line) as r,
        code.loop(last_column, column, line) as c,
        code.loop(code.least(code.add(r, line), last_row), r, lanes) as row,
        code.loop(code.least(code.add(c, line), last_column), c, lanes) as column,
    ):
        yield row, column


def _transpose_all(
    code: Code, x: Value, to: Value, place: tuple[Value, Value], size: tuple[Value, Value]
) -> None:
    """Transpose a tile, the last ones being those that end where the matrix does.

    What such a tile shares with its neighbour is written twice, with the same numbers.
    """
    lanes, (rows, columns) = code.number.lanes, size
    row, column = (
        code.least(first, code.sub(total, lanes)) for first, total in zip(place, size, strict=True)
    )
    x = code.at(x, code.add(code.mul(row, columns), column))
    to = code.at(to, code.add(code.mul(column, rows), row))
    found = [code.load_vector(x, code.mul(columns, n)) for n in range(lanes)]
    for n, vector in enumerate(_transposed(code, found)):
        code.store_vector(vector, to, code.mul(rows, n))


def _transpose_some(
    code: Code, x: Value, to: Value, place: tuple[Value, Value], size: tuple[Value, Value]
) -> None:
    """Transpose a tile, or what there is of it in a matrix that is narrower than a vector."""
    (row, column), (rows, columns) = place, size
    x_lanes = code.first_lanes(code.sub(columns, column))
    to_lanes = code.first_lanes(code.sub(rows, row))
    found = []
    for n in range(code.number.lanes):
        source = code.least(code.add(row, n), code.sub(rows, 1))  # beyond the end, the last again
        source = code.add(code.mul(source, columns), column)
        found.append(code.load_lanes(code.at(x, source), x_lanes))
    for n, vector in enumerate(_transposed(code, found)):
        target = code.add(column, n)
        with code.when(code.is_less(target, columns)):
            target = code.at(to, code.add(code.mul(target, rows), row))
            code.store_lanes(vector, target, to_lanes)


def _transposed(code: Code, vectors: list[Value]) -> list[Value]:
    """The columns of as many rows as a vector has lanes.

    First of every quarter of 16 bytes, and then quarters change places.
    """
    lanes = code.number.lanes
    quad = _QUAD_BYTES // code.number.bytes
    quads = [_sorted(code, vectors[n : n + quad], 1, quad) for n in range(0, lanes, quad)]
    by_lane = [_sorted(code, list(column), quad, lanes) for column in zip(*quads, strict=True)]
    return [column for columns in zip(*by_lane, strict=True) for column in columns]


def _sorted(code: Code, vectors: list[Value], width: int, span: int) -> list[Value]:
    """Transpose, within every `span` of lanes, what are `width` lanes of each vector.

    ``a0 a1, b0 b1`` become ``a0 b0, a1 b1``; of more vectors those at even places and those at odd
    ones are brought together from pairs, and then each half likewise.
    """
    if len(vectors) == 1:
        return vectors
    lanes, halves = code.number.lanes, []
    for parity in (0, 1):
        order = [
            source + first + block * width + n
            for first in range(0, lanes, span)
            for source in (0, lanes)
            for block in range(parity, span // width, 2)
            for n in range(width)
        ]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        halves.append(_sorted(code, [code.shuffle(a, b, order) for a, b in pairs], width, span))
    return [vector for pair in zip(*halves, strict=True) for vector in pair]


def transpose_arguments(images: int, rows: int, columns: int) -> NDArray[np.int64]:
    """Arguments of `transpose_run` but x, to and counter."""
    row_blocks, column_blocks = ceil(rows / _BLOCK_ROWS), ceil(columns / _BLOCK_COLUMNS)
    fields = {
        "items": images * row_blocks * column_blocks,
        "row_blocks": row_blocks,
        "column_blocks": column_blocks,
        "rows": rows,
        "columns": columns,
        "block_rows": _BLOCK_ROWS,
        "block_columns": _BLOCK_COLUMNS,
    }
    return np.array([0] * len(_POINTERS) + [fields[name] for name in TRANSPOSE_FIELDS], np.int64)
