"""Several channels: parts, their sums and their sentences."""

import re

import numpy as np
import pytest

import tconv
from tconv.errors import ParameterError, ShapeError
from tconv.explainer.channel_drawing import draw_channels
from tconv.explainer.scene import Scene


def drawn(seed):
    """A call with channels: x of shape (C, *I), w of shape (C, M, *K), and settings."""
    rng = np.random.default_rng(seed)
    rank, ins, outs = int(rng.integers(1, 3)), *(int(n) for n in rng.integers(1, 4, 2))
    x = rng.integers(-9, 10, (ins, *rng.integers(1, 5, rank)))
    w = rng.integers(-9, 10, (ins, outs, *rng.integers(2, 4, rank)))
    settings = {"stride": int(rng.integers(1, 4)), "padding": int(rng.integers(0, 2))}
    return x, w, settings


def calls():
    for seed in range(60):
        x, w, settings = drawn(seed)
        try:
            yield x, w, settings, tconv.explain(x, w, **settings)
        except (ShapeError, ParameterError):
            continue


CALLS = list(calls())


def test_the_parts_add_up_to_the_whole_convolution():
    assert len(CALLS) > 40
    for x, w, settings, explainer in CALLS:
        facts = explainer.facts()["channels"]
        y = tconv.conv_transpose(x.astype(float), w.astype(float), **settings)
        assert np.array_equal(facts["y"], y.reshape(np.shape(facts["y"])))
        assert np.array_equal(np.sum(facts["parts"], axis=1), facts["y"])
        for c, of_c in enumerate(w):
            for m, kernel in enumerate(of_c):
                part = tconv.explain(x[c], kernel, **settings).facts()["y"]
                assert facts["parts"][m][c] == part


def test_each_side_of_a_sentence_has_the_value_of_its_cell():
    sides = 0
    for *_, explainer in CALLS:
        facts = explainer.facts()["channels"]
        for m, equations in enumerate(facts["equations"]):
            for sentence, value in zip(equations, np.ravel(facts["y"][m]), strict=True):
                name, *equal = sentence.replace("·", "*").split(" = ")
                assert name.startswith(f"y[{m},")
                if sentence.endswith("as no tap reaches this cell"):
                    assert value == 0
                    continue
                for side in equal:
                    assert eval(side) == value
                    sides += 1
                assert len(equal) == (3 if len(facts["x"]) > 1 else 2)
    assert sides > 1000


def test_without_numbers_channels_have_a_pattern():
    facts = tconv.explain(lens="channels").facts()["channels"]
    assert facts["x"] == [[[37, 47], [67, 77]], [[1, 3], [5, 7]]]
    assert facts["w"][0][0] == [[1, 2], [3, 4]]
    assert np.shape(facts["w"]) == (2, 2, 2, 2)
    kernels = np.reshape(facts["w"], (4, -1)).tolist()
    assert len(set(map(tuple, kernels))) == 4


def test_channels_that_are_given_alone_get_the_others():
    x = np.arange(12).reshape(3, 2, 2)
    assert tconv.explain(x).facts()["channels"]["x"] == x.tolist()
    w = np.arange(24).reshape(2, 3, 2, 2)
    facts = tconv.explain(w=w).facts()["channels"]
    assert facts["w"] == w.tolist()
    assert facts["x"][0] == [[37, 47], [67, 77]]


@pytest.mark.parametrize(
    ("x", "w", "error", "message"),
    [
        ((2, 2, 2), (3, 2, 2, 2), ShapeError, r"x.shape=\(2, 2, 2\) and w.shape=\(3, 2, 2, 2\)"),
        ((2, 2, 2), (2, 2, 2), ShapeError, "must be"),
        ((2, 2), (2, 2, 2, 2), ShapeError, "must be"),
        (
            (4, 2, 2),
            (4, 1, 2, 2),
            ParameterError,
            "4 input and 1 output channels must be at most 3",
        ),
        ((1, 2, 2), (1, 5, 2, 2), ParameterError, "1 input and 5 output channels must be at most"),
    ],
)
def test_channels_that_do_not_fit(x, w, error, message):
    with pytest.raises(error, match=message):
        tconv.explain(np.ones(x), np.ones(w))


def test_a_drawing_has_all_numbers_and_marks_one_sum():
    for *_, explainer in CALLS[:20]:
        facts = explainer.facts()["channels"]
        size = np.size(facts["y"][0])
        for m, o in ((0, 0), (len(facts["y"]) - 1, size - 1)):
            figure = draw_channels(explainer.scene, o, m)
            assert figure.description == facts["equations"][m][o]
            cells = [s for s in figure.shapes if getattr(s, "middle", False)]
            numbers = [facts[name] for name in ("x", "w", "y")] + [facts["parts"][m]]
            expected = sorted(str(v) for each in numbers for v in np.ravel(each).tolist())
            assert sorted(cell.text for cell in cells) == expected
            lit = [cell.text for cell in cells if cell.bold]
            assert str(facts["y"][m][0][0] if o == 0 else np.ravel(facts["y"][m])[-1]) in lit
            assert figure.width < 2000


def test_numbers_stay_in_the_address():
    x, w = np.arange(12).reshape(3, 2, 2), np.arange(24).reshape(3, 2, 2, 2)
    hash_ = tconv.explain(x, w).url_state()
    assert re.fullmatch(r"#x=0,1;2,3&w=[^&]*&c=3x2&xc=[^&|]*\|[^&|]*&wc=[^&]*&lens=channels", hash_)
    assert hash_.count("|") == 1 + 4
    assert tconv.explain(lens="channels").url_state() == "#lens=channels"


def test_one_axis_has_channels_too():
    explainer = tconv.explain([[1, 2], [3, 4]], np.ones((2, 1, 2)))
    assert explainer.scene.rank == 1
    assert explainer.facts()["channels"]["y"] == [[[4, 10, 6]]]
    assert str(explainer).endswith("2 channels of 2 by kernels of 2 give 1 channel of 3")
    assert isinstance(explainer.scene, Scene)
