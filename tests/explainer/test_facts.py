"""Facts of a scene: sums, counts and sizes agree with the rest of the package."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tconv
from strategies import draws
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.explainer.facts import facts_of
from tconv.explainer.scene import LIMITS, Scene, number_text, short_text

_IS_LONG = np.finfo(np.longdouble).nmant > 52  # not where it is float64


@st.composite
def scenes(draw):
    rank = draw(st.integers(1, 2))
    sizes = [[draw(st.integers(1, most)) for _ in range(rank)] for most in (5, 4)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x, w = (rng.integers(-9, 10, size) for size in sizes)
    settings = {
        "stride": tuple(draw(st.integers(1, 4)) for _ in range(rank)),
        "dilation": tuple(draw(st.integers(1, 3)) for _ in range(rank)),
        "padding": tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank)),
        "output_padding": tuple(draw(st.integers(0, 2)) for _ in range(rank)),
    }
    try:
        return Scene.of(x, w, **settings), x, w, settings
    except (ParameterError, ShapeError):
        assume(False)


def test_the_worked_example():
    facts = tconv.explain().facts()
    assert facts["y"] == [[37, 121, 94], [178, 500, 342], [201, 499, 308]]
    assert facts["equations"][4] == "y[1,1] = 4·37 + 3·47 + 2·67 + 1·77 = 500"
    assert facts["size_formulas"][0] == "(2 − 1)·1 − (0 + 0) + 1·(2 − 1) + 0 + 1 = 3"
    inverse = facts["not_the_inverse"]
    assert inverse["start"] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert inverse["convolved"] == [[37, 47], [67, 77]]
    assert inverse["back"] == facts["y"] != inverse["start"]


@draws(2)
@given(scenes())
def test_y_is_the_transposed_convolution(drawn):
    scene, x, w, settings = drawn
    y = tconv.conv_transpose(x[None, None], w[None, None], **settings)[0, 0]
    assert facts_of(scene)["y"] == np.atleast_2d(y).tolist()


@draws(2)
@given(scenes())
def test_contributions_sum_to_y_and_counts_count_them(drawn):
    facts = facts_of(drawn[0])
    x, w = np.ravel(facts["x"]), np.ravel(facts["w"])
    sums = [sum(x[i] * w[k] for i, k in pairs) for pairs in facts["contributions"]]
    assert sums == np.ravel(facts["y"]).tolist()
    assert [len(pairs) for pairs in facts["contributions"]] == np.ravel(facts["counts"]).tolist()


@draws(2)
@given(scenes())
def test_y_lies_in_the_canvas_behind_the_crop(drawn):
    facts = facts_of(drawn[0])
    canvas, (top, left) = np.array(facts["canvas"]), (begin for begin, _ in facts["padding"])
    height, width = facts["output_size"]
    assert canvas[top : top + height, left : left + width].tolist() == facts["y"]
    assert all(c >= f for c, f in zip(canvas.shape, facts["full_size"], strict=True))


@draws(2)
@given(scenes())
def test_the_stretched_input_convolved_by_the_flipped_kernel_is_y(drawn):
    scene, *_ = drawn
    facts = facts_of(scene)
    size, border = facts["as_convolution"]["stretched_size"], facts["as_convolution"]["border"]
    wide = np.zeros([n + 40 for n in size])  # so that a border may be negative
    x = np.array(facts["x"])
    wide[tuple(slice(20, 20 + n, s) for n, s in zip(size, facts["stride"], strict=True))] = x
    w = np.array(facts["w"])[::-1, ::-1]
    d = facts["dilation"]
    for o, value in np.ndenumerate(np.array(facts["y"])):
        start = [20 - b[0] + n for b, n in zip(border, o, strict=True)]
        window = wide[
            start[0] : start[0] + d[0] * w.shape[0] : d[0],
            start[1] : start[1] + d[1] * w.shape[1] : d[1],
        ]
        assert np.sum(window * w) == value
    ends = (
        n + sum(b) - (k - 1) * step for n, b, k, step in zip(size, border, w.shape, d, strict=True)
    )
    assert list(ends) == facts["output_size"]


@draws(1)
@given(scenes())
def test_the_transpose_obeys_its_rule(drawn):
    inverse = facts_of(drawn[0])["not_the_inverse"]
    assert inverse["inner_small"] == inverse["inner_large"]


def test_facts_are_plain_and_cannot_be_changed():
    explainer = tconv.explain()
    explainer.facts()["y"][0][0] = 0
    assert explainer.facts()["y"][0][0] == 37
    assert all(type(v) is int for row in explainer.facts()["y"] for v in row)


def test_one_axis_is_a_row():
    facts = tconv.explain([1, 2, 3], [1, 1, 1], stride=2, padding=1).facts()
    assert facts["rank"] == 1
    assert facts["y"] == [[1, 3, 2, 5, 3]]
    assert len(facts["size_formulas"]) == 1
    assert facts["code"]["PyTorch"].startswith("y = torch.nn.functional.conv_transpose1d(")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1, 2]], [1]), ShapeError, "x.ndim=2 and w.ndim=1 must be equal"),
        ((np.ones((1, 1, 1, 2)),), ShapeError, r"x.shape=\(1, 1, 1, 2\) must have one or two axes"),
        (([],), ShapeError, r"x.shape=\(0,\) must have one or two axes with cells"),
        ((["a"],), DTypeError, "x.dtype=<U1 must be a type of real numbers"),
        (([[1, 2], [3]],), DTypeError, "x=.* is not rectangular"),
        (([1j],), DTypeError, "x.dtype=complex128 must be"),
        (([np.nan], [1]), ParameterError, "x must be finite"),
        (([1.0], [np.inf]), ParameterError, "w must be finite"),
        ((np.array([np.inf], np.longdouble),), ParameterError, "x must be finite"),
        (
            ([2**53 + 1],),
            ParameterError,
            "x holds 9007199254740993, must hold numbers of float64, of",
        ),
        (([1], [0.5, 2**53 + 1]), ParameterError, "w holds 9007199254740993, must hold"),
        (([np.uint64(2**64 - 1)],), ParameterError, "x holds 18446744073709551615, must hold"),
        (
            (np.array(["1e4000"], np.longdouble) if _IS_LONG else [2**53 + 1],),
            ParameterError,
            "x holds",
        ),
        (
            ([[np.longdouble(1) / 3]] if _IS_LONG else [2**53 + 1],),
            ParameterError,
            "x holds 0.3333",
        ),
        ((np.ma.array([1.0], mask=[True]),), DTypeError, "x is a masked array"),
        ((np.ones(9), [1]), ParameterError, "input size 9 on axis 0 must be 1 to 8 to be drawn"),
        (([1], np.ones(8)), ParameterError, "kernel size 8 on axis 0 must be 1 to 7"),
    ],
)
def test_bad_arrays(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        tconv.explain(*arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 6}, "stride 6 on axis 0 must be 1 to 5"),
        ({"padding": -1}, "padding -1 on axis 0 must be 0 to 6"),
        ({"stride": 2, "output_padding": 2}, r"output_padding\[0\]=2 must be smaller than"),
        ({"stride": 0}, r"stride\[0\]=0 must be at least 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ParameterError, match=f"^{message}"):
        tconv.explain(**settings)


def test_too_many_outputs_to_draw():
    with pytest.raises(ParameterError, match=r"^output size 36 on axis 1 must be at most 32"):
        tconv.explain(np.ones((1, 8)), np.ones((1, 1)), stride=5)
    assert LIMITS["input"] == 8


@pytest.mark.parametrize(
    ("value", "text"),
    [(500.0, "500"), (0.1, "0.1"), (-0.0, "0"), (1e21, "1e+21"), (2.0**60, "1152921504606846976"),
     (1e-5, "0.00001"), (1.5e-6, "0.0000015"), (1e-7, "1e-7"), (-2.5e-10, "-2.5e-10"),
     (1e300, "1e+300"), (float("inf"), "inf"), (float("-inf"), "-inf"), (float("nan"), "nan")],
)  # fmt: skip
def test_numbers_as_text(value, text):
    assert number_text(value) == text


@draws(5)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_text_is_the_number_and_nearly_it_where_it_is_short(value):
    assert float(number_text(value)) == value
    for room in range(4, 12):
        text = short_text(value, room, room)
        assert len(text) <= max(room, 7)
        off = abs(Fraction(text) - Fraction(value))
        digits = len(text.lstrip("-").partition("e")[0].replace(".", "").lstrip("0"))
        assert off == 0 or off <= abs(Fraction(value)) / 10 ** (digits - 1) or digits <= 1
    assert short_text(value, 40) == number_text(value)


@draws(1)
@given(scenes(), st.integers(-1073, 1000))
def test_the_ripple_is_that_of_a_kernel_at_any_scale(drawn, power):
    scene, x, w, settings = drawn
    facts, scaled = facts_of(scene), facts_of(Scene.of(x, w * 2.0**power, **settings))
    assert facts["ripple"] == scaled["ripple"]
    assert facts["ripple_db"] == scaled["ripple_db"]


def test_sums_may_leave_what_float64_holds():
    facts = tconv.explain([[1e308, 1e308]], [[1e308, -1e308]]).facts()
    assert facts["x"] == [[1e308, 1e308]]
    assert facts["y"][0][0] == np.inf
    assert np.isnan(facts["y"][0][1])
    assert facts["equations"][0] == "y[0,0] = 1e+308·1e+308 = inf"
    assert facts["ripple"] == 0
    assert tconv.explain([1], [1e308, -1e308], stride=2).facts()["ripple"] is None


def test_a_negative_zero_is_another_scene():
    for sign in (1.0, -1.0):
        (held,) = tconv.explain([0.0], [sign * 0.0]).facts()["w"][0]
        assert np.copysign(1, held) == sign
