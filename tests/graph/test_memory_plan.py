"""Places of buffers on random lifetimes, and the stages that steps run in."""

from itertools import combinations, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from network_graphs import networks
from strategies import draws
from tconv.graph import Programs, UnknownOperator
from tconv.graph.memory_plan import plan_memory, stages_of
from tconv.graph.steps import LoopStep, copy_step
from tconv.graph.values import Value
from tconv.onnx.front_end import graph_of

ITEM_BYTES = 4


@st.composite
def random_steps(draw):
    """Steps that read values or parts of them, which steps before them have written, each once."""
    there, parts, steps = [Value.whole((draw(st.integers(1, 40)),), "input")], [], []
    for _ in range(draw(st.integers(1, 25))):
        read = draw(st.lists(st.sampled_from(there), min_size=1, max_size=3))
        if parts and draw(st.booleans()):
            y = parts.pop(draw(st.integers(0, len(parts) - 1)))
        else:
            kind = draw(st.sampled_from(["block"] * 6 + ["output"]))
            y = Value.whole((draw(st.integers(2, 300)),), kind)
            if draw(st.booleans()):
                at = draw(st.integers(1, y.size - 1))
                parts.append(y.sliced(0, at, y.size - at))
                y = y.sliced(0, 0, at)
        step = copy_step(read[0], y)
        step.operands = read
        there.append(y)
        steps.append(step)
    return steps


def overlap(one, other):
    """Whether two values, of one axis or contiguous, have elements of one buffer in common."""
    first, second = sorted([one, other], key=lambda each: each.offset)
    return one.buffer is other.buffer and first.offset + first.size > second.offset


def lives_of(steps, stages):
    """The stages from the first that writes a buffer of the block to the last that reads it."""
    found = {}
    for step, stage in zip(steps, stages, strict=True):
        for value in (*step.reads, *step.writes):
            if value.buffer.kind == "block":
                found.setdefault(value.buffer, []).append(stage)
    return {buffer: range(min(each), max(each) + 1) for buffer, each in found.items()}


def assert_sound(steps, stages, planned):
    lives = lives_of(steps, stages)
    assert planned.offsets.keys() == lives.keys()
    cells = {b: range(at, at + b.size * ITEM_BYTES) for b, at in planned.offsets.items()}
    for one, other in combinations(lives, 2):
        if set(lives[one]) & set(lives[other]):
            first, second = sorted([cells[one], cells[other]], key=lambda each: each.start)
            assert first.stop <= second.start
    for buffer, at in planned.offsets.items():
        assert at % 64 == 0
        assert 0 <= at <= planned.block_bytes - buffer.size * ITEM_BYTES
    assert planned.block_bytes <= planned.buffer_bytes
    assert planned.buffer_bytes >= sum(buffer.size for buffer in lives) * ITEM_BYTES


def assert_stages(steps, stages):
    assert stages == sorted(stages)
    assert not stages or (stages[0] == 0 and set(stages) == set(range(stages[-1] + 1)))
    for stage in set(stages):
        some = [step for step, each in zip(steps, stages, strict=True) if each == stage]
        for step in some:
            others = [value for each in some if each is not step for value in each.writes]
            assert not any(overlap(value, other) for value in step.reads for other in others)


@draws()
@given(random_steps())
def test_buffers_that_live_at_once_lie_apart(steps):
    stages = stages_of(steps)
    assert_sound(steps, stages, plan_memory(steps, stages))


@draws()
@given(random_steps())
def test_no_step_reads_what_a_step_of_its_stage_writes(steps):
    assert_stages(steps, stages_of(steps))


@draws(0.5)
@given(networks(most=12))
def test_the_same_holds_for_networks(drawn):
    try:
        programs = Programs(graph_of(drawn.model), 2)
        program = programs.program(tuple([each.shape for each in drawn.feeds.values()]))
    except UnknownOperator:
        assume(False)
    stages = stages_of(program.steps)
    assert_sound(program.steps, stages, plan_memory(program.steps, stages))


def chain(count, size=1000):
    values = [Value.whole((size,), "input"), *[Value.whole((size,)) for _ in range(count)]]
    values.append(Value.whole((size,), "output"))
    return [copy_step(x, y) for x, y in pairwise(values)]


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_chain_takes_the_memory_of_two_values(count):
    steps = chain(count)
    planned = plan_memory(steps, stages_of(steps))
    assert planned.buffer_bytes >= count * 1000 * ITEM_BYTES
    assert planned.block_bytes < 2.1 * 1000 * ITEM_BYTES


def test_no_steps_take_no_memory():
    assert stages_of([]) == []
    assert plan_memory([], []) == (0, 0, {})


def test_steps_side_by_side_are_one_stage():
    x = Value.whole((3,), "input")
    steps = [copy_step(x, Value.whole((3,))) for _ in range(3)]
    joined = Value.whole((3,), "output")
    first = steps[0].outputs[0]
    steps.append(LoopStep(steps[0].expression, [first], [joined], [1]))
    assert stages_of(steps) == [0, 0, 0, 1]
