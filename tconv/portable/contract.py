"""The three contractions on any array library, as matrix products over taps and phases.

The cells of one phase group (see phase_grid.py) are rows q of a stride-1 correlation, so each group
is one matrix product, over channels c or m, shifts j and phases r:

    y[m, r, q] = sum over c, j     w[c, m, k(j, r)] * x[c, q - shift(j)]        want "y"
    x[c, i]    = sum over m, r, j  w[c, m, k(j, r)] * y[m, r, i + shift(j)]     want "x"
    w[c, m, k(j, r)] = sum over n, q  x[c, q - shift(j)] * y[m, r, q]           want "w"

Either x or y takes part once per shift. The side with fewer elements is *windowed*: copied once per
shift. If that is the result, the product comes first and its windows are summed.

Nothing is scattered, and only whole blocks of a NumPy result are written, so this runs on NumPy,
CuPy, PyTorch, JAX and any other library of the array API. On NumPy the work is split into blocks
with at most `SCRATCH_BYTES` of scratch; other libraries get one block.

Products with padding zeros are computed too: a weight that is infinite or NaN also makes NaN of
border cells that it does not reach.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np

from tconv.arrays.canonical import canonical, from_canonical, permutation
from tconv.arrays.dtypes import TYPES, as_dtype, dtype_name, float_that_is_exact, largest
from tconv.arrays.operands import namespace
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.portable.blocking import Blocks, runs, windows_come_first
from tconv.portable.phase_grid import Grid, PhaseGroup
from tconv.system.fork_lock import importing

__all__ = ["contract", "workspace_bytes"]

Rows = Sequence[slice]
Block = tuple[tuple[slice, ...], Any]
"""Index into the canonical result, and the values there."""


def contract(
    geometry: Geometry,
    want: Letter,
    a: Any,
    b: Any,
    *,
    bias: Any = None,
    out: Any = None,
    method: str = "auto",
    threads: int | None = None,
) -> Any:
    """Solve F(x, w, y) for the wanted letter: (a, b) is (x, w) for y, (y, w) for x, (x, y) for w.

    Parameters
    ----------
    geometry : Geometry, already checked against the shapes
    a, b : arrays of one library and type, in the geometry's layouts
    bias : array (channels of the result,), added before the one rounding; not for want "w"
    out : NumPy array to write to, else a new array is returned
    method, threads : ignored, part of the common signature; the array library decides

    >>> geometry = Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> contract(geometry, "y", np.ones((1, 1, 2)), np.ones((1, 1, 3)))
    array([[[1., 1., 2., 1., 1.]]])
    """
    xp = namespace(a)
    types = TYPES[dtype_name(a.dtype)]
    carrier = types.accumulator
    if types.is_integer:
        bound = largest(xp, a) * largest(xp, b) * geometry.terms(want)
        bound += 0 if bias is None else largest(xp, bias)
        carrier = float_that_is_exact(bound, xp) or carrier
    names = OPERANDS[want]
    a, b = (canonical(xp, geometry, name, v) for name, v in zip(names, (a, b), strict=True))
    work = _Work(xp, geometry, want, carrier)
    blocks = {"y": work.outputs, "x": work.inputs, "w": work.weights}[want](a, b)
    if bias is not None:
        blocks = work.with_bias(blocks, bias)
    result_type = as_dtype(xp, types.result)
    if xp is not np:
        ((_, result),) = blocks
        return from_canonical(xp, geometry, want, xp.astype(result, result_type, copy=False))
    if out is None:
        out = np.empty(geometry.shape_of(want), result_type)
    target = canonical(np, geometry, want, out)
    for index, block in blocks:
        target[index] = block
    return out


def workspace_bytes(geometry: Geometry, want: Letter, dtype: str, unblocked: bool) -> int:
    """Bytes that `contract` holds besides operands and result; `unblocked` for other than NumPy."""
    return Blocks.of(geometry, want, _itemsize(TYPES[dtype].accumulator), unblocked).workspace_bytes


class _Work:
    """One contraction of canonical arrays, block by block, in the carrier type.

    Letters of axes: n batch, g group, c and m channels, J shifts, R phases, Q rows. Taps are sorted
    to (g, c, J, *R, m) throughout: for each of the three products one side then is a reshaped view,
    and with c outermost the sorting is fast.
    """

    def __init__(self, xp: Any, geometry: Geometry, want: Letter, carrier: str) -> None:
        self.xp, self.geometry, self.want = xp, geometry, want
        self.carrier, self.rank = as_dtype(xp, carrier), geometry.rank
        self.grid = Grid.of(geometry.axes)
        self.phase_groups = self.grid.phase_groups()
        self.blocks = Blocks.of(geometry, want, _itemsize(carrier), unblocked=xp is not np)

    def outputs(self, x: Any, w: Any) -> Iterator[Block]:
        """Want "y": x (N, G, C/G, *I), w (G, C/G, M/G, *K) -> blocks of (N, G, M/G, *O)."""
        for g, m in self._channel_runs(w.shape[2]):
            packs = [(each, self._pack(w[g, :, m, ...], each)) for each in self.phase_groups]
            for n, rows in self._row_runs(self.grid.rows):
                pieces = [self._outputs_of(x[n, g, ...], pack, each, rows) for each, pack in packs]
                block = self._join(pieces, self.grid.bands, axis=1)
                block = self._sort(block, "gRmnQ", "ngm(QR)")
                size = [
                    (q.stop - q.start) * s for q, s in zip(rows, self.grid.strides, strict=True)
                ]
                block = self.xp.reshape(block, (*block.shape[:3], *size))
                cells, kept = self.grid.cells(rows, self.geometry.output_size)
                yield (n, g, m, *cells), block[(..., *kept)]

    def _outputs_of(self, x: Any, pack: Any, each: PhaseGroup, rows: Rows) -> Any:
        """The cells of y of one phase group, (g, *R, m, n, *Q)."""
        xp, (g, c, j, _) = self.xp, pack.shape
        count = [q.stop - q.start for q in rows]
        first = [q.start + zero for q, zero in zip(rows, self.grid.first, strict=True)]
        x = self._sort(x, "ngcQ", "gcnQ")
        n = x.shape[2]
        if j == 0:  # no tap reaches these phases
            result = self._zeros(pack, (g, pack.shape[3], n, *count))
        elif windows_come_first(self.geometry, each, "y"):
            windows = [self._window(x, _minus(first, shift), count) for shift in each.shifts]
            taps = xp.reshape(pack, (g, c * j, pack.shape[3]))
            result = xp.matmul(_transpose(xp, taps), self._flat(windows, 2))  # (g, R*m, n*Q)
        else:
            start = [q - t - span for q, t, span in zip(first, each.low, each.spans, strict=True)]
            x, low = self._inside(x, start, _plus(count, each.spans))
            taps = xp.reshape(pack, (g, c, j * pack.shape[3]))
            products = xp.matmul(_transpose(xp, taps), self._flat([x], 2))  # (g, J*R*m, n*Q)
            products = xp.reshape(products, (g, j, pack.shape[3], *x.shape[2:]))
            windows = [
                self._window(products[:, place, ...], _minus(first, _plus(low, shift)), count)
                for place, shift in enumerate(each.shifts)
            ]
            result = _sum(windows)
        return xp.reshape(result, (g, *each.widths, pack.shape[3] // each.sizes[1], n, *count))

    def inputs(self, y: Any, w: Any) -> Iterator[Block]:
        """Want "x": y (N, G, M/G, *O), w (G, C/G, M/G, *K) -> blocks of (N, G, C/G, *I)."""
        for g, c in self._channel_runs(w.shape[1]):
            packs = [
                (each, self._pack(w[g, c, ...], each)) for each in self.phase_groups if each.reached
            ]
            for n, rows in self._row_runs(self.geometry.input_size):
                parts = [self._inputs_of(y[n, g, ...], pack, each, rows) for each, pack in packs]
                yield (n, g, c, *rows), self._sort(_sum(parts), "gcnQ", "ngcQ")

    def _inputs_of(self, y: Any, pack: Any, each: PhaseGroup, rows: Rows) -> Any:
        """The term of one phase group in x, (g, c, n, *Q)."""
        xp, n, (g, c, j, _) = self.xp, y.shape[0], pack.shape
        first, count = [q.start for q in rows], [q.stop - q.start for q in rows]
        if windows_come_first(self.geometry, each, "x"):
            windows = [self._phases(y, each, _plus(first, shift), count) for shift in each.shifts]
            taps = xp.reshape(pack, (g, c, j * pack.shape[3]))
            result = xp.matmul(taps, self._flat(windows, 1))  # (g, c, n*Q)
        else:
            size = _plus(count, each.spans)
            cells = self._phases(y, each, _plus(first, each.low), size)
            taps = xp.reshape(pack, (g, c * j, pack.shape[3]))
            products = xp.matmul(taps, self._flat([cells], 1))  # (g, c*J, n*Q)
            products = xp.reshape(products, (g, c, j, n, *size))
            windows = [
                self._window(products[:, :, place, ...], _minus(shift, each.low), count)
                for place, shift in enumerate(each.shifts)
            ]
            result = _sum(windows)
        return xp.reshape(result, (g, c, n, *count))

    def weights(self, x: Any, y: Any) -> Iterator[Block]:
        """Want "w": x (N, G, C/G, *I), y (N, G, M/G, *O) -> blocks of (G, C/G, M/G, *K)."""
        bands = [[band for band in axis if band.shifts] for axis in self.grid.bands]
        taps = [[k for band in axis for row in band.taps for k in row] for axis in bands]
        for g, m in self._channel_runs(y.shape[2]):
            pieces = []
            for each in (each for each in self.phase_groups if each.reached):
                on_x = windows_come_first(self.geometry, each, "w")
                runs_of_rows = self.grid.rows if on_x else self.geometry.input_size
                parts = (
                    self._weights_of(x[n, g, ...], y[n, g, m, ...], each, rows, on_x)
                    for n, rows in self._row_runs(runs_of_rows)
                )
                sizes = (g.stop - g.start, x.shape[2], m.stop - m.start)
                pieces.append(self._unpack(_sum(parts), each, sizes))
            block = self._join(pieces, bands, axis=3)  # (g, c, m, *K), taps in the order of `taps`
            for n, order in enumerate(taps):
                block = self._take(block, sorted(range(len(order)), key=order.__getitem__), 3 + n)
            yield (g, slice(None), m), block

    def _weights_of(self, x: Any, y: Any, each: PhaseGroup, rows: Rows, on_x: bool) -> Any:
        """The term of some rows in the taps of a group: rows of y if x is windowed, else of x."""
        x = self._sort(x, "ngcQ", "gcnQ")
        start, count = [q.start for q in rows], [q.stop - q.start for q in rows]
        if on_x:
            start = _plus(start, self.grid.first)
            left = [self._window(x, _minus(start, shift), count) for shift in each.shifts]
            right = [self._phases(y, each, start, count)]
        else:
            left = [self._window(x, start, count)]
            right = [self._phases(y, each, _plus(start, shift), count) for shift in each.shifts]
        # (g, c*J, R*m) or (g, c, J*R*m), which is the same order of elements
        return self.xp.matmul(self._flat(left, 2), _transpose(self.xp, self._flat(right, 1)))

    def with_bias(self, blocks: Iterator[Block], bias: Any) -> Iterator[Block]:
        """Add (channels,) to blocks (N, G, channels/G, *cells)."""
        xp = self.xp
        bias = xp.astype(bias, self.carrier, copy=False)
        g = self.geometry.groups
        bias = xp.reshape(bias, (1, g, bias.shape[0] // g, *[1] * self.rank))
        for index, block in blocks:
            yield index, block + bias[:, index[1], index[2], ...]

    def _channel_runs(self, channels: int) -> Iterator[tuple[slice, slice]]:
        for g in runs(self.geometry.groups, self.blocks.groups):
            for c in runs(channels, self.blocks.channels):
                yield g, c

    def _row_runs(self, totals: Sequence[int]) -> Iterator[tuple[slice, Rows]]:
        for n in runs(self.geometry.batch, self.blocks.batch):
            for rows in product(*map(runs, totals, self.blocks.rows)):
                yield n, rows

    def _window(self, array: Any, start: Sequence[int], count: Sequence[int]) -> Any:
        """``array[..., start:start + count]`` on the last axes, zero outside of the array."""
        for n, (first, length) in enumerate(zip(start, count, strict=True), array.ndim - self.rank):
            array = self._cut(array, n, first, length)
        return array

    def _inside(
        self, array: Any, start: Sequence[int], count: Sequence[int]
    ) -> tuple[Any, list[int]]:
        """The part of ``array[..., start:start + count]`` inside of the array, and its start."""
        sizes = array.shape[-self.rank :]
        low = [min(max(q, 0), size) for q, size in zip(start, sizes, strict=True)]
        stop = [max(q, end) for q, end in zip(low, _plus(start, count), strict=True)]
        high = [min(q, size) for q, size in zip(stop, sizes, strict=True)]
        return array[(..., *map(slice, low, high))], low

    def _cut(self, array: Any, n: int, first: int, length: int) -> Any:
        """``array[first:first + length]`` along axis n, zero outside of the array."""
        size = array.shape[n]
        low, high = min(max(first, 0), size), min(max(first + length, 0), size)
        before = min(max(-first, 0), length)
        array = array[(*[slice(None)] * n, slice(low, max(low, high)), ...)]
        parts = [array]
        if before:
            parts.insert(0, self._zeros(array, _with(array.shape, n, before)))
        if before + array.shape[n] < length:
            after = length - before - array.shape[n]
            parts.append(self._zeros(array, _with(array.shape, n, after)))
        return self.xp.concat(parts, axis=n) if len(parts) > 1 else array

    def _phases(self, y: Any, each: PhaseGroup, start: Sequence[int], count: Sequence[int]) -> Any:
        """Rows start:start + count of y (n, g, m, *O) at its phases, (g, *R, m, n, *Q)."""
        strides = self.grid.strides
        cells = [
            q * s - begin for q, s, begin in zip(start, strides, self.grid.begins, strict=True)
        ]
        cells = _plus(cells, each.starts)
        y, low = self._inside(y, cells, [c * s for c, s in zip(count, strides, strict=True)])
        for n, first in enumerate(_minus(cells, low)):
            y = self._rows(y, 3 + 2 * n, first, count[n], each.widths[n], strides[n])
        return self._sort(y, "ngm(QR)", "gRmnQ")

    def _rows(self, y: Any, n: int, first: int, count: int, width: int, stride: int) -> Any:
        """Axis n as two, (count, width): cells first + q*stride + r, zero outside of the array."""
        # Complete rows inside of the array; cells beyond `width` are never copied.
        low = 0 if width == stride else min(max(-(first // stride), 0), count)
        high = count if width == stride else min((y.shape[n] - first) // stride, count)
        high = max(high, low)
        rows = width if high == low else stride  # a stride may exceed the memory
        inside = self._cut(y, n, first + low * stride, (high - low) * stride)
        inside = self.xp.reshape(inside, (*y.shape[:n], high - low, rows, *y.shape[n + 1 :]))
        parts = [inside[(*[slice(None)] * (n + 1), slice(width), ...)]]
        if low > 0:  # the row that begins before the array
            edge = self._cut(y, n, first + (low - 1) * stride, width)
            parts.insert(0, self.xp.expand_dims(edge, axis=n))
        if high < count:  # the row that ends after it
            parts.append(self.xp.expand_dims(self._cut(y, n, first + high * stride, width), axis=n))
        joined = self.xp.concat(parts, axis=n) if len(parts) > 1 else parts[0]
        return self._cut(joined, n, min(1 - low, 0), count)

    def _flat(self, windows: list[Any], axis: int) -> Any:
        """Stack windows (g, ..., n, *Q) before `axis`; flatten to (g, channels, cells)."""
        xp, shape = self.xp, windows[0].shape
        cells = prod(shape[-1 - self.rank :])
        channels = len(windows) * prod(shape[1 : -1 - self.rank])
        stacked = windows[0] if len(windows) == 1 else xp.stack(windows, axis=axis)
        stacked = xp.reshape(stacked, (shape[0], channels, cells))
        return xp.astype(stacked, self.carrier, copy=False)

    def _pack(self, w: Any, each: PhaseGroup) -> Any:
        """Sort the taps of a phase group, (g, c, m, *K) to (g, c, J, R*m), in the carrier type."""
        for n, taps in enumerate(each.taps):
            w = self._take(w, taps, 3 + n)
        (g, c, m), (j, r) = w.shape[:3], each.sizes
        split = [size for pair in zip(each.counts, each.widths, strict=True) for size in pair]
        w = self._sort(self.xp.reshape(w, (g, c, m, *split)), "gcm(JR)", "gcJRm")
        return self.xp.astype(self.xp.reshape(w, (g, c, j, r * m)), self.carrier, copy=False)

    def _unpack(self, taps: Any, each: PhaseGroup, sizes: tuple[int, int, int]) -> Any:
        """Undo `_pack`: the taps of one phase group as (g, c, m, *taps)."""
        g, c, m = sizes
        taps = self.xp.reshape(taps, (g, c, *each.counts, *each.widths, m))
        taps = self._sort(taps, "gcJRm", "gcm(JR)")
        return self.xp.reshape(taps, (g, c, m, *map(len, each.taps)))

    def _join(self, pieces: list[Any], bands: Sequence[Sequence[Any]], axis: int) -> Any:
        """Concatenate the pieces of all phase groups along `axis` and the following ones."""
        for n in reversed(range(self.rank)):
            width = len(bands[n])
            if width > 1:
                groups = [pieces[i : i + width] for i in range(0, len(pieces), width)]
                pieces = [self.xp.concat(group, axis=axis + n) for group in groups]
        return pieces[0]

    def _take(self, array: Any, order: Sequence[int], axis: int) -> Any:
        """``array[order]`` along `axis`, by a slice if the order is regular."""
        steps = {b - a for a, b in pairwise(order)} or {1}
        if len(steps) == 1 and (step := steps.pop()) > 0:
            index = slice(order[0], order[-1] + 1, step) if order else slice(0)
            return array[(*[slice(None)] * axis, index, ...)]
        xp = self.xp
        device = {} if xp is np else {"device": _device(array)}
        return xp.take(array, xp.asarray(list(order), dtype=xp.int64, **device), axis=axis)

    def _zeros(self, like: Any, shape: tuple[int, ...]) -> Any:
        device = {} if self.xp is np else {"device": _device(like)}
        return self.xp.zeros(shape, dtype=like.dtype, **device)

    def _sort(self, array: Any, before: str, after: str) -> Any:
        return self.xp.permute_dims(array, permutation(before, after, self.rank))


def _transpose(xp: Any, matrices: Any) -> Any:
    return xp.permute_dims(matrices, (0, 2, 1))


def _sum(parts: Iterable[Any]) -> Any:
    total, fresh = None, False
    for part in parts:
        if total is None:
            total = part
        elif fresh:
            total += part
        else:  # the first may be a view of an array in use
            total, fresh = total + part, True
    return total


def _plus(a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [left + right for left, right in zip(a, b, strict=True)]


def _minus(a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [left - right for left, right in zip(a, b, strict=True)]


def _with(shape: Sequence[int], n: int, size: int) -> tuple[int, ...]:
    return (*shape[:n], size, *shape[n + 1 :])


def _itemsize(name: str) -> int:
    return np.dtype(name).itemsize


def _device(array: Any) -> Any:
    with importing:
        import array_api_compat

    return array_api_compat.device(array)
