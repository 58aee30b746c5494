"""Native steps of a program: each step with its kernel, its arguments and its places in memory."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv import engine
from tconv.engine import BLOCK, Arenas, LoopShape, NativeStep, Place, ProgramKernels, merge_axes
from tconv.graph.cost_model import moving_us
from tconv.graph.steps import ContractionStep, LoopStep, ReductionStep, Step
from tconv.graph.values import Buffer, UnknownOperator, Value
from tconv.ops.planned_call import PackedWeights
from tconv.system.fork_lock import ForkLock

__all__ = ["Binder"]

_ITEM_BYTES = 4
_LEAST_COLUMNS = 2**10  # of a task of a reduction


class Binder:
    """What the steps of all sizes of a graph share: packed weights, by the weight's identity.

    If `many_sizes` are expected, plans are chosen for wide bands of them. `method` is that of all
    contractions.
    """

    def __init__(self, threads: int, many_sizes: bool, method: str = "auto") -> None:
        self.threads, self.kernels = threads, ProgramKernels(engine.host_target())
        self._many_sizes, self._method = many_sizes, method
        self.arenas, self.lock = Arenas(), ForkLock()
        self._packed: dict[int, tuple[Any, PackedWeights]] = {}

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed weights of all programs."""
        return sum(packed.byte_count for _, packed in self._packed.values())

    def forget(self, steps: Iterable[Step], others: Iterable[Iterable[Step]]) -> None:
        """Drop packed weights of the steps that no other steps have: some are made for a size."""
        gone = _weights(steps)
        for kept in others:  # most often the first of them have all of the weights
            gone -= _weights(kept)
            if not gone:
                return
        for each in gone:
            self._packed.pop(each, None)

    def expected_us(self, step: Step) -> float:
        """Predicted microseconds of a step."""
        if not isinstance(step, ContractionStep):
            return moving_us(step, self.threads)
        us = engine.expected_us(
            step.geometry,
            step.want,
            "float32",
            self.threads,
            step.activation,
            step.residual is not None,
            self._many_sizes,
            method=self._method,
        )
        if us is None:
            title = step.nodes[0]
            raise UnknownOperator(f"node {title!r}: no plan of machine code", title)
        return us

    def bind(self, step: Step, offsets: Mapping[Buffer, int], ends_stage: bool) -> NativeStep:
        """Return the native step of a step whose buffers have places."""
        if isinstance(step, ContractionStep):
            return self._bind_contraction(step, offsets, ends_stage)
        if isinstance(step, LoopStep):
            return self._bind_loop(step, offsets, ends_stage)
        return self._bind_reduction(step, offsets, ends_stage)

    def _bind_contraction(
        self, step: ContractionStep, offsets: Mapping[Buffer, int], ends_stage: bool
    ) -> NativeStep:
        geometry, want, activation = step.geometry, step.want, step.activation
        primitive: Any = engine.prepare(
            geometry,
            "float32",
            self.threads,
            self._method,
            want=want,
            activation=activation,
            residual=step.residual is not None,
            many_sizes=self._many_sizes,
        )
        _, packed = self._packed.setdefault(id(step.weight), (step.weight, PackedWeights()))
        weight = packed.of(geometry, step.weight, 0, self.threads, activation, want, primitive)
        is_apart = step.y.shape[0] > 1 and not step.y.is_contiguous
        return engine.contraction_step(
            primitive,
            weight.values,
            step.bias,
            _placed(step.x, offsets),
            _placed(step.y, offsets),
            None if step.residual is None else _placed(step.residual, offsets),
            step.y.strides[0] if is_apart else 0,
            ends_stage,
        )

    def _bind_loop(
        self, step: LoopStep, offsets: Mapping[Buffer, int], ends_stage: bool
    ) -> NativeStep:
        values = [*step.operands, *step.outputs]
        shape, outputs = step.shape, len(step.outputs)
        strides = tuple([value.broadcast(shape) for value in values])
        made = _loop_shape(shape, strides, (*step.repeats, *[1] * outputs), outputs, self.threads)
        function = self.kernels.loop(step.expression, made.reads, made.outer)
        words = made.array(1 + len(values))
        places, constants = _places(values, offsets, 1)
        return NativeStep(function, lambda: words, 0, places, constants, ends_stage=ends_stage)

    def _bind_reduction(
        self, step: ReductionStep, offsets: Mapping[Buffer, int], ends_stage: bool
    ) -> NativeStep:
        outer, count, inner = step.x.shape
        # Rows are summed in another order: a piece of one cell has to be summed as the whole.
        along_rows = inner == 1 and (step.is_last or self._method != "direct")
        block = inner if along_rows else min(inner, max(_LEAST_COLUMNS, ceil(inner / 64 / 64) * 64))
        blocks = ceil(inner / block)
        head = (outer * blocks, count, count * inner, inner, inner, block, blocks)
        words = np.array([0] * 4 + list(head), np.int64)
        (x_place, _), (y_place, _) = _places([step.x], offsets, 1), _places([step.y], offsets, 3)
        divisor = np.array([step.divisor], np.float32)
        function = self.kernels.reduction(step.how, along_rows)
        return NativeStep(
            function, lambda: words, 0, (*x_place, *y_place), ((2, divisor),), ends_stage=ends_stage
        )


def _weights(steps: Iterable[Step]) -> set[int]:
    return {id(step.weight) for step in steps if isinstance(step, ContractionStep)}


@lru_cache(maxsize=1024)  # networks repeat themselves
def _loop_shape(
    shape: tuple[int, ...],
    strides: tuple[tuple[int, ...], ...],
    repeats: tuple[int, ...],
    outputs: int,
    threads: int,
) -> LoopShape:
    return LoopShape.of(merge_axes(shape, strides, max(repeats), outputs), threads, repeats)


def _placed(value: Value, offsets: Mapping[Buffer, int]) -> tuple[int, int]:
    """The buffer and the bytes into it; inputs come before outputs."""
    at = value.offset * _ITEM_BYTES
    if value.buffer.kind == "block":
        return BLOCK, offsets[value.buffer] + at
    return value.buffer.place, at


def _places(
    values: list[Value], offsets: Mapping[Buffer, int], first: int
) -> tuple[tuple[Place, ...], tuple[tuple[int, NDArray[Any]], ...]]:
    """Arguments from a number on: places of buffers, and constants."""
    places, constants = list[Place](), list[tuple[int, NDArray[Any]]]()
    for word, value in enumerate(values, first):
        array = value.buffer.array
        if array is None:
            places.append(Place(word, *_placed(value, offsets)))
        else:
            constants.append((word, array.reshape(-1)[value.offset :]))
    return tuple(places), tuple(constants)
