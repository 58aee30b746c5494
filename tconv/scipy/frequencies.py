"""Normal equations of an operator, frequency by frequency: exact where it is circular.

``A^H A + diag(d)`` is a small matrix for each frequency of the smaller array, over the channels of
the larger or the smaller one, whichever the operator reads. Where it reads more numbers than it
returns, the matrices are inverted by those of the returned ones (Woodbury).
"""

from math import prod
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from tconv.arrays.canonical import canonical, from_canonical
from tconv.geometry.geometry import OPERANDS, Letter
from tconv.scipy.operators import Operator
from tconv.scipy.spectrum import symbol

__all__ = ["Frequencies", "fits"]

_LEAST = 1e-7  # of the largest eigenvalue, in a preconditioner: the operator is not circular


def fits(op: Operator) -> bool:
    """Whether what the operator reads has the cells of a circular operator."""
    axes = op.geometry.axes
    return op.letter == "y" or all(axis.output % axis.stride == 0 for axis in axes)


class Frequencies:
    """The circular operator with the weight of another one, and as many cells as that one reads.

    Parameters
    ----------
    op : Operator that `fits`
    """

    def __init__(self, op: Operator) -> None:
        self.geometry, self.letter = op.geometry, OPERANDS[op.letter][0]
        self.strides = tuple(axis.stride for axis in self.geometry.axes)
        if op.letter == "y":
            self.cells = self.geometry.input_size
            self.matrices = symbol(self.geometry, op.weight, self.cells)
        else:
            both = zip(self.geometry.output_size, self.strides, strict=True)
            self.cells = tuple(size // stride for size, stride in both)
            found = symbol(self.geometry, op.weight.conj(), self.cells)
            self.matrices = np.ascontiguousarray(found.conj().swapaxes(-1, -2))
        self.is_real = not np.iscomplexobj(op.weight)

    # ---- transforms ------------------------------------------------------------------------------

    def transformed(self, letter: Letter, array: NDArray[Any]) -> NDArray[Any]:
        """Unitary transform of x or y: (N, G, q, numbers of this frequency)."""
        axes = range(3, 3 + self.geometry.rank)
        found = scipy.fft.fftn(canonical(np, self.geometry, letter, array), axes=axes, norm="ortho")
        return self._by_frequency(letter, found)

    def back(self, letter: Letter, array: NDArray[Any]) -> NDArray[Any]:
        """The x or y that has a transform."""
        rank, (n, groups) = self.geometry.rank, array.shape[:2]
        if letter == "x":
            found = array.reshape(n, groups, *self.cells, -1)
            found = np.moveaxis(found, -1, 2)
        else:
            found = array.reshape(n, groups, *self.cells, *self.strides, -1)
            order = [v for a in range(rank) for v in (2 + rank + a, 2 + a)]
            found = found.transpose(0, 1, 2 + 2 * rank, *order)
            sizes = [a * b for a, b in zip(self.cells, self.strides, strict=True)]
            found = found.reshape(*found.shape[:3], *sizes)
        found = scipy.fft.ifftn(found, axes=range(3, 3 + rank), norm="ortho")
        return np.asarray(from_canonical(np, self.geometry, letter, found))

    def _by_frequency(self, letter: Letter, array: NDArray[Any]) -> NDArray[Any]:
        n, groups, channels = array.shape[:3]
        rank = self.geometry.rank
        if letter == "x":
            return np.moveaxis(array.reshape(n, groups, channels, -1), 2, 3)
        split = [v for pair in zip(self.strides, self.cells, strict=True) for v in pair]
        found = array.reshape(n, groups, channels, *split)
        order = [*range(4, 4 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2), 2]
        found = found.transpose(0, 1, *order)
        return found.reshape(n, groups, prod(self.cells), -1)

    def differences(self) -> NDArray[np.float64]:
        """Eigenvalues of the sum of squared differences of neighbours, around the ends: (q, ·)."""
        of_y = self.letter == "y"
        sizes = [
            cells * (stride if of_y else 1)
            for cells, stride in zip(self.cells, self.strides, strict=True)
        ]
        total = np.zeros(sizes)
        for axis, size in enumerate(sizes):
            wave = 2.0 - 2.0 * np.cos(2 * np.pi * np.arange(size) / size)
            total += wave.reshape(-1, *[1] * (len(sizes) - 1 - axis))
        channels = self.geometry.out_channels if of_y else self.geometry.in_channels
        share = channels // self.geometry.groups
        each = np.broadcast_to(total, (1, 1, share, *sizes))
        found = (
            each.reshape(1, 1, share, -1).swapaxes(2, 3)
            if not of_y
            else self._by_frequency("y", each)
        )
        return np.asarray(found[0, 0])

    # ---- solutions -------------------------------------------------------------------------------

    def fitted(self, data: NDArray[Any], d: NDArray[Any] | float) -> NDArray[Any]:
        """Minimise ``norm(A u - data)**2 + sum(d * abs(u)**2)`` of transforms."""
        a, h = self.matrices, self.matrices.conj().swapaxes(-1, -2)
        if not np.any(d):
            return _times(np.linalg.pinv(a), data)
        d = np.broadcast_to(d, a.shape[1:2] + a.shape[3:])
        if a.shape[-1] <= a.shape[-2]:
            return self._solved(_times(h, data), d)
        some = np.where(d > 0, d, 1.0)
        inner = (a / some[:, None, :]) @ h + np.eye(a.shape[-2])
        found = _times(h, _times_solved(inner, data)) / some
        return self._at_zeros(found, _times(h, data), d)

    def solved(self, right: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
        """Solve ``(A^H A + diag(d)) u = right`` of transforms."""
        a, h = self.matrices, self.matrices.conj().swapaxes(-1, -2)
        if a.shape[-1] <= a.shape[-2]:
            return self._solved(right, d)
        some = np.where(d > 0, d, 1.0)
        inner = (a / some[:, None, :]) @ h + np.eye(a.shape[-2])
        found = (right - _times(h, _times_solved(inner, _times(a, right / some)))) / some
        return self._at_zeros(found, right, d)

    def _solved(self, right: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
        normal = self._normal(d)
        is_zero = (d <= 0).any(-1)
        normal[:, is_zero] += np.eye(normal.shape[-1])  # replaced below
        return self._at_zeros(_times_solved(normal, right), right, d)

    def _at_zeros(self, found: NDArray[Any], right: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
        """Put the solutions of least norm where d is 0 somewhere, as for constant x."""
        for q in np.flatnonzero((d <= 0).any(-1)):
            normal = self._normal(d[q : q + 1], slice(q, q + 1))
            found[:, :, q] = _times(np.linalg.pinv(normal, hermitian=True), right[:, :, q : q + 1])[
                :, :, 0
            ]
        return found

    def _normal(self, d: NDArray[Any], where: slice = slice(None)) -> NDArray[Any]:
        a = self.matrices[:, where]
        return a.conj().swapaxes(-1, -2) @ a + d[:, :, None] * np.eye(a.shape[-1])

    @property
    def root_bytes(self) -> int:
        """What `root` takes."""
        groups, frequencies, _, given = self.matrices.shape
        return 4 * 16 * groups * frequencies * given**2

    def root(self, d: NDArray[Any] | float) -> NDArray[Any]:
        """``(A^H A + diag(d))**-0.5`` for each frequency, of positive definite matrices."""
        a = self.matrices
        normal = self._normal(np.broadcast_to(d, a.shape[1:2] + a.shape[3:]))
        values, vectors = np.linalg.eigh(normal)
        values = np.maximum(values, _LEAST * values.max())
        return np.asarray(
            (vectors / np.sqrt(values)[..., None, :]) @ vectors.conj().swapaxes(-1, -2)
        )


def _times(matrices: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """Matrices (G, q, r, c) times numbers (N, G, q, c)."""
    return np.asarray((matrices @ numbers[..., None])[..., 0])


def _times_solved(matrices: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.linalg.solve(matrices[None], numbers[..., None])[..., 0])


def applied(root: NDArray[Any], frequencies: Frequencies, array: NDArray[Any]) -> NDArray[Any]:
    """Multiply what the operator reads by matrices for each frequency."""
    letter = frequencies.letter
    return frequencies.back(letter, _times(root, frequencies.transformed(letter, array)))
