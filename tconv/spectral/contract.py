"""The three contractions by Fourier transforms of blocks (overlap-add and overlap-save).

A tap k of the transposed convolution lies at shift t and phase r, ``k*dilation = t*stride + r``.
With phases as channels, all three contractions have stride 1:

    y[m, r, q] = sum over c, t     w[c, m, r, t] * x[c, q - t]           want "y"
    x[c, i]    = sum over m, r, t  w[c, m, r, t] * y[m, r, i + t]        want "x"
    w[c, m, r, t] = sum over n, i  x[c, i] * y[m, r, i + t]              want "w"

x is divided into blocks. The transform of a block is at least as long as the block and the kernel
together, so that nothing goes around its ends. The products of transforms are summed over channels
before they are transformed back.

The error of a cell is not relative to the cell, but to its block: with `eps` of the type, n numbers
in a transform, and the 2-norms of a block of x, of w and of the result,

    abs(error) <= 3 * eps * log2(n) * sum over channels of (2*norm(x)*norm(w) + norm(result)).

So small cells beside large ones lose digits, and an infinity or a NaN spreads over its block; so
does a finite number whose products with others of the block overflow.

References: Cooley & Tukey 1965 for the transform, Stockham 1966 for blocks; Higham 2002, Accuracy
and Stability of Numerical Algorithms, section 24.1, for the error of a transform.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.canonical import canonical
from tconv.arrays.dtypes import TYPES, dtype_name
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.spectral.division import Division
from tconv.spectral.transforms import back, transformed
from tconv.system.fork_lock import importing

__all__ = ["Kernel", "contract"]

Start = tuple[int, ...]

_LEAST_US = 400.0  # of a call, for which threads are started
_FEW_CHANNELS = 4  # whose products are added one after the other, rather than by matrices


def contract(
    geometry: Geometry,
    want: Letter,
    a: NDArray[Any],
    b: NDArray[Any],
    *,
    bias: Any = None,
    out: Any = None,
    method: str = "fft",
    threads: int | None = None,
) -> NDArray[Any]:
    """Solve F(x, w, y) for the wanted letter: (a, b) is (x, w) for y, (y, w) for x, (x, y) for w.

    Parameters
    ----------
    geometry : Geometry, already checked against the shapes
    a, b : NumPy arrays of one floating type, in the geometry's layouts; the weight may be a
        `Kernel` of this geometry and wanted letter
    bias : array (channels of the result,), added before the one rounding; not for want "w"
    out : array to write to, else a new array is returned
    method : ignored, part of the common signature
    threads : int, which compute blocks side by side; None for one. The result does not depend on
        it.

    >>> geometry = Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> contract(geometry, "y", np.ones((1, 1, 2)), np.ones((1, 1, 3))).round(12)
    array([[[1., 1., 2., 1., 1.]]])
    """
    types = TYPES[dtype_name(a.dtype)]
    carrier = np.dtype(types.accumulator)
    names = OPERANDS[want]
    a, b = (
        each if isinstance(each, Kernel)
        else canonical(np, geometry, name, each).astype(carrier, copy=False)
        for name, each in zip(names, (a, b), strict=True)
    )  # fmt: skip
    if out is None:
        out = np.empty(geometry.shape_of(want), np.dtype(types.result))
    target = canonical(np, geometry, want, out)
    work = _Work(geometry, want, carrier, threads)
    with np.errstate(invalid="ignore", over="ignore"):  # as machine code does
        {"y": work.outputs, "x": work.inputs, "w": work.weights}[want](a, b, target, bias)
    return out  # type: ignore[no-any-return]


class Kernel:
    """The transforms of a weight, for many calls of one geometry.

    Parameters
    ----------
    geometry : Geometry
    want : "y" or "x"
    weight : array of a floating type, in the geometry's layout
    """

    def __init__(self, geometry: Geometry, want: Letter, weight: NDArray[Any]) -> None:
        carrier = np.dtype(TYPES[dtype_name(weight.dtype)].accumulator)
        work = _Work(geometry, want, carrier, None)
        w = canonical(np, geometry, "w", weight).astype(carrier, copy=False)
        self.parts = [work.kernel(w[g]) for g, _ in work.chunks()]
        self.channels = work.channels


class _Work:
    """One contraction of canonical arrays, some samples and groups at a time."""

    def __init__(
        self, geometry: Geometry, want: Letter, carrier: np.dtype[Any], threads: int | None
    ) -> None:
        self.geometry, self.want, self.carrier = geometry, want, carrier
        self.is_complex = carrier.kind == "c"
        self.division = Division.of(geometry, want, self.is_complex)
        is_long = self.division.expected_us(carrier.itemsize) > _LEAST_US
        self.threads = threads or 1 if is_long else 1
        self.channels = (
            geometry.out_channels // geometry.groups * prod(axis.stride for axis in geometry.axes)
        )
        self.strides = tuple(axis.stride for axis in geometry.axes)
        self.cells = tuple(
            axis.input + span - 1
            for axis, span in zip(geometry.axes, self.division.spans, strict=True)
        )  # of a phase of y

    # ---- the three contractions ------------------------------------------------------------------

    def outputs(self, x: Any, w: Any, target: Any, bias: Any) -> None:
        """Want "y": add the results of blocks."""
        bias = None if bias is None else self._bias(bias)
        for g, n, weight in self._parts(w):
            part = x[n, g]
            found = np.zeros((*part.shape[:2], self.channels, *self.cells), self.carrier)

            def result(start: Start, part: Any = part, weight: Any = weight) -> Any:
                block = self._transformed(self._cut(part, start, self.division.lengths))
                return self._back(_products(block, weight))

            for start, made in self._each_block(result):  # in their order, so sums do not vary
                to = self._cut(found, start, self.division.sizes)
                to += made[(..., *(slice(size) for size in to.shape[3:]))]
            y = target[n, g]
            y[...] = 0
            full = self._interleaved(found)
            here, there = self._overlaps(y.shape[3:])
            if bias is not None:
                y[...] += bias[g]
                full = full + bias[g]
            y[(..., *here)] = full[(..., *there)]

    def inputs(self, y: Any, w: Any, target: Any, bias: Any) -> None:
        """Want "x": of each block of y's phases, the cells that nothing goes around into."""
        bias = None if bias is None else self._bias(bias)
        for g, n, weight in self._parts(w):
            phases, x = self._phases(y[n, g]), target[n, g]

            def result(start: Start, phases: Any = phases, weight: Any = weight) -> Any:
                block = self._transformed(self._cut(phases, start, self.division.sizes))
                return self._back(_products(block, weight))

            for start, made in self._each_block(result):
                to = self._cut(x, start, self.division.lengths)
                made = made[(..., *(slice(size) for size in to.shape[3:]))]
                to[...] = made if bias is None else made + bias[g]

    def weights(self, x: Any, y: Any, target: Any, bias: Any) -> None:
        """Want "w": sums over blocks and samples, of transforms."""
        for g, samples in self.chunks():
            total: Any = 0
            for n in samples:
                phases, part = self._phases(y[n, g]), x[n, g]

                def result(start: Start, phases: Any = phases, part: Any = part) -> Any:
                    block = self._cut(part, start, self.division.lengths)
                    of_x = self._transformed(block.conj()).conj()
                    of_y = self._transformed(self._cut(phases, start, self.division.sizes))
                    return _summed_samples(of_x, of_y)

                for _, made in self._each_block(result):
                    # In double precision: there may be thousands of blocks.
                    total = total + made.astype(np.complex128, copy=False)
            if isinstance(total, int):  # no sample
                target[g] = 0
                continue
            found = self._back(total)[(..., *(slice(span) for span in self.division.spans))]
            found = found.astype(self.carrier, copy=False)
            target[g] = self._taps(found, target.shape[2])

    # ---- parts -----------------------------------------------------------------------------------

    def chunks(self) -> Iterator[tuple[slice, list[slice]]]:
        """Groups that are computed at once, and the samples in turns."""
        batch, groups = self.division.at_once
        samples = [slice(n, n + batch) for n in range(0, self.geometry.batch, batch)]
        for g in range(0, self.geometry.groups, groups):
            yield (slice(g, g + groups), samples)

    def kernel(self, w: Any) -> Any:
        """The transform of some groups' weights, (G, C, M*R, ·).

        For want "x" it is (G, M*R, C, ·) at the negative frequencies, as a correlation takes it.
        """
        weight = self._by_shift(w)
        if self.want == "x":
            return self._transformed(weight.conj()).conj().swapaxes(1, 2)
        return self._transformed(weight)

    def _parts(self, w: Any) -> Iterator[tuple[slice, slice, Any]]:
        """Groups and samples, and the transform of the groups' weights."""
        for number, (g, samples) in enumerate(self.chunks()):
            weight = w.parts[number] if isinstance(w, Kernel) else self.kernel(w[g])
            for n in samples:
                yield g, n, weight

    def _each_block(self, result: Callable[[Start], Any]) -> Iterator[tuple[Start, Any]]:
        """The first cell of x of every block, and what is made of it, in order."""
        both = zip(self.geometry.input_size, self.division.lengths, strict=True)
        starts = list(product(*(range(0, size, length) for size, length in both)))
        threads = min(self.threads, len(starts))

        def quiet(start: Start) -> Any:
            # Infinities multiply zeros here; machine code does not warn of that either.
            with np.errstate(invalid="ignore", over="ignore"):
                return result(start)

        if threads == 1:
            for start in starts:
                yield start, quiet(start)
            return
        with importing:  # which brings logging with it, whose import no fork may meet
            from concurrent.futures import ThreadPoolExecutor

        waiting: deque[tuple[Start, Any]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for start in starts:
                waiting.append((start, pool.submit(quiet, start)))
                if len(waiting) > threads:  # so that few results wait
                    first, made = waiting.popleft()
                    yield first, made.result()
            for first, made in waiting:
                yield first, made.result()

    @staticmethod
    def _cut(array: Any, start: tuple[int, ...], sizes: tuple[int, ...]) -> Any:
        return array[(..., *(slice(a, a + n) for a, n in zip(start, sizes, strict=True)))]

    # ---- transforms ------------------------------------------------------------------------------

    def _transformed(self, array: Any) -> Any:
        return transformed(array, self.division.sizes)

    def _back(self, array: Any) -> Any:
        return back(array, self.division.sizes, self.is_complex)

    # ---- layouts ---------------------------------------------------------------------------------

    def _places(self) -> list[Any]:
        """Of each axis in turn, the shift and the phase of every tap, to index with."""
        rank, found = self.geometry.rank, list[Any]()
        for n, axis in enumerate(self.geometry.axes):
            spread = [1] * rank
            spread[n] = axis.kernel
            places = np.divmod(np.arange(axis.kernel) * axis.dilation, axis.stride)
            found += [each.reshape(spread) for each in places]
        return found

    def _by_shift(self, w: Any) -> Any:
        """Weights (G, C, M, *K) as (G, C, M*R, *T), zeros where no tap is."""
        split = [n for pair in zip(self.division.spans, self.strides, strict=True) for n in pair]
        made = np.zeros((*w.shape[:3], *split), self.carrier)
        index: Any = (..., *self._places())
        made[index] = w
        return self._with_phases(made)

    def _taps(self, found: Any, channels: int) -> Any:
        """The weights of `_by_shift`, back: (G, C, M, *K)."""
        rank = self.geometry.rank
        split = found.reshape(*found.shape[:2], channels, *self.strides, *self.division.spans)
        order = [n for a in range(rank) for n in (3 + rank + a, 3 + a)]
        split = split.transpose(0, 1, 2, *order)
        index: Any = (..., *self._places())
        return split[index]

    def _with_phases(self, array: Any) -> Any:
        """Arrays (·, ·, M, T1, R1, T2, R2, ...) as (·, ·, M*R, T1, T2, ...)."""
        rank = self.geometry.rank
        order = [*range(4, 3 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2)]
        array = array.transpose(0, 1, 2, *order)
        return array.reshape(*array.shape[:2], -1, *array.shape[3 + rank :])

    def _interleaved(self, found: Any) -> Any:
        """The phases of y, (N, G, M*R, *Q), as its uncropped cells (N, G, M, *(Q*R))."""
        rank = self.geometry.rank
        split = found.reshape(*found.shape[:2], -1, *self.strides, *self.cells)
        order = [n for a in range(rank) for n in (3 + rank + a, 3 + a)]
        split = split.transpose(0, 1, 2, *order)
        whole = [n * s for n, s in zip(self.cells, self.strides, strict=True)]
        return split.reshape(*split.shape[:3], *whole)

    def _phases(self, y: Any) -> Any:
        """The phases of y: (N, G, M*R, *Q); cells that it does not have are zeros."""
        whole = [n * s for n, s in zip(self.cells, self.strides, strict=True)]
        full = np.zeros((*y.shape[:3], *whole), self.carrier)
        here, there = self._overlaps(y.shape[3:])
        to: Any = (..., *there)
        full[to] = y[(..., *here)]
        split = [n for pair in zip(self.cells, self.strides, strict=True) for n in pair]
        return self._with_phases(full.reshape(*y.shape[:3], *split))

    def _overlaps(self, sizes: tuple[int, ...]) -> tuple[list[slice], list[slice]]:
        """The cells that y has of the uncropped one, and which ones these are."""
        here, there = list[slice](), list[slice]()
        for size, axis, cells in zip(sizes, self.geometry.axes, self.cells, strict=True):
            first = max(0, -axis.begin)
            last = max(min(size, cells * axis.stride - axis.begin), first)
            here.append(slice(first, last))
            there.append(slice(first + axis.begin, last + axis.begin))
        return here, there

    def _bias(self, bias: Any) -> Any:
        shape = self.geometry.groups, -1, *[1] * self.geometry.rank
        return np.asarray(bias).astype(self.carrier).reshape(shape)


def _products(block: Any, weight: Any) -> Any:
    """Products (N, G, C, ·) by (G, C, M, ·), summed over C: (N, G, M, ·)."""
    channels = block.shape[2]
    if channels <= _FEW_CHANNELS:
        total = block[:, :, 0, np.newaxis] * weight[:, 0]
        for c in range(1, channels):
            total += block[:, :, c, np.newaxis] * weight[:, c]
        return total
    sizes = block.shape[3:]
    n, g, c = block.shape[:3]
    left = block.reshape(n, g, c, -1).transpose(1, 3, 0, 2)
    right = weight.reshape(*weight.shape[:3], -1).transpose(0, 3, 1, 2)
    found = (left @ right).transpose(2, 0, 3, 1)  # (G, F, N, M)
    return found.reshape(n, g, -1, *sizes)


def _summed_samples(of_x: Any, of_y: Any) -> Any:
    """Products (N, G, C, ·) by (N, G, M, ·), summed over N: (G, C, M, ·)."""
    n, g, c = of_x.shape[:3]
    left = of_x.reshape(n, g, c, -1).transpose(1, 3, 2, 0)
    right = of_y.reshape(n, g, of_y.shape[2], -1).transpose(1, 3, 0, 2)
    found = (left @ right).transpose(0, 2, 3, 1)
    return found.reshape(*found.shape[:3], *of_x.shape[3:])
