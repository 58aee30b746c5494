"""Steps of sequences that tests make by hand: loops on places, contractions with their twins."""

import numpy as np
from engine.program.loop_calls import CPU, expression_of, native_loop

from tconv import engine
from tconv.engine.choose import all_plans
from tconv.engine.executor import Primitive
from tconv.engine.plan.problem import Problem
from tconv.engine.program.sequence import BLOCK, NativeStep, Place, SequenceRunner
from tconv.ops.planned_call import plan

__all__ = ["Layer", "chain", "loop_step", "primitive_step", "run", "runner_of", "winograd"]

ITEM_BYTES = 4


def runner_of(steps, elements=1, threads=2):
    """A runner of steps whose block has so many elements."""
    return SequenceRunner(steps, ITEM_BYTES * elements, threads, CPU)


def run(runner, inputs, sizes):
    """Run it once; return outputs of these sizes, whose buffers follow those of the inputs."""
    outputs = [np.full(size, np.nan, np.float32) for size in sizes]
    runner.run([*inputs, *outputs])
    return outputs


def loop_step(expression, operands, outputs, size, ends_stage=True):
    """A loop over so many elements. Operands and outputs are a buffer and an element in it, or
    constants: arrays of one number or of all."""
    values = [*operands, *outputs]
    arrays = [v if isinstance(v, np.ndarray) else np.empty(size, np.float32) for v in values]
    function, words, _ = native_loop(
        expression, arrays[: len(operands)], arrays[len(operands) :], threads=4
    )
    places, constants = [], []
    for word, value in enumerate(values, 1):
        if isinstance(value, np.ndarray):
            constants.append((word, value))
        else:
            places.append(Place(word, value[0], ITEM_BYTES * value[1]))
    return NativeStep(
        function, lambda: words, 0, tuple(places), tuple(constants), ends_stage=ends_stage
    )


def chain(steps, size):
    """``x + 1``, then ``*2``, ``- 3``, ``*0.5`` and again, from buffer 0 to buffer 1.

    Each four steps take 0.5 from x, and no other order of them does. Two parts of the block hold
    what is between.
    """
    assert steps % 4 == 0
    made = []
    for n in range(steps):
        name, number = [("add", 1), ("mul", 2), ("sub", 3), ("mul", 0.5)][n % 4]
        x = (0, 0) if n == 0 else (BLOCK, (n - 1) % 2 * size)
        y = (1, 0) if n == steps - 1 else (BLOCK, n % 2 * size)
        operands = [x, np.array([number], np.float32)]
        made.append(loop_step(expression_of(name, 2), operands, [y], size))
    return made


class Layer:
    """A transposed convolution with operands, and what its own call says of them."""

    def __init__(self, x_shape, w_shape, seed=0, has_residual=False, **keywords):
        rng = np.random.default_rng(seed)

        def numbers(shape):
            return rng.standard_normal(shape).astype("float32")

        residual = {"residual": True} if has_residual else {}
        self.call = plan(x_shape, w_shape, **keywords, **residual)
        self.packed = self.call.pack(numbers(w_shape))
        self.bias = numbers(self.call.geometry.out_channels)
        self.x, self.shape = numbers(x_shape), self.call.geometry.y_shape
        self.size = int(np.prod(self.shape))
        self.residual = numbers(self.shape) if has_residual else None
        self.y = self.call(self.x, self.packed, self.bias, residual=self.residual)
        self.scratch_bytes = self.step((0, 0), (1, 0)).scratch_bytes

    def step(self, x, y, residual=None, y_batch=0, ends_stage=True):
        """The step from one place to another: buffers, and bytes into them."""
        primitive, packed = self.call._plan, self.packed.values
        places = (x, y, residual, y_batch, ends_stage)
        return engine.contraction_step(primitive, packed, self.bias, *places)


def winograd(geometry, **problem):
    """A primitive by Winograd's algorithm, and a direct one of the same problem."""
    made = Problem(geometry, **problem)
    plans = all_plans(made, "float32", CPU, 2)
    first = next(each for each in plans if each.algorithm == "winograd")
    other = next(each for each in plans if each.algorithm == "direct")
    return [Primitive(made, "float32", CPU, each) for each in (first, other)]


def primitive_step(primitive, weight, bias, *places, y_batch=0, ends_stage=True):
    """The step of a primitive."""
    groups = primitive.problem.geometry.groups
    packed = primitive.pack(weight.reshape(groups, -1, *weight.shape[1:]))
    residual = places[2] if len(places) > 2 else None
    return engine.contraction_step(
        primitive, packed, bias, *places[:2], residual, y_batch, ends_stage
    )
