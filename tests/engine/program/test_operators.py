"""Instructions of loops: exact ones give NumPy's bits, others are right to a few places."""

import math

import numpy as np
import pytest
from engine.program.loop_calls import (
    CPU,
    EXACT,
    HERE,
    LANES,
    applied,
    evaluated,
    expression_of,
    instructed,
    run_loop,
)
from hypothesis import given
from hypothesis import strategies as st

from activation_formulas import FORMULAS
from strategies import draws, integers_like
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import PTR, Module
from tconv.engine.kernels.activation import Vectors
from tconv.engine.program.loop_code import OPERATORS
from tconv.engine.program.loops import Expression

each_target = pytest.mark.parametrize("here", HERE, ids=lambda here: here.cpu)
FORMAT = np.finfo(np.float32)
ENDS = [np.inf, -np.inf, np.nan, 0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, FORMAT.max, -FORMAT.max]
ENDS += [FORMAT.smallest_subnormal, -FORMAT.smallest_subnormal, FORMAT.smallest_normal, 2**23 + 1]
ENDS = np.array(ENDS, np.float32)
PARAMETERS = {  # of activations; others have none
    "leaky_relu": (0.25,),
    "prelu": (-2.0,),
    "elu": (1.5,),
    "clip": (-1.0, 6.0),
    "hard_sigmoid": (0.2, 0.5),
    "snake": (0.7,),
}
PLACES = {"exp": 2, "gelu": 7, "gelu_tanh": 6, "snake": 5, "hard_sigmoid": 1}  # of others 3


def functions():
    """The activations that loops know, and how many parameters they have."""
    element = ElementType("float32", CPU)
    code, _ = begin(Module(CPU.triple, ""), "none", {"a": PTR}, element)
    assert isinstance(code, Code)
    return {name: count for name, (count, _) in Vectors(code).functions.items()}


FUNCTIONS = functions()


def ranges(largest):
    """Numbers of every size up to a limit, in a thousand rows' worth of lanes, with a tail."""
    rng = np.random.default_rng(0)
    parts = [rng.uniform(-most, most, 20_000) for most in (0.4, 1, 12, 40, largest)]
    signs = rng.choice([-1.0, 1.0], 20_003)
    parts.append(signs * np.exp2(rng.uniform(-140, np.log2(largest), 20_003)))
    return np.concatenate(parts).astype(np.float32)


def test_every_instruction_is_tested():
    elsewhere = {"sin", "cos", "log", "softplus"}  # test_functions.py
    tested = set(EXACT) | set(FORMULAS) | {"exp", "erf"} | elsewhere
    assert set(OPERATORS) | set(FUNCTIONS) == tested
    assert {name: len(each) for name, each in PARAMETERS.items()} == {
        name: count for name, count in FUNCTIONS.items() if count
    }


@each_target
def test_the_error_function_is_right_to_4e_7_of_1(here):
    x = np.concatenate([ranges(20.0), ENDS])
    found = applied(expression_of("erf", 1), x, here=here)
    expected = np.array([math.erf(each) for each in x.tolist()])
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    known = ~np.isnan(expected)
    assert np.abs(found[known] - expected[known]).max() < 4e-7
    assert np.array_equal(np.signbit(found[known]), np.signbit(x[known]))


# ---- exact ---------------------------------------------------------------------------------------


@each_target
@pytest.mark.parametrize("name", sorted(EXACT))
def test_exact_instructions_give_numpys_bits(name, here):
    """Of numbers of every size, of the ends of the range, and of NaN with each of them."""
    count = OPERATORS.get(name) or 1 + FUNCTIONS[name]
    x = ranges(FORMAT.max)
    rows = [x, *(np.roll(x, 77 * n) * np.float32(0.5) for n in range(1, count))]
    ends = np.meshgrid(*[ENDS] * min(count, 2))
    pairs = [ends[min(n, len(ends) - 1)].ravel() for n in range(count)]
    expression = expression_of(name, count)
    for operands in (rows, pairs):
        if name == "clip":
            operands = [operands[0], np.float32([-1]), np.float32([6])]
        (expected,) = evaluated(expression, operands)
        found = applied(expression, *operands, here=here)
        assert np.array_equal(found, expected, equal_nan=True)


@each_target
@pytest.mark.parametrize("name", ["neg", "floor", "ceil", "fabs", "sqrt", "mul", "div"])
def test_zeros_keep_their_signs(name, here):
    x = np.float32([0.0, -0.0, -0.4, 0.4])
    operands = [x, *[np.float32([2, -2, 2, -2])] * (OPERATORS[name] - 1)]
    (expected,) = evaluated(expression_of(name, len(operands)), operands)
    found = applied(expression_of(name, len(operands)), *operands, here=here)
    assert np.array_equal(np.signbit(found)[:2], np.signbit(expected)[:2])


