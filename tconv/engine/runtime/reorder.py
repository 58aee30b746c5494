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

__all__ = ["Reorders"]

_SMALL_TRANSPOSED_BYTES = 2**18  # of x or y, which one thread transposes


class Reorders:
    """What transposes x and y of a problem on its threads, and makes each kernel it needs once.

    Primitives that always need it are subclasses; `executor.Primitive` makes one when it does.
    """

    _job: Job
    _turns_back = True  # the result; for w, both x and y are read

    def __init__(self, problem: Problem, dtype: str, target: Target, threads: int) -> None:
        self.problem, self.threads, self.activation = problem, threads, problem.activation
        self.dtype: np.dtype[Any] = as_dtype(np, dtype)  # of x, y and the weight
        self.computed = np.dtype(TYPES[dtype].accumulator)
        self._kernel = partial(load_kernel, dtype=dtype, target=target)
        self._load = partial(load, target=target)
        self._transposes_by_size: dict[Any, Job] = {}

    def transposed(
        self, letter: Letter, array: NDArray[Any], to: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Reorder an operand from channels last to channels first, and a result back.

        Both arrays are C-contiguous; `to` is written and returned if it is given.
        """
        job = self._transposes[letter]
        if to is None:
            to = empty_lines(array.shape, self.dtype)
        job((array, to), self.threads if to.nbytes > _SMALL_TRANSPOSED_BYTES else 1)
        return to

    def transpose(self, size: tuple[int, int, int], source: NDArray[Any], to: NDArray[Any]) -> None:
        """Write the transpose of each image, a matrix of rows x columns, to `to`."""
        if 1 in size[1:]:
            to.reshape(-1).view(self.dtype)[...] = source.reshape(-1).view(self.dtype)
            return
        job = self._transposes_by_size.get(size)
        if job is None:
            job = self._transposes_by_size[size] = self._transpose_job(*size)
        job((source, to), self.threads if to.nbytes > _SMALL_TRANSPOSED_BYTES else 1)

    def _transpose_job(self, images: int, rows: int, columns: int) -> Job:
        kernel = self._kernel("run_transpose", run_transpose, dtype=self._copied_type)
        values = transpose_arguments(images, rows, columns, self.dtype.itemsize)
        return Job(kernel, values, self._load)

    @property
    def _copied_type(self) -> str:
        """The type for kernels that only copy elements."""
        return "int16" if self.dtype != self.computed else self.dtype.name

    @cached_property
    def _transposes(self) -> dict[Letter, Job]:
        problem, geometry = self.problem, self.problem.geometry
        found: dict[Letter, Job] = {}
        for letter in (problem.read, problem.want):
            batch, channels, *size = geometry.shape_of(letter)
            rows, columns = prod(size), channels
            if self._turns_back and letter == problem.want:
                rows, columns = columns, rows
            found[letter] = self._transpose_job(batch, rows, columns)
        return found
