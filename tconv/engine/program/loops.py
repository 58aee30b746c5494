"""Elementwise loops: an expression of strided operands, the axes they run over, and their tasks.

    for task in tasks:                                   # some rows, some columns of each
        for row in rows:                                 # an index of every outer axis
            for n in range(0, columns, lanes):           # the innermost axis
                outputs[row, n:] = expression(operands[row, n:])

Axes are merged where all operands run on from one to the next, so a bias for each channel of images
makes two loops: rows are channels, columns cells. An operand that does not change along the
innermost axis is read once a row.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from math import ceil, lcm, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_OUTER_AXES", "Axes", "Expression", "LoopShape", "merge_axes"]

MOST_OUTER_AXES = 5
_TASK_ELEMENTS = 2**13  # of each operand: 32 KiB of float32
_LEAST_COLUMNS = 2**11

Instruction = tuple[str, tuple[int, ...]]
Strides = tuple[int, ...]


class Expression(NamedTuple):
    """Instructions on values: the operands come first, each instruction adds one.

    `stored` are the values that are written, one for each output.

    >>> Expression(2, (("add", (0, 1)), ("relu", (2,))), (3,)).digest
    '50c6191cff72'
    """

    operands: int
    instructions: tuple[Instruction, ...]
    stored: tuple[int, ...]

    @property
    def digest(self) -> str:
        """A name for kernels that compute it."""
        return _digest(self)


@lru_cache(maxsize=1024)
def _digest(expression: Expression) -> str:
    return sha256(repr(tuple(expression)).encode()).hexdigest()[:12]


class Axes(NamedTuple):
    """Sizes of axes, and of each operand its elements from index to index along them."""

    sizes: tuple[int, ...]
    strides: tuple[Strides, ...]


def merge_axes(
    sizes: Sequence[int], strides: Sequence[Strides], repeats: int = 1, outputs: int = 0
) -> Axes:
    """Drop axes of one index, and merge two axes where every operand runs on from one to the next.

    With `repeats` the innermost axis stays as it is. The last `outputs` operands have a stride of 1
    along the innermost axis, which may have one index.

    >>> merge_axes((1, 3, 4, 5), [(60, 20, 5, 1), (3, 1, 0, 0)])
    Axes(sizes=(3, 20), strides=((20, 1), (1, 0)))
    >>> merge_axes((1, 1), [(1, 1)])
    Axes(sizes=(1,), strides=((1,),))
    """
    kept = list[tuple[int, Strides]]()  # from the innermost axis outwards
    for n in range(len(sizes) - 1, -1, -1):
        size, steps = sizes[n], tuple([of_one[n] for of_one in strides])
        if size == 1 and not (repeats > 1 and n == len(sizes) - 1):
            continue
        if kept and not (repeats > 1 and len(kept) == 1):
            inner_size, inner = kept[-1]
            if all(step == inner_size * each for step, each in zip(steps, inner, strict=True)):
                kept[-1] = size * inner_size, inner
                continue
        kept.append((size, steps))
    first = len(strides) - outputs
    if not kept or any(step != 1 for step in kept[0][1][first:]):
        kept.insert(0, (1, (1,) * len(strides)))
    kept.reverse()
    by_operand = zip(*(steps for _, steps in kept), strict=True)
    return Axes(tuple([size for size, _ in kept]), tuple(by_operand))


class LoopShape(NamedTuple):
    """What a kernel is compiled for besides its expression, and the words that it is called with.

    `reads` says how each operand is read along the innermost axis: "one" value for all, "row" as it
    lies, "pairs" every other element, "any" with a step of its own, or "each 2" for an element that
    is read twice, and so on.
    """

    reads: tuple[str, ...]
    outer: int
    words: tuple[int, ...]
    tasks: int

    @classmethod
    def of(cls, axes: Axes, threads: int, repeats: Sequence[int]) -> "LoopShape":
        """Find out how operands are read, and share the elements among tasks.

        Outputs count among the operands; their innermost stride is 1. ``repeats`` says how often
        each element of an operand is read.
        """
        *outer, columns = axes.sizes
        rows, reads, steps = prod(outer), list[str](), list[int]()
        for n, strides in enumerate(axes.strides):
            reads.append(_reading(strides[-1], repeats[n], columns))
            steps.append(strides[-1])
        elements = rows * columns
        pieces = max(1, min(ceil(elements / _TASK_ELEMENTS), 64 * threads))
        of_rows = min(rows, pieces)
        row_block = ceil(rows / of_rows)
        blocks = max(1, pieces // ceil(rows / row_block))
        column_block = columns
        if blocks > 1 and columns >= 2 * _LEAST_COLUMNS:
            # Whole vectors of operands that are read several times each, and of all others.
            unit = lcm(256, *repeats)
            column_block = max(_LEAST_COLUMNS // unit, ceil(columns / blocks / unit)) * unit
        column_blocks = ceil(columns / column_block)
        tasks = ceil(rows / row_block) * column_blocks
        head = (tasks, rows, row_block, columns, column_block, column_blocks)
        of_operands = [strides[:-1] for strides in axes.strides]
        words = (*head, *outer, *[each for strides in of_operands for each in strides], *steps)
        return cls(tuple(reads), len(outer), words, tasks)

    def array(self, pointers: int) -> NDArray[np.int64]:
        """The arguments of the kernel, with 0 for so many pointers."""
        return np.array([0] * pointers + list(self.words), np.int64)


def _reading(step: int, repeats: int, columns: int) -> str:
    if repeats > 1:
        return f"each {repeats}"
    if step == 0 or columns == 1:
        return "one" if step == 0 else "row"
    return {1: "row", 2: "pairs"}.get(step, "any")
