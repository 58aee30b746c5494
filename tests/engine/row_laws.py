"""Laws of the algorithms whose lanes are cells of a row of y: their bits are those of others."""

import ctypes
from functools import partial

import numpy as np
import pytest
from engine.row_plans import activated, computed, exact_operands, operands, plans_beside
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from activation_formulas import FORMULAS
from tconv import definition
from tconv.arrays.activations import ACTIVATIONS, as_activation
from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import load
from tconv.engine.kernels.activation import activate
from tconv.engine.layouts import layout_of
from tconv.engine.lowering import Lowering
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target

ARGUMENTS = [
    *("relu", "tanh", "sigmoid", "silu", "hard_swish", "gelu", ("gelu", "tanh")),
    *(("leaky_relu", 0.3), ("prelu", -0.7), ("elu", 1.5), ("clip", -0.5, 0.75)),
    *(("hard_sigmoid", 0.2, 0.5), ("snake", 1.3)),
]
"""One of each kind of activation."""
assert {as_activation(each).name for each in ARGUMENTS} == {*ACTIVATIONS} == {*FORMULAS}
NEEDS_MASKS = pytest.mark.skipif(
    not (target().uses_engine and target().isa.has_masks), reason="these algorithms need masks"
)
TYPES = ("float32", "float64")


def draws_of_kernels(share=1, most=40):
    """Settings of laws whose examples are kernels, of which a process holds all it ever made."""
    return settings(max_examples=min(share * settings().max_examples, most))


@st.composite
def problems(draw, geometries, plan_of):
    """A problem of one of the geometries, a type, and any plan."""
    problem = Problem(draw(geometries), draw(st.sampled_from("yx")))
    dtype = draw(st.sampled_from(TYPES))
    plan = plan_of(draw, problem, dtype)
    assume(plan is not None)
    return problem, dtype, plan


def random_plans_have_the_bits_of_others(geometries, plan_of):
    """With and without bias, on any threads, in tasks of any size."""

    @draws_of_kernels(2, most=80)
    @given(problems(geometries, plan_of), st.booleans(), st.data())
    def law(drawn, has_bias, data):
        problem, dtype, plan = drawn
        read, w, bias = operands(problem, dtype)
        bias = bias if has_bias else None
        found = computed(problem, plan, dtype, read, w, bias)
        other = data.draw(st.sampled_from(plans_beside(problem, dtype, plan)))
        assert np.array_equal(found, computed(problem, other, dtype, read, w, bias))

    law()


def random_plans_are_exact(geometries, plan_of):
    """Of small integers."""

    @draws_of_kernels()
    @given(problems(geometries, plan_of), st.booleans())
    def law(drawn, has_bias):
        problem, dtype, plan = drawn
        read, w, bias = exact_operands(problem, dtype)
        wide = [each.astype(np.float64) for each in (read, w, bias)]
        if not has_bias:
            bias, wide[2] = None, None
        exact = definition.contract(problem.geometry, problem.want, *wide[:2], bias=wide[2])
        assert np.array_equal(computed(problem, plan, dtype, read, w, bias), exact)

    law()


def tasks_and_threads_do_not_show(problem, dtype, plans):
    """Of plans that differ in them only."""
    some = operands(problem, dtype)
    first, *results = (
        computed(problem, plan._replace(threads=threads), dtype, *some)
        for plan in plans
        for threads in (1, 2, 3)
    )
    assert len(results) >= 5
    assert all(np.array_equal(result, first) for result in results)


def fused_equals_unfused(problem, dtype, plan):
    """Whatever is applied: the bits of the sums, and then of the kernel that others call."""
    read, w, bias = operands(problem, dtype)
    sums = computed(problem, plan, dtype, read / 4, w, bias)
    for argument in ARGUMENTS:
        activation = as_activation(argument)
        fused = computed(activated(problem, activation), plan, dtype, read / 4, w, bias)
        assert np.array_equal(fused, _by_kernel(activation, sums)), argument


def families_share_all_but_sizes(some):
    """Problems, types and plans of one family have the same kernels and the same fixed arrays."""
    found = {}
    for problem, dtype, plan in some:
        layout = layout_of(problem, plan, np.dtype(dtype), target())
        lowered = Lowering(layout)
        arrays = {name: array.tolist() for name, array in (lowered.arrays | layout.fixed()).items()}
        shared = lowered.names, lowered.called, arrays
        assert found.setdefault(layout.family, shared) == shared
    assert len(found) < len(some)  # some families have several sizes
    assert len(found) > 1


def _by_kernel(activation, sums):
    """The function by the kernel that plans with buffers call, in whole vectors."""
    dtype, many = sums.dtype.name, 64
    name = f"activate_{activation.name}_{dtype}"
    element = ElementType(dtype, target())
    address = load(name, partial(activate(activation.name), name=name, element=element), target())
    row = np.zeros(-(-sums.size // many) * many, dtype)
    row[: sums.size] = sums.ravel()
    parameters = np.array([*activation.parameters, 0], dtype)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    kind(address)(row.ctypes.data, row.size, parameters.ctypes.data)
    return row[: sums.size].reshape(sums.shape)
