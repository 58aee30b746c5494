"""Reorders of x and y between channels first and channels last."""

from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.dtypes import TYPES, as_dtype
from tconv.engine.compile.jit import load, load_kernel
from tconv.engine.kernels.transpose import empty_lines, run_transpose, transpose_arguments
from tconv.engine.plan.problem import Problem
from tconv.engine.runtime.job import Job
from tconv.engine.target.target import Target
from tconv.geometry.geometry import Letter
from tconv.system.fork_lock import cached_property

__all__ = ["Prepared"]

_SMALL_TRANSPOSED_BYTES = 2**18  # so much of x or y is transposed by one thread


class Prepared:
    """What can be done for one problem: here x and y are turned from layout to layout."""

    _job: Job
    _turns_back = True  # what is wanted; for w, both x and y are read

    def __init__(self, problem: Problem, dtype: str, target: Target, threads: int) -> None:
        self.problem, self.threads, self.activation = problem, threads, problem.activation
        self.dtype: np.dtype[Any] = as_dtype(np, dtype)  # of x, y and the weight
        self.computed = np.dtype(TYPES[dtype].accumulator)
        self._kernel = partial(load_kernel, dtype=dtype, target=target)
        self._load = partial(load, target=target)
        self._transposed_sizes: dict[Any, Job] = {}

    def transposed(
        self, letter: Letter, array: NDArray[Any], to: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return what is read, which is channels last, channels first; what is written, back.

        Both are C-contiguous; `to` is written and returned if it is given.
        """
        job = self._transpositions[letter]
        if to is None:
            to = empty_lines(array.shape, self.dtype)
        job((array, to), self.threads if to.nbytes > _SMALL_TRANSPOSED_BYTES else 1)
        return to

    def transpose(self, size: tuple[int, int, int], source: NDArray[Any], to: NDArray[Any]) -> None:
        """Write images x rows x columns numbers to `to`, every image transposed."""
        if 1 in size[1:]:
            to.reshape(-1).view(self.dtype)[...] = source.reshape(-1).view(self.dtype)
            return
        job = self._transposed_sizes.get(size)
        if job is None:
            job = self._transposed_sizes[size] = self._transposition(*size)
        job((source, to), self.threads if to.nbytes > _SMALL_TRANSPOSED_BYTES else 1)

    def _transposition(self, images: int, rows: int, columns: int) -> Job:
        kernel = self._kernel("run_transpose", run_transpose, dtype=self._moved)
        values = transpose_arguments(images, rows, columns, self.dtype.itemsize)
        return Job(kernel, values, self._load)

    @property
    def _moved(self) -> str:
        """The type for kernels that do not look at the numbers."""
        return "int16" if self.dtype != self.computed else self.dtype.name

    @cached_property
    def _transpositions(self) -> dict[Letter, Job]:
        problem, geometry = self.problem, self.problem.geometry
        found: dict[Letter, Job] = {}
        for letter in (problem.read, problem.want):
            batch, channels, *size = geometry.shape_of(letter)
            rows, columns = prod(size), channels
            if self._turns_back and letter == problem.want:
                rows, columns = columns, rows
            found[letter] = self._transposition(batch, rows, columns)
        return found
