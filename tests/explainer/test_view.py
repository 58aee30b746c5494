"""Lens, step and cell: what addresses, pictures and animations make of them."""

import pickle
import re

import numpy as np
import pytest
from PIL import Image

import tconv
from tconv.errors import ParameterError
from tconv.explainer.drawing import Box, draw
from tconv.explainer.scene import Scene
from tconv.explainer.view import LENSES, View, steps_of

FORM = {"stride": 2, "padding": 1, "output_padding": 1}


@pytest.mark.parametrize(
    ("chosen", "hash_"),
    [
        ({"lens": "collect"}, ""),
        ({"lens": "collect", "step": 5}, ""),
        ({"step": 6}, "#step=6"),
        ({"cell": (1, 2)}, "#sel=o1,2"),
        ({"lens": "stamp"}, "#lens=stamp"),
        ({"lens": "stamp", "step": 1, "cell": (0, 0)}, "#lens=stamp&step=1&sel=o0,0"),
        ({"lens": "conv", "cell": (2, 2), "stride": 2}, "#s=2&lens=conv&sel=o2,2"),
        ({"lens": "channels", "step": 18}, "#lens=channels&step=18"),
        ({"lens": "channels", "cell": (1, 2, 1)}, "#lens=channels&sel=o1,2,1"),
        ({"lens": "channels", "cell": (1, 2)}, "#lens=channels&sel=o1,2,0"),
        ({"lens": "picture"}, "#lens=picture"),
        ({"lens": "picture", "stride": 1, "cell": (3, 4)}, "#s=1&lens=picture&sel=o3,4"),
    ],
)
def test_the_address_names_what_differs(chosen, hash_):
    assert tconv.explain(**chosen).url_state() == hash_


