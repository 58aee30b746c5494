"""Offsets of the cells that phases read, in an array and in a panel."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import RESIDUE_CLASS
from tconv.engine.plan.phases import Phases

__all__ = [
    "grid",
    "im2col_table",
    "in_im2col_panel",
    "in_padded_panel",
    "residue_classes",
    "strides",
]

_Shifts = Sequence[Sequence[int]]
"""Along depth, height and width."""


def in_padded_panel(
    phases: Phases, shifts: _Shifts, sizes: tuple[int, int, int], channels: int
) -> NDArray[np.int64]:
    """Cells that all shifts read for the first q, in a padded panel.

    The panel has the residue classes one after the other, each of so many channels with planes and
    rows of these sizes.
    """
    places, within = [], []
    for axis, of_axis in zip(phases.axes, shifts, strict=True):
        found = [axis.residue(shift) for shift in of_axis]
        places.append([axis.high + back for back, _ in found])
        within.append([axis.residue_classes.index(first) for _, first in found])
    cells = grid(places, sizes)
    if phases.residue_classes > 1:
        number = grid(within, [len(axis.residue_classes) for axis in phases.axes])
        cells += number * (channels * prod(sizes))
    return cells


def in_im2col_panel(phases: Phases, shifts: _Shifts) -> NDArray[np.int64]:
    """Rows of all shifts in an im2col panel of one channel."""
    places = [
        [axis.shifts.index(n) for n in of_axis]
        for axis, of_axis in zip(phases.axes, shifts, strict=True)
    ]
    return grid(places, [len(axis.shifts) for axis in phases.axes])


def residue_classes(
    firsts: Sequence[Sequence[int]], sizes: Sequence[int], steps: Sequence[int]
) -> NDArray[np.int64]:
    """For every residue class where it begins in a channel, and its planes, rows and columns.

    Along each axis classes begin at `firsts`, of `sizes` cells with `steps` between them.
    """
    z, y, x = (
        [(first, max(0, -(-(size - first) // step))) for first in of_axis]
        for of_axis, size, step in zip(firsts, sizes, steps, strict=True)
    )
    _, rows, columns = sizes
    entries = [
        RESIDUE_CLASS.row(
            start=(plane * rows + row) * columns + column, depth=depth, height=height, width=width
        )
        for plane, depth in z
        for row, height in y
        for column, width in x
    ]
    return np.array(entries, np.int64)


def im2col_table(phases: Phases, batch: int, image_step: int) -> NDArray[np.int32]:
    """For an im2col panel: the cell that every shift reads for every lane, or -1."""
    cells, exist = np.zeros((), np.int64), np.ones((), np.bool_)
    for axis in phases.axes:
        shifts = np.array(axis.shifts)[:, np.newaxis]
        place = np.arange(axis.count) * axis.step - shifts  # (shifts, q)
        within = (place >= 0) & (place < axis.input)
        cells = cells[..., None, None] * axis.input + place
        exist = exist[..., None, None] & within
    order = (0, 2, 4, 1, 3, 5)  # (shifts of z, y, x; q of z, y, x)
    found = np.where(exist, cells, -1).transpose(order).reshape(phases.shifts, -1)
    images = np.arange(batch)[:, np.newaxis, np.newaxis] * image_step
    table = np.where(found < 0, -1, found + images).transpose(1, 0, 2)  # (shifts, N, q)
    return np.ascontiguousarray(table, np.int32).reshape(-1)


def grid(
    places: Sequence[Sequence[int] | NDArray[np.int64]], sizes: Sequence[int]
) -> NDArray[np.int64]:
    """Flat indices of all combinations of places along each axis.

    >>> grid([[0, 2], [1]], [3, 4])
    array([1, 9])
    """
    found = np.zeros(1, np.int64)
    for of_axis, size in zip(places, sizes, strict=True):
        if size > 1 or len(of_axis) != 1 or of_axis[0]:  # else nothing changes
            found = (found[:, np.newaxis] * size + np.array(of_axis, np.int64)).ravel()
    return found


def strides(letter: str, channels: int, groups: int, sizes: Sequence[int]) -> dict[str, int]:
    """Steps from image to image, group to group and so on, in cells."""
    names = ("batch", "group", "channel", "plane", "row")
    steps = (groups * channels, channels, 1)
    volume = prod(sizes)
    return {
        f"{letter}_{name}": step
        for name, step in zip(
            names, (*(step * volume for step in steps), sizes[1] * sizes[2], sizes[2]), strict=True
        )
    }
