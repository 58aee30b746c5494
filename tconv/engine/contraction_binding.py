"""Contractions as native steps of a program: a primitive with its weights, bound to memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.executor import Primitive
from tconv.engine.program.sequence import NativeStep, Place
from tconv.system.fork_lock import importing

__all__ = ["contraction_step"]

At = tuple[int, int]
"""A buffer, and the bytes into it."""

_ITEM_BYTES = 4
Memory = Callable[[int], NDArray[np.uint8]]


def contraction_step(
    primitive: Primitive,
    packed: Any,
    bias: NDArray[Any] | None,
    x: At,
    y: At,
    residual: At | None,
    y_batch: int,
    ends_stage: bool,
) -> NativeStep:
    """Return the step of a primitive of float32.

    Parameters
    ----------
    packed : what its `pack` returned
    bias : one number for each channel of the result, or None
    x, y, residual : where operands and result lie
    y_batch : elements from image to image of y, 0 if its images follow each other
    """
    with importing:
        from tconv.engine.codegen.abi import ARGUMENTS

    place = ARGUMENTS.place
    is_winograd = primitive.keeps_weight
    weight = packed.transformed if is_winograd else packed
    packed_bias = primitive.pack_bias(bias)
    places = [Place(place("x"), *x), Place(place("y"), *y)]
    if residual is not None:
        places.append(Place(place("residual"), *residual))

    def repair(memory: Memory) -> None:
        geometry, problem = primitive.problem.geometry, primitive.problem
        shapes = (geometry.shape_of(problem.read), geometry.shape_of(problem.want))
        written = [_view(memory, y, shapes[1], y_batch)]
        if residual is not None:
            written.append(_view(memory, residual, shapes[1], 0))
        read = _view(memory, x, shapes[0], 0)
        primitive.compute_directly(read, packed.weight, packed_bias, *written)

    return NativeStep(
        function=lambda: primitive._job.function,
        words=lambda: primitive._job.values,
        counter=place("counter"),
        places=tuple(places),
        constants=((place("weight"), weight), (place("bias"), packed_bias)),
        scratch=(place("scratch"), place("scratch_size")),
        scratch_bytes=primitive.sized.scratch_size * primitive.computed.itemsize,
        ends_stage=ends_stage,
        numbers=((place("y_batch"), y_batch),) if y_batch else (),
        repair=repair if is_winograd else None,
        may_change=True,
    )


def _view(memory: Memory, at: At, shape: tuple[int, ...], batch: int) -> NDArray[Any]:
    """A view of a buffer's elements as an array, with images `batch` elements apart if given."""
    flat = memory(at[0])[at[1] :].view(np.float32)
    strides = [_ITEM_BYTES] * len(shape)
    for n in range(len(shape) - 2, -1, -1):
        strides[n] = strides[n + 1] * shape[n + 1]
    if batch:
        strides[0] = batch * _ITEM_BYTES
    return np.lib.stride_tricks.as_strided(flat, shape, strides)
