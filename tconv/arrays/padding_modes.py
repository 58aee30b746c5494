"""Padding modes of a convolution's input, and their transposes.

``conv`` with a padding mode first pads y: circular continues it periodically, reflect mirrors it at
the outermost samples, replicate repeats them. ``conv_transpose`` ends with the transposed pad: it
adds each padded cell to the cell from which `pad` copies.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["PADDING_MODES", "PaddingMode", "pad", "transposed_pad", "transposed_pad_factor"]

Pairs = Sequence[tuple[int, int]]
Step = Callable[[Any, Any, int, int, int], Any]
"""A function of the array library, an array, an axis, and the cells at its begin and end."""


class PaddingMode(NamedTuple):
    """A padding mode along one axis."""

    pad: Step
    transposed_pad: Step
    reaches_any_size: bool = False  # may pad by as many cells as the axis has, and more


def pad(xp: Any, y: Any, mode: str, pairs: Pairs, first_axis: int) -> Any:
    """Lengthen the axes from `first_axis` on by (begin, end) cells each.

    >>> pad(np, np.array([1, 2, 3]), "reflect", [(2, 1)], 0)
    array([3, 2, 1, 2, 3, 2])
    """
    row = PADDING_MODES[mode]
    assert row is not None, "zeros are no business of this function"
    for axis, (begin, end) in enumerate(pairs, first_axis):
        y = row.pad(xp, y, axis, begin, end)
    return y


def transposed_pad(xp: Any, full: Any, mode: str, pairs: Pairs, first_axis: int) -> Any:
    """Add each padded cell to the cell from which `pad` copies: the transpose of `pad`.

    >>> transposed_pad(np, np.array([1, 1, 1, 1, 1, 1]), "reflect", [(2, 1)], 0)
    array([1, 3, 2])
    """
    row = PADDING_MODES[mode]
    assert row is not None, "zeros are no business of this function"
    for axis, (begin, end) in enumerate(pairs, first_axis):
        full = row.transposed_pad(xp, full, axis, begin, end)
    return full


def transposed_pad_factor(pairs: Pairs) -> int:
    """Upper bound of the cells that `transposed_pad` adds into one."""
    factor = 1
    for begin, end in pairs:
        factor *= 1 + begin + end
    return factor


def _cut(array: Any, axis: int, start: int, stop: int) -> Any:
    return array[(*[slice(None)] * axis, slice(start, stop), ...)]


def _pad_circular(xp: Any, y: Any, axis: int, begin: int, end: int) -> Any:
    size = y.shape[axis]
    head = _cut(y, axis, size - begin % size, size)
    tail = _cut(y, axis, 0, end % size)
    return xp.concat([head, *[y] * (begin // size + 1 + end // size), tail], axis=axis)


def _transposed_circular(xp: Any, full: Any, axis: int, begin: int, end: int) -> Any:
    size = full.shape[axis] - begin - end
    stop = full.shape[axis] - end % size
    head, tail = _cut(full, axis, 0, begin % size), _cut(full, axis, stop, full.shape[axis])
    whole = _cut(full, axis, begin % size, stop)  # a whole number of periods
    periods = whole.shape[axis] // size
    whole = xp.reshape(whole, (*full.shape[:axis], periods, size, *full.shape[axis + 1 :]))
    y = xp.sum(whole, axis=axis, dtype=full.dtype)
    return _add_at(xp, _add_at(xp, y, head, axis, size - begin % size), tail, axis, 0)


def _pad_reflect(xp: Any, y: Any, axis: int, begin: int, end: int) -> Any:
    size = y.shape[axis]
    head = xp.flip(_cut(y, axis, 1, begin + 1), axis=axis)
    tail = xp.flip(_cut(y, axis, size - 1 - end, size - 1), axis=axis)
    return xp.concat([head, y, tail], axis=axis)


def _transposed_reflect(xp: Any, full: Any, axis: int, begin: int, end: int) -> Any:
    size = full.shape[axis] - begin - end
    head = xp.flip(_cut(full, axis, 0, begin), axis=axis)
    tail = xp.flip(_cut(full, axis, begin + size, begin + size + end), axis=axis)
    y = _cut(full, axis, begin, begin + size)
    y = _add_at(xp, y, head, axis, 1)
    return _add_at(xp, y, tail, axis, size - 1 - end)


def _pad_replicate(xp: Any, y: Any, axis: int, begin: int, end: int) -> Any:
    size = y.shape[axis]
    shape = list(y.shape)
    shape[axis] = begin
    head = xp.broadcast_to(_cut(y, axis, 0, 1), tuple(shape))
    shape[axis] = end
    tail = xp.broadcast_to(_cut(y, axis, size - 1, size), tuple(shape))
    return xp.concat([head, y, tail], axis=axis)


def _transposed_replicate(xp: Any, full: Any, axis: int, begin: int, end: int) -> Any:
    size = full.shape[axis] - begin - end
    head = xp.sum(_cut(full, axis, 0, begin), axis=axis, keepdims=True, dtype=full.dtype)
    tail = _cut(full, axis, begin + size, begin + size + end)
    tail = xp.sum(tail, axis=axis, keepdims=True, dtype=full.dtype)
    y = _cut(full, axis, begin, begin + size)
    return _add_at(xp, _add_at(xp, y, head, axis, 0), tail, axis, size - 1)


def _add_at(xp: Any, y: Any, part: Any, axis: int, start: int) -> Any:
    """Return y with `part` added to its cells from `start` on, as a new array."""
    stop = start + part.shape[axis]
    middle = _cut(y, axis, start, stop) + part
    pieces = [_cut(y, axis, 0, start), middle, _cut(y, axis, stop, y.shape[axis])]
    return xp.concat(pieces, axis=axis)


PADDING_MODES: dict[str, PaddingMode | None] = {
    "zeros": None,  # which the engine and the portable path compute themselves
    "circular": PaddingMode(_pad_circular, _transposed_circular, reaches_any_size=True),
    "reflect": PaddingMode(_pad_reflect, _transposed_reflect),
    "replicate": PaddingMode(_pad_replicate, _transposed_replicate),
}
"""All that a padding mode is: one row here, and its line in the docstrings that list them."""
