"""Kernels of loops and reductions: complete on every processor, and within their operands."""

from dataclasses import replace
from functools import partial
from math import ceil

import numpy as np
import pytest
from assemblies import TARGETS
from engine.guarded import guarded
from engine.program.loop_calls import (
    CANARY,
    CPU,
    HERE,
    LANES,
    expression_of,
    run_loop,
    run_reduction,
)
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, integers_like
from tconv.engine.codegen.code import write
from tconv.engine.compile.jit import assembly
from tconv.engine.program.elementary_functions import ElementaryFunctions
from tconv.engine.program.kernels import ProgramKernels
from tconv.engine.program.loop_code import OPERATORS
from tconv.engine.program.loop_code import run_loop as loop_code
from tconv.engine.program.loop_code import run_reduction as reduced
from tconv.engine.program.loops import Expression
from tconv.engine.program.sequence_code import NAME, emit
from tconv.engine.target.isa import INSTRUCTION_SETS
from tconv.engine.target.target import named_target, target_of

NEGATE = expression_of("neg", 1)
CALLS = {"call", "callq", "bl", "b.l", "blr"}
WAYS = ["one", "row", "pairs", "any", "each 2", "each 3", "each 4", "each 8", "each 16"]
HOW = ("sum", "max", "min")
ACTIVATIONS = {
    **dict.fromkeys(("relu", "tanh", "sigmoid", "silu", "hard_swish", "gelu", "gelu_tanh"), 0),
    "leaky_relu": 1,
    "prelu": 1,
    "elu": 1,
    "snake": 1,
    "clip": 2,
    "hard_sigmoid": 2,
}
INSTRUCTIONS = OPERATORS | {name: 1 + count for name, count in ACTIVATIONS.items()}
each_target = pytest.mark.parametrize("here", HERE, ids=lambda here: here.cpu)
each_row = pytest.mark.parametrize("row", INSTRUCTION_SETS, ids=lambda row: row.name)


# ---- processors ----------------------------------------------------------------------------------


def text_of(emitter, here):
    """The assembly of a kernel."""
    return assembly("kernel", partial(write, emitter, "kernel", "float32", here), here)


def called(text):
    """The lines of a kernel that call something."""
    lines = [line.split() for line in text.splitlines()]
    return [line for line in lines if (line and line[0] in CALLS) or "@PLT" in " ".join(line)]


def target_with(row):
    """A target with a row and its features; the row of "" stands for any architecture."""
    triple = f"{row.architecture.name or 'riscv64'}-unknown-linux-gnu"
    return replace(target_of(triple, "", dict.fromkeys(row.features, True)), isa=row)


@pytest.mark.parametrize("cpu", TARGETS)
@pytest.mark.parametrize("name", sorted(INSTRUCTIONS))
def test_no_instruction_calls_anything(name, cpu):
    count = INSTRUCTIONS[name]
    made = loop_code(expression_of(name, count), ("row",) * (count + 1), 1)
    assert not called(text_of(made, named_target(cpu)))


@pytest.mark.parametrize("cpu", TARGETS)
def test_no_way_of_reading_and_no_reduction_calls_anything(cpu):
    here = named_target(cpu)
    for way, outer in zip(WAYS, [0, 1, 2, 3, 4, 5, 0, 1, 2], strict=True):
        assert not called(text_of(loop_code(NEGATE, (way, "row"), outer), here)), way
    for how in HOW:
        for along_rows in (False, True):
            assert not called(text_of(reduced(how, along_rows), here)), how


@each_row
def test_every_instruction_set_has_all_kernels(row):
    here = target_with(row)
    for name, count in INSTRUCTIONS.items():
        text = text_of(loop_code(expression_of(name, count), ("row",) * (count + 1), 1), here)
        assert "kernel:" in text
    for way in WAYS:
        assert "kernel:" in text_of(loop_code(NEGATE, (way, "row"), 2), here)
    for how in HOW:
        for along_rows in (False, True):
            assert "kernel:" in text_of(reduced(how, along_rows), here)


@each_row
def test_every_instruction_set_has_the_sequence(row):
    assert f"{NAME}:" in assembly(NAME, emit, target_with(row))