def test_a_cell_of_one_axis_needs_one_number():
    assert tconv.explain([1, 2, 3], [1, 1], cell=3).url_state() == "#x=1,2,3&w=1,1&sel=o0,3"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"lens": "stmap"}, r"lens='stmap' must be one of stamp, .*; did you mean 'stamp'\?"),
        ({"lens": 3}, "lens=3 must be one of stamp, collect, conv, channels, picture; pass one"),
        ({"step": 0}, "step=0 must be a whole number from 1 to 9: .* the output cells"),
        ({"step": 10}, "step=10 must be"),
        ({"step": True}, "step=True must be"),
        ({"lens": "stamp", "step": 5}, "from 1 to 4: the lens 'stamp' goes through the input"),
        ({"cell": (3, 0)}, r"cell=\(3, 0\) must be an output cell: row 0 to 2, column 0 to 2"),
        ({"cell": (0, 0, 0)}, "must be an output cell"),
        ({"cell": 4}, "cell=4 must be"),
        ({"cell": (0.5, 0)}, "must be an output cell"),
        ({"cell": (-1, 0)}, "must be an output cell"),
        ({"lens": "channels", "cell": (0, 0, 2)}, "column 0 to 2, channel 0 to 1"),
        ({"lens": "picture", "x": [[1]]}, 'must be None for the lens "picture"'),
        ({"lens": "picture", "w": [1, 2]}, "must have two axes"),
        ({"lens": "picture", "stride": 6}, "stride 6 on axis 0 must be 1 to 5"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(chosen, message):
    with pytest.raises(tconv.TConvError, match=message):
        tconv.explain(**chosen)


@pytest.mark.parametrize("lens", LENSES)
def test_every_step_is_drawn_with_its_sentence(lens):
    explainer = tconv.explain(lens=lens)
    scene, facts = explainer.scene, explainer.facts()
    steps = steps_of(scene, lens)
    for step in (1, 2, steps):
        other = tconv.explain(lens=lens, step=step)
        sentence = other._drawn(other.view).description
        o, channel = View(lens, step).output(scene)
        if lens == "stamp":
            assert (
                sentence == f"stamp {step} of 4: {np.ravel(facts['x'])[step - 1]} times the kernel"
            )
        elif lens == "channels":
            assert sentence == facts["channels"]["equations"][channel][o]
        else:
            assert sentence == facts["equations"][o]
            assert str(other).startswith(sentence)
    with pytest.raises(ParameterError):
        tconv.explain(lens=lens, step=steps + 1)


def test_a_pinned_cell_is_drawn_in_every_lens():
    for lens in LENSES:
        explainer = tconv.explain(lens=lens, cell=(0, 2))
        assert explainer._drawn(explainer.view).description.startswith("y[0,")
        assert "y[0," in explainer.svg()


@pytest.mark.parametrize("settings", [FORM, {"stride": (1, 2)}, {"padding": ((1, 0), (0, 1))}])
def test_the_window_of_the_convolution_reads_what_is_summed(settings):
    x, w = np.arange(1, 10).reshape(3, 3), np.ones((2, 3))
    scene = Scene.of(x, w, **settings)
    facts = tconv.explain(x, w, **settings).facts()
    for o, pairs in enumerate(facts["contributions"]):
        shapes = draw(scene, output=o, as_convolution=True, with_matrix=False).shapes
        frame = next(s for s in shapes if isinstance(s, Box) and s.fill is None)
        numbers = [
            int(s.text)
            for s in shapes
            if getattr(s, "middle", False) and s.text in "123456789"
            and frame.x < s.x < frame.x + frame.width and frame.y < s.y < frame.y + frame.height
        ]  # fmt: skip
        assert sorted(numbers) == sorted(x.flat[i] for i, _ in pairs)


@pytest.mark.parametrize("lens", ["stamp", "collect", "conv", "channels"])
def test_an_animation_has_a_frame_for_each_step(lens, tmp_path):
    explainer = tconv.explain(lens=lens)
    explainer.save(tmp_path / "page.gif")
    with Image.open(tmp_path / "page.gif") as gif:
        assert gif.n_frames == steps_of(explainer.scene, lens)
        gif.seek(0)
        first = np.asarray(gif.convert("RGB"))
        gif.seek(gif.n_frames - 1)
        assert not np.array_equal(first, np.asarray(gif.convert("RGB")))
    tconv.explain(lens=lens, step=1).save(tmp_path / "first.png")
    with Image.open(tmp_path / "first.png") as png:
        height, width = np.minimum(first.shape, np.asarray(png.convert("RGB")).shape)[:2]
        assert np.array_equal(
            first[:height, :width], np.asarray(png.convert("RGB"))[:height, :width]
        )


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"lens": "picture"}, "has 9409 steps, must have at most 256 for a .gif"),
        ({"step": 1}, "step and cell must be None for a .gif"),
        ({"cell": (0, 0)}, "step and cell must be None for a .gif"),
    ],
)
def test_animations_that_cannot_be(chosen, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        tconv.explain(**chosen).save(tmp_path / "page.gif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "chosen",
    [{}, {"lens": "picture", "cell": (1, 1)}, {"lens": "stamp", "step": 2}, {"lens": "channels"}],
)
def test_an_explainer_is_pickled(chosen):
    explainer = tconv.explain(**chosen)
    copy = pickle.loads(pickle.dumps(explainer))
    assert copy == explainer
    assert copy.html() == explainer.html()


def test_an_old_pickle_is_read():
    explainer = tconv.explain(stride=2)
    old = explainer.__getstate__()[:3]
    copy = object.__new__(type(explainer))
    copy.__setstate__(old)
    assert copy == explainer
    assert copy.url_state() == "#s=2"


def test_pages_start_with_what_was_chosen():
    page = tconv.explain(lens="conv", step=3, cell=(1, 1)).html()
    assert re.search(r'"lens":"conv","step":3,"sel":"o1,1"', page)
    assert '"lens"' not in re.search(r'id="start">(.*?)</script>', tconv.explain().html())[1]