@each_target
@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_pass_nan_on_from_either_operand(name, here):
    some, nan = ENDS[~np.isnan(ENDS)], np.full(len(ENDS) - 1, np.nan, np.float32)
    for operands in ((some, nan), (nan, some), (nan, nan)):
        assert np.isnan(applied(expression_of(name, 2), *operands, here=here)).all()
    found = applied(expression_of(name, 2), some, some[::-1].copy(), here=here)
    assert np.array_equal(found, EXACT[name](some, some[::-1]))


def test_a_product_and_a_sum_are_two_operations():
    """Else results would differ between processors, and from NumPy's."""
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal(10_000).astype("float32") for _ in range(3)]
    expression = instructed(("mul", (0, 1)), ("add", (3, 2)), operands=3)
    for here in HERE:
        found = applied(expression, *operands, here=here)
        assert np.array_equal(found, *evaluated(expression, operands))


# ---- rounded -------------------------------------------------------------------------------------


def formula(name, x):
    """The function in long double."""
    wide = x.astype(np.longdouble)
    parameters = [np.longdouble(np.float32(each)) for each in PARAMETERS.get(name, ())]
    with np.errstate(all="ignore"):
        return np.exp(wide) if name == "exp" else FORMULAS[name](wide, *parameters)


def by_loop(name, x, here):
    """The same by a loop, whose parameters are operands of one number each."""
    parameters = [np.float32([each]) for each in PARAMETERS.get(name, ())]
    return applied(expression_of(name, 1 + len(parameters)), x, *parameters, here=here)


@each_target
@pytest.mark.parametrize("name", ["exp", *sorted(FUNCTIONS)])
def test_functions_are_right_to_a_few_places(name, here):
    x = ranges(110 if name == "snake" else FORMAT.max / 8)
    expected = formula(name, x)
    with np.errstate(over="ignore", under="ignore"):
        rounded = expected.astype(np.float32)
    scale = np.abs(rounded)
    if name == "hard_sigmoid":  # a sum and, where x < 0, snake's, too
        scale = np.maximum(scale, np.minimum(np.abs(x), 1))
    if name == "snake":
        scale = np.maximum(scale, np.abs(x))
    is_finite = np.isfinite(rounded)
    place = np.spacing(scale[is_finite]).astype(np.longdouble)
    if name == "gelu_tanh":  # exp of a rounded number, which a few places of it move
        size = np.abs(x[is_finite]).astype(np.longdouble)
        place *= 1 + np.minimum(size + 0.045 * np.minimum(size, 100) ** 3, 1000)
    found = by_loop(name, x, here)
    assert np.array_equal(found[~is_finite], rounded[~is_finite])
    apart = np.abs(found[is_finite] - expected[is_finite]) / place
    assert apart.max() <= PLACES.get(name, 3)


@each_target
@pytest.mark.parametrize("name", ["exp", *sorted(FUNCTIONS)])
def test_functions_of_nan_and_of_infinities(name, here):
    x = np.float32([np.nan, np.inf, -np.inf])
    nan, high, low = by_loop(name, x, here)
    assert np.isnan(nan)
    limits = {"tanh": (1, -1), "sigmoid": (1, 0), "hard_sigmoid": (1, 0), "clip": (6, -1)}
    limits |= {"exp": (np.inf, 0), "elu": (np.inf, -1.5), "relu": (np.inf, 0)}
    limits |= {"leaky_relu": (np.inf, -np.inf), "prelu": (np.inf, np.inf)}
    if name == "snake":
        return
    expected_high, expected_low = limits.get(name, (np.inf, np.nan))  # gates, as in PyTorch
    assert np.array_equal([high, low], [expected_high, expected_low], equal_nan=True)


def test_exp_at_the_ends_of_its_range():
    """Subnormal where exp is, 0 below, infinite above the largest number."""
    far = 10.0 ** np.arange(2, 39)  # as masks of attention have them
    x = [np.linspace(-105, -86, 4001), np.linspace(88, 90, 1001), far, -far, [-200, -104.5]]
    x = np.concatenate(x).astype("float32")
    with np.errstate(over="ignore", under="ignore"):
        expected = np.exp(x.astype(np.float64)).astype(np.float32)
    for here in HERE:
        found = applied(expression_of("exp", 1), x, here=here)
        finite = np.isfinite(expected)
        assert np.array_equal(np.isinf(found), ~finite)
        apart = np.abs(found[finite].astype(float) - expected[finite])
        assert (apart <= 2 * np.spacing(expected[finite])).all()