def test_activations_are_those_that_loops_know():
    found = {}

    class Watched(ElementaryFunctions):
        def __init__(self, code):
            super().__init__(code)
            found.update({name: count for name, (count, _) in self.functions.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tconv.engine.program.loop_code.ElementaryFunctions", Watched)
        text_of(loop_code(NEGATE, ("row", "row"), 0), CPU)
    assert found == ACTIVATIONS


@pytest.mark.parametrize("cpu", ["haswell", "skylake-avx512", "neoverse-v1", "apple-m1"])
def test_a_loop_of_contiguous_operands_moves_whole_vectors(cpu):
    """One sum for the loop and one for the tail, and nothing is gathered."""
    here = named_target(cpu)
    text = text_of(loop_code(expression_of("add", 2), ("row", "row", "row"), 0), here)
    assert "gather" not in text
    words = [line.split()[0] for line in text.splitlines() if line.split()]
    assert sum(word.startswith(("vaddps", "fadd")) for word in words) == 2


# ---- names ---------------------------------------------------------------------------------------


def test_kernels_are_found_by_expression_ways_and_axes():
    kernels = ProgramKernels(CPU)
    asked = [
        kernels.loop(expression, reads, outer)
        for expression in (NEGATE, expression_of("square", 1))
        for reads in (("row", "row"), ("one", "row"), ("each 2", "row"), ("each 3", "row"))
        for outer in (0, 1)
    ]
    asked += [kernels.reduction(how, along_rows) for how in HOW for along_rows in (False, True)]
    again = kernels.loop(NEGATE, ("row", "row"), 0)
    kernels.load()
    addresses = [address() for address in asked]
    assert len({*addresses}) == len(addresses)
    assert again() == addresses[0]


def test_what_is_loaded_stays_and_what_is_new_is_added():
    kernels = ProgramKernels(CPU)
    first = kernels.loop(NEGATE, ("row", "row"), 0)
    kernels.load()
    before = first()
    second = kernels.loop(NEGATE, ("pairs", "row"), 0)
    with pytest.raises(KeyError):
        second()
    kernels.load()
    kernels.load()
    assert first() == before != second()
    assert before == other_address(NEGATE, ("row", "row"), 0)


def other_address(*asked):
    """The same kernel of another program."""
    kernels = ProgramKernels(CPU)
    found = kernels.loop(*asked)
    kernels.load()
    return found()


# ---- where memory ends ---------------------------------------------------------------------------


def operand_at(way, columns, at_end):
    """An operand that is read in this way, in as little memory as it needs, and what is read."""
    kind, _, number = way.partition(" ")
    step = {"one": 0, "row": 1, "pairs": 2}.get(kind, int(number or 1))
    if kind == "each":
        x = guarded(integers_like((ceil(columns / step),), "float32", columns), at_end)
        return x, step, np.repeat(x, step)[:columns]
    memory = guarded(integers_like((abs(step) * (columns - 1) + 1,), "float32", columns), at_end)
    x = memory[:: step or 1]
    return x, 1, np.broadcast_to(x, (columns,))


@each_target
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize(
    "way", ["one", "row", "pairs", "any 3", "any -1", "any -5", "each 2", "each 3", "each 16"]
)
def test_loops_touch_nothing_beyond_operands_and_outputs(way, at_end, here):
    """On memory that begins or ends where nobody may read or write."""
    for columns in (*range(1, 2 * LANES[here] + 2), 1023, 9001):
        x, times, expected = operand_at(way, columns, at_end)
        y = guarded(np.full(columns, CANARY), at_end)
        run_loop(NEGATE, [x], [y], here=here, threads=2, repeats=[times])
        assert np.array_equal(y, -expected)


@draws(2)
@given(
    st.lists(st.integers(1, 5), max_size=2),
    st.integers(1, 40),
    st.sampled_from(HERE),
    st.booleans(),
    st.booleans(),
)
def test_rows_of_operands_and_outputs_in_whole_memory(outer, columns, here, at_end, is_turned):
    shape = (*outer, columns)
    a = guarded(integers_like(shape, "float32"), at_end)
    b = guarded(integers_like(shape[-1:], "float32", 1), not at_end)
    a_read = a[..., ::-1] if is_turned else a
    outputs = [guarded(np.full(shape, CANARY), at_end) for _ in range(2)]
    instructions = ("add", (0, 1)), ("mul", (0, 1))
    run_loop(Expression(2, instructions, (2, 3)), [a_read, b], outputs, here=here)
    assert np.array_equal(outputs[0], a_read + b)
    assert np.array_equal(outputs[1], a_read * b)


@draws(3)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 200), st.integers(1, 40) | st.just(1)),
    st.sampled_from(HOW),
    st.sampled_from(HERE),
    st.booleans(),
)
def test_reductions_touch_nothing_beyond_operands_and_results(shape, how, here, at_end):
    x = guarded(integers_like(shape, "float32"), at_end)
    y = guarded(np.full((shape[0], shape[2]), CANARY), at_end)
    run_reduction(how, x, y, here=here, block=16)
    assert np.array_equal(y, getattr(np, how)(x, axis=1))
