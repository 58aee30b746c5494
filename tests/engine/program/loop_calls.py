"""Calls of loops and reductions on NumPy arrays, as programs make them, and twins in NumPy."""

from functools import partial
from math import ceil, prod

import numpy as np

from tconv.engine.compile.jit import load
from tconv.engine.program.kernels import ProgramKernels
from tconv.engine.program.loops import Expression, LoopShape, merge_axes
from tconv.engine.runtime import thread_pool
from tconv.engine.target.target import named_target, read_target, target

__all__ = [
    "CANARY",
    "CPU",
    "EXACT",
    "HERE",
    "LANES",
    "applied",
    "evaluated",
    "expression_of",
    "framed",
    "instructed",
    "native_loop",
    "native_reduction",
    "output",
    "reduction_words",
    "run_loop",
    "run_reduction",
]

# Where TCONV_CPU=portable turns the engine off, its kernels are tested all the same.
CPU = target() if target().uses_engine else read_target({})
HERE = [CPU]
HERE += [each for each in map(named_target, ("haswell", "x86-64")) if each.runs_here]
HERE = [*{each.cpu: each for each in HERE}.values()]
LANES = {each: each.vector_bits // 32 for each in HERE}
CANARY = np.float32(77)


# ---- expressions ---------------------------------------------------------------------------------

EXACT = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "square": np.square,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
    "fabs": np.fabs,
    "where": lambda x, some, others: np.where(x > 0, some, others),
    "relu": lambda x: np.where(x < 0, np.float32(0), x),
    "leaky_relu": lambda x, slope: x * np.where(x < 0, slope, np.float32(1)),
    "clip": lambda x, low, high: _at_most(np.where(x < low, low, x), high),
}
"""Instructions whose results are rounded once, as NumPy rounds them."""


def _at_most(x, high):
    return np.where(x > high, high, x)


def expression_of(name, operands):
    """One instruction on all operands."""
    return Expression(operands, ((name, tuple(range(operands))),), (operands,))


def instructed(*instructions, operands, stored=None):
    """Several instructions; the last value is stored if nothing else is said."""
    last = operands + len(instructions) - 1
    return Expression(operands, instructions, (last,) if stored is None else stored)


def evaluated(expression, operands):
    """What an expression of exact instructions stores, by NumPy."""
    values = list(operands)
    with np.errstate(all="ignore"):
        for name, places in expression.instructions:
            values.append(EXACT[name](*[values[place] for place in places]))
    return [values[place] for place in expression.stored]


# ---- loops ---------------------------------------------------------------------------------------


def run_loop(expression, operands, outputs, *, threads=1, here=CPU, repeats=None):
    """Write the outputs, all of one shape; operands are broadcast to it. Return the loop's shape.

    `repeats` says how often each element of an operand is read along the last axis.
    """
    function, words, made = native_loop(expression, operands, outputs, threads, here, repeats)
    counter = np.zeros(8, np.int64)
    words[0] = counter.ctypes.data
    words[1 : 1 + len(operands) + len(outputs)] = [
        each.ctypes.data for each in (*operands, *outputs)
    ]
    thread_pool.run(function(), words.ctypes.data, threads, partial(load, target=here))
    return made


def native_loop(expression, operands, outputs, threads=1, here=CPU, repeats=None):
    """What gives the address of a loop, its arguments without addresses, and its shape."""
    shape = outputs[0].shape
    times = [*(repeats or [1] * len(operands)), *[1] * len(outputs)]
    strides = [
        strides_of(each, shape, of_one)
        for each, of_one in zip((*operands, *outputs), times, strict=True)
    ]
    made = LoopShape.of(merge_axes(shape, strides, max(times), len(outputs)), threads, times)
    kernels = ProgramKernels(here)
    function = kernels.loop(expression, made.reads, made.outer)
    kernels.load()
    return function, made.array(1 + len(strides)), made


def strides_of(array, shape, times):
    """Elements from index to index of the loop, along every axis of it."""
    if times > 1:
        assert array.shape[-1] == ceil(shape[-1] / times)
        shape = (*shape[:-1], array.shape[-1])
    return tuple(step // array.itemsize for step in np.broadcast_to(array, shape).strides)


def applied(expression, *operands, shape=None, **keywords):
    """The one output of an expression, as a new array."""
    if shape is None:
        shape = np.broadcast_shapes(*[each.shape for each in operands])
    y = np.full(shape, CANARY)
    run_loop(expression, operands, [y], **keywords)
    return y


def framed(shape, around, value):
    """An array amid others: all that lies around it, and the part itself, which is contiguous
    along the last axis only."""
    whole = np.full([size + 2 * around for size in shape], value, np.float32)
    return whole, whole[(slice(around, -around),) * len(shape)]


def output(shape):
    """The same of canaries, whose rows of one element follow each other."""
    if shape[-1] > 1:
        return framed(shape, 2, CANARY)
    whole = np.full(prod(shape) + 80, CANARY)
    return whole, whole[40:-40].reshape(shape)


# ---- reductions ----------------------------------------------------------------------------------


def run_reduction(how, x, y, divisor=1.0, *, block=None, threads=1, here=CPU):
    """Reduce the middle axis of x (outer, size, inner) to y (outer, inner).

    The last axis of x is contiguous, or has one index and the middle one is.
    """
    function, words = native_reduction(how, x, block, here)
    counter, number = np.zeros(8, np.int64), np.array([divisor], np.float32)
    words[:4] = [each.ctypes.data for each in (counter, x, number, y)]
    thread_pool.run(function(), words.ctypes.data, threads, partial(load, target=here))


def native_reduction(how, x, block=None, here=CPU):
    """What gives the address of a reduction, and its arguments without addresses."""
    kernels = ProgramKernels(here)
    function = kernels.reduction(how, x.shape[2] == 1)
    kernels.load()
    return function, reduction_words(x, block)


def reduction_words(x, block=None):
    """The arguments of a reduction, in tasks of so many columns."""
    outer, size, inner = x.shape
    block = inner if block is None else min(block, inner)
    blocks = ceil(inner / block)
    steps = [step // x.itemsize for step in x.strides]
    head = (outer * blocks, size, steps[0], steps[1], inner, block, blocks)
    return np.array([0] * 4 + list(head), np.int64)