@pytest.mark.parametrize("name", ["exp", *sorted(FUNCTIONS)])
def test_a_result_does_not_depend_on_its_lane(name):
    """Whole vectors, tails and rows of one element give the same bits."""
    x = ranges(50)[:: 120_003 // (5 * LANES[CPU])][: 4 * LANES[CPU] + 3]
    expected = by_loop(name, x, CPU)
    for size in range(1, len(x)):
        assert np.array_equal(by_loop(name, x[:size], CPU), expected[:size])
        assert np.array_equal(by_loop(name, x[-size:], CPU), expected[-size:])


@each_target
def test_a_parameter_may_change_from_element_to_element(here):
    """As the slopes of PRelu do, for each channel or for each element."""
    x = integers_like((3, 4, 37), "float32")
    for shape in ((3, 4, 37), (4, 1), (37,), (3, 1, 1), (1,)):
        slopes = integers_like(shape, "float32", 1)
        found = applied(expression_of("prelu", 2), x, slopes, shape=x.shape, here=here)
        assert np.array_equal(found, np.where(x < 0, x * slopes, x))


# ---- expressions ---------------------------------------------------------------------------------

# A quotient shows the sign of a zero, which max and min may choose.
RANDOM = sorted(set(EXACT) - {"div"})


@st.composite
def expressions(draw, names=RANDOM):
    """Instructions on any of the values before them; some of all values are stored."""
    operands, instructions = draw(st.integers(1, 5)), []
    for _ in range(draw(st.integers(0, 8))):
        name = draw(st.sampled_from(names))
        values = st.integers(0, operands + len(instructions) - 1)
        count = OPERATORS.get(name) or 1 + FUNCTIONS[name]
        instructions.append((name, tuple(draw(values) for _ in range(count))))
    values = st.integers(0, operands + len(instructions) - 1)
    stored = draw(st.lists(values, min_size=1, max_size=3))
    return Expression(operands, tuple(instructions), tuple(stored))


@draws(3)
@given(expressions(), st.integers(1, 70), st.integers(0, 2**32 - 1), st.booleans())
def test_random_expressions_give_numpys_bits(expression, columns, seed, has_ends):
    """Of normal numbers, or of NaN, infinities, subnormal numbers and zeros of both signs."""
    rng = np.random.default_rng(seed)
    operands = []
    for _ in range(expression.operands):
        shape = [(3, columns), (columns,), (3, 1), (1,)][rng.integers(4)]
        x = rng.choice(ENDS, shape) if has_ends else rng.standard_normal(shape) * 4
        operands.append(x.astype("float32"))
    outputs = [np.full((3, columns), 7, np.float32) for _ in expression.stored]
    run_loop(expression, operands, outputs, here=CPU)
    for found, expected in zip(outputs, evaluated(expression, operands), strict=True):
        assert np.array_equal(found, np.broadcast_to(expected, found.shape), equal_nan=True)


INTEGER = ("add", "sub", "mul", "max", "min", "neg", "fabs", "relu")


@draws(1)
@given(expressions(INTEGER), st.integers(1, 70), st.sampled_from(HERE))
def test_expressions_of_small_integers_are_exact(expression, columns, here):
    """As long as values are, whatever the processor."""
    operands = [
        integers_like((2, columns), "float32", n, largest=2) for n in range(expression.operands)
    ]
    wide = evaluated(expression, [each.astype(np.float64) for each in operands])
    outputs = [np.full((2, columns), 7, np.float32) for _ in expression.stored]
    run_loop(expression, operands, outputs, here=here)
    for found, expected in zip(outputs, wide, strict=True):
        if np.abs(wide).max() < 2**24:
            assert np.array_equal(found, expected)


def test_processors_agree():
    """Also where one multiplies and adds at once: exact instructions are two operations there."""
    x = ranges(100)
    expression = instructed(("square", (0,)), ("sqrt", (1,)), ("div", (2, 0)), operands=1)
    expression = expression._replace(stored=(1, 2, 3))
    found = set()
    for here in HERE:
        outputs = [np.empty_like(x) for _ in range(3)]
        run_loop(expression, [x], outputs, here=here)
        found.add(tuple(each.tobytes() for each in outputs))
    assert len(found) == 1


def test_names_of_kernels_tell_expressions_apart():
    made = [
        Expression(2, (("add", (0, 1)),), (2,)),
        Expression(2, (("add", (1, 0)),), (2,)),
        Expression(2, (("sub", (0, 1)),), (2,)),
        Expression(3, (("add", (0, 1)),), (2,)),
        Expression(2, (("add", (0, 1)),), (0,)),
        Expression(2, (("add", (0, 1)),), (2, 2)),
    ]
    assert len({each.digest for each in made}) == len(made)
