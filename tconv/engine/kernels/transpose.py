"""Transposition: batches of matrices, and squares of vectors in registers.

    while (task := counter++) < tasks:                # a block of one image
        for row, column in squares of the block:
            to[image, column:, row:][:lanes, :lanes] = x[image, row:, column:][:lanes, :lanes].T

Channels last, an image is a matrix of cells by channels; channels first, of channels by cells. So
one kernel reorders both ways.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR, Module, Value
from tconv.engine.kernels.limits import QUAD_BYTES
from tconv.system.allocator import empty
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = [
    "empty_lines",
    "even_odd_orders",
    "pick_lanes",
    "run_transpose",
    "transpose_arguments",
    "transpose_out",
    "transpose_vectors",
]

_ARGUMENTS = Record(
    pointers=("x", "to", "counter"),
    words=(
        *("tasks", "row_blocks", "column_blocks", "rows", "columns", "block_rows", "block_columns"),
        "streams",
    ),
)
# So much has left the near caches before anybody reads it. With non-temporal stores 2**24 bytes and
# more take 0.5 to 1.1 times as long, and 0.2 where channels lie a power of two apart (Xeon, 2
# cores).
_STREAMED_BYTES = 2**24
_SMALL_BYTES = 2**16  # written soon, aligned or not
# 15 to 25 GB/s are read and as many written (Xeon, 2 cores). Blocks within 10 % of these are as
# fast; much longer ones, or ones of 16 rows or columns, take up to 1.5 times as long.
_BLOCK, _FEW_BLOCK = (256, 64), 4096  # the longer side first
_FEW = (1, 2, 3, 4)  # rows or columns of a matrix that is interleaved or separated instead


def run_transpose(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run_transpose(arguments, thread)``: take blocks of images until there are none."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    f = _ARGUMENTS.load(code, a["arguments"])
    rows, columns = f["rows"], f["columns"]
    shortest = code.least(rows, columns)
    streams = _may_stream(code, f["to"], f["streams"])
    is_wide = code.is_less(element.lanes - 1, shortest)
    is_narrow = code.both(code.is_less(shortest, element.lanes), code.is_less(max(_FEW), shortest))
    with code.tasks(f["counter"], f["tasks"]) as task:
        rest, column_block = code.divmod(task, f["column_blocks"])
        image, row_block = code.divmod(rest, f["row_blocks"])
        start = code.mul(image, code.mul(rows, columns))
        x, to = code.at(f["x"], start), code.at(f["to"], start)
        block = [
            _run(code, row_block, f["block_rows"], rows),
            _run(code, column_block, f["block_columns"], columns),
        ]
        for side in (0, 1):
            for count in _FEW:
                with code.when(code.is_equal(f[("rows", "columns")[side]], count)):
                    _transpose_few(
                        code, x, to, block[1 - side], count, (rows, columns)[1 - side], side
                    )
        with code.when(is_narrow), _squares(code, block) as (row, column):
            _transpose_some(code, x, to, (row, column), (rows, columns))
        for is_chosen, store in (
            (code.is_equal(streams, 0), code.store_vector),
            (code.is_equal(streams, 1), code.stream_vector),
        ):
            with code.when(code.both(is_wide, is_chosen)), _squares(code, block) as (row, column):
                _transpose_all(code, x, to, (row, column), (rows, columns), store)
    code.fence()
    code.end()


def _may_stream(code: Code, to: Value, streams: Value) -> Value:
    """Return `streams` if a vector is a cache line and `to` is aligned to one, else 0."""
    if code.element.lanes * code.element.bytes != CACHE_LINE_BYTES:
        return code.index(0)
    place = code.builder.ptrtoint(to, I64)
    return code.pick(code.is_equal(code.divmod(place, CACHE_LINE_BYTES)[1], 0), streams, 0)


def _run(code: Code, number: Value, size: Value, total: Value) -> tuple[Value, Value]:
    """Return where the block of this number begins and ends."""
    start = code.mul(number, size)
    return start, code.least(code.add(start, size), total)


@contextmanager
def _squares(code: Code, block: list[tuple[Value, Value]]) -> Iterator[tuple[Value, Value]]:
    """``for row, column in squares``, line by line of squares as wide as a cache line."""
    lanes, line = code.element.lanes, CACHE_LINE_BYTES // code.element.bytes
    (row, last_row), (column, last_column) = block
    is_tall = code.is_less(code.sub(last_column, column), code.sub(last_row, row))
    start, stop, long_start, long_stop = (
        code.pick(is_tall, a, b)
        for a, b in zip((column, last_column, row, last_row), (*block[0], *block[1]), strict=True)
    )
    with code.loop(stop, start, line) as short, code.loop(long_stop, long_start, line) as long:
        r, c = code.pick(is_tall, long, short), code.pick(is_tall, short, long)
        with (
            code.loop(code.least(code.add(r, line), last_row), r, lanes) as row,
            code.loop(code.least(code.add(c, line), last_column), c, lanes) as column,
        ):
            yield row, column


def _transpose_all(
    code: Code,
    x: Value,
    to: Value,
    place: tuple[Value, Value],
    size: tuple[Value, Value],
    store: Callable[[Value, Value, Value], None],
) -> None:
    """Transpose one square of vectors; the last ones end where the matrix ends.

    The part that such a square shares with its neighbour is written twice, with the same elements.
    """
    lanes, (rows, columns) = code.element.lanes, size
    row, column = (
        code.least(first, code.sub(total, lanes)) for first, total in zip(place, size, strict=True)
    )
    x = code.at(x, code.add(code.mul(row, columns), column))
    to = code.at(to, code.add(code.mul(column, rows), row))
    found = [code.load_vector(x, code.mul(columns, n)) for n in range(lanes)]
    for n, vector in enumerate(transpose_vectors(code, found)):
        store(vector, to, code.mul(rows, n))


def _transpose_some(
    code: Code, x: Value, to: Value, place: tuple[Value, Value], size: tuple[Value, Value]
) -> None:
    """Transpose one square under masks, in a matrix that is narrower than a vector."""
    (row, column), (rows, columns) = place, size
    x_lanes = code.first_lanes(code.sub(columns, column))
    to_lanes = code.first_lanes(code.sub(rows, row))
    found = []
    for n in range(code.element.lanes):
        source = code.least(code.add(row, n), code.sub(rows, 1))  # beyond the end, the last again
        source = code.add(code.mul(source, columns), column)
        found.append(code.load_lanes(code.at(x, source), x_lanes))
    for n, vector in enumerate(transpose_vectors(code, found)):
        target = code.add(column, n)
        with code.when(code.is_less(target, columns)):
            target = code.at(to, code.add(code.mul(target, rows), row))
            code.store_lanes(vector, target, to_lanes)


def _transpose_few(
    code: Code,
    x: Value,
    to: Value,
    run: tuple[Value, Value],
    count: int,
    length: Value,
    side: int,
) -> None:
    """Interleave `count` rows of this length (side 0), or separate as many columns (side 1)."""
    lanes, (start, stop) = code.element.lanes, run
    whole = code.add(start, code.mul(code.div(code.sub(stop, start), lanes), lanes))

    def places(cell: Value) -> tuple[list[Value], list[Value]]:
        """Return the offsets of the vectors of rows, and those of columns."""
        long = [code.add(code.mul(length, n), cell) for n in range(count)]
        return long, [code.add(code.mul(cell, count), n * lanes) for n in range(count)]

    with code.loop(whole, start, lanes) as cell:
        sources, targets = places(cell)[:: 1 - 2 * side]
        vectors = [code.load_vector(x, source) for source in sources]
        for v, target in enumerate(targets):
            wanted = range(v, count * lanes, count) if side else range(v * lanes, (v + 1) * lanes)
            order = [n if side else n % count * lanes + n // count for n in wanted]
            code.store_vector(pick_lanes(code, vectors, order), to, target)
    with code.loop(stop, whole) as cell:
        for n, source in enumerate(places(cell)[0]):
            pair = source, code.add(code.mul(cell, count), n)
            code.store(code.load(x, pair[side]), to, pair[1 - side])


def pick_lanes(code: Code, vectors: list[Value], order: list[int]) -> Value:
    """Return the vector of the lanes `order`, counted through all of the vectors."""
    lanes, found = code.element.lanes, vectors[0]
    taken = [n if n < lanes else 0 for n in order]
    for v, vector in enumerate(vectors[1:], 1):
        here = [n // lanes == v for n in order]
        pick = [
            lanes + n % lanes if new else old
            for n, new, old in zip(order, here, taken, strict=True)
        ]
        found, taken = code.shuffle(found, vector, pick), list(range(lanes))
    return found


def transpose_vectors(code: Code, vectors: list[Value]) -> list[Value]:
    """Return the columns of as many rows as a vector has lanes.

    First it transposes within 16 bytes, then it exchanges 16 bytes.
    """
    lanes = code.element.lanes
    quad = QUAD_BYTES // code.element.bytes
    quads = [_transpose_groups(code, vectors[n : n + quad], 1, quad) for n in range(0, lanes, quad)]
    by_lane = [
        _transpose_groups(code, list(column), quad, lanes) for column in zip(*quads, strict=True)
    ]
    return [column for columns in zip(*by_lane, strict=True) for column in columns]


def _transpose_groups(code: Code, vectors: list[Value], width: int, span: int) -> list[Value]:
    """Transpose groups of `width` lanes within every `span` of lanes.

    ``a0 a1, b0 b1`` become ``a0 b0, a1 b1``. More vectors are paired: the even groups of each pair
    are transposed, then the odd ones.
    """
    if len(vectors) == 1:
        return vectors
    pairs = [*zip(vectors[::2], vectors[1::2], strict=True)]
    even, odd = (
        _transpose_groups(code, [code.shuffle(a, b, order) for a, b in pairs], width, span)
        for order in even_odd_orders(code.element.lanes, width, span)
    )
    return [vector for pair in zip(even, odd, strict=True) for vector in pair]


def even_odd_orders(lanes: int, width: int, span: int) -> tuple[list[int], list[int]]:
    """Return shuffles of two vectors to their even groups of `width` lanes, and to their odd ones.

    Within every `span` of lanes those of the first vector come first.

    >>> even_odd_orders(4, 1, 4)
    ([0, 2, 4, 6], [1, 3, 5, 7])
    """
    even, odd = (
        [
            source + first + group * width + n
            for first in range(0, lanes, span)
            for source in (0, lanes)
            for group in range(parity, span // width, 2)
            for n in range(width)
        ]
        for parity in (0, 1)
    )
    return even, odd


def transpose_out(module: Module, name: str, element: ElementType) -> None:
    """Emit ``to[:columns, :rows] = c[:rows, :columns].T``; c is read in whole vectors."""
    sizes = dict.fromkeys(("pitch", "ldc", "rows", "columns"), I64)
    code, a = begin(module, name, {"to": PTR, "c": PTR} | sizes, element)
    lanes = element.lanes
    with code.loop(a["columns"], step=lanes) as column, code.loop(a["rows"], step=lanes) as row:
        c = code.at(a["c"], code.add(code.mul(row, a["ldc"]), column))
        to = code.at(a["to"], code.add(code.mul(column, a["pitch"]), row))
        found = [code.load_vector(c, code.mul(a["ldc"], n)) for n in range(lanes)]
        found = transpose_vectors(code, found)
        rows, columns = code.sub(a["rows"], row), code.sub(a["columns"], column)
        is_whole = code.is_less(lanes - 1, code.least(rows, columns))
        with code.if_else(is_whole) as (whole, part):
            with whole:
                for n, vector in enumerate(found):
                    code.store_vector(vector, to, code.mul(a["pitch"], n))
            with part:
                some = code.first_lanes(rows)
                for n, vector in enumerate(found):
                    with code.when(code.is_less(n, columns)):
                        code.store_lanes(vector, code.at(to, code.mul(a["pitch"], n)), some)
    code.end()


def empty_lines(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array as `empty` does, aligned to a cache line.

    Matrices whose sides are multiples of a line are then written line by line, each once: that
    takes 0.6 to 0.9 times as long.
    """
    found = empty(shape, dtype)
    is_aligned = found.ctypes.data % CACHE_LINE_BYTES == 0  # as all large ones are
    if is_aligned or found.nbytes <= _SMALL_BYTES:
        return found
    size, line = found.size, CACHE_LINE_BYTES // found.itemsize
    del found
    memory = np.empty(size + line, dtype)
    start = -memory.ctypes.data % CACHE_LINE_BYTES // memory.itemsize
    return memory[start : start + size].reshape(shape)


def transpose_arguments(images: int, rows: int, columns: int, itemsize: int) -> NDArray[np.int64]:
    """Return the arguments of `run_transpose` but for x, to and counter, which are 0."""
    is_large = images * rows * columns * itemsize >= _STREAMED_BYTES
    long, short = (_FEW_BLOCK, _BLOCK[1]) if min(rows, columns) <= max(_FEW) else _BLOCK
    block_rows, block_columns = (long, short) if rows > columns else (short, long)
    row_blocks, column_blocks = ceil(rows / block_rows), ceil(columns / block_columns)
    fields = {
        "tasks": images * row_blocks * column_blocks,
        "row_blocks": row_blocks,
        "column_blocks": column_blocks,
        "rows": rows,
        "columns": columns,
        "block_rows": block_rows,
        "block_columns": block_columns,
        "streams": int(is_large and rows * itemsize % CACHE_LINE_BYTES == 0),
    }
    return _ARGUMENTS.pack(_ARGUMENTS.addresses() | fields)
