"""The picture: its numbers, and its way through a kernel."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

import tconv
from tconv.explainer.picture import GREYS, landscape, picture_text
from tconv.explainer.picture_drawing import draw_picture
from tconv.explainer.raster import pixels_of
from tconv.explainer.scene import Scene

KERNELS = {
    "uneven": (np.ones((3, 3)), 2),
    "even": (np.ones((4, 4)), 2),
    "negative": (np.array([[1, -2], [-3, 1]]), (2, 3)),
    "wide": (np.ones((7, 7)), 5),
}


def test_the_picture_has_small_whole_numbers_and_all_kinds_of_parts():
    image = landscape()
    assert image.shape == (48, 48)
    assert np.array_equal(image, np.floor(image))
    assert 0 <= image.min() < 10
    assert 55 < image.max() < GREYS
    assert len(np.unique(image)) > 40
    flat = np.abs(np.diff(image, axis=1)) <= 1
    assert flat.mean() > 0.6  # smooth enough for a pattern to stand out


def unpacked(text):
    return "".join(
        grey * (ord(count) - 31 if count else 1)
        for grey, count in re.findall(r"([?-~])([!-:]?)", text)
    )


@pytest.mark.parametrize("image", [landscape(), np.zeros((48, 48)), np.arange(64.0).reshape(8, 8)])
def test_the_text_of_the_page_holds_every_pixel(image):
    text = picture_text(image)
    assert "<" not in text
    assert [ord(sign) - 63 for sign in unpacked(text)] == image.astype(int).ravel().tolist()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_output_is_the_transposed_convolution(kernel):
    w, stride = KERNELS[kernel]
    facts = tconv.explain(w=w, stride=stride, lens="picture").facts()
    y = tconv.conv_transpose(landscape()[None], w[None, None].astype(float), stride=stride)
    assert np.array_equal(facts["y"], y[0])


def test_the_default_is_a_checkerboard():
    facts = tconv.explain(lens="picture").facts()
    assert facts["stride"] == [2, 2]
    assert facts["w"] == [[1, 1, 1]] * 3
    assert facts["even"] == [False, False]
    counts = np.array(facts["counts"])
    assert sorted(set(counts[4:-4, 4:-4].ravel())) == [1, 2, 4]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_drawing_shows_pixels_counts_and_the_sum(kernel):
    w, stride = KERNELS[kernel]
    explainer = tconv.explain(w=w, stride=stride, lens="picture")
    facts = explainer.facts()
    y = np.array(facts["y"])
    for o in (0, y.size // 2, y.size - 1):
        figure = draw_picture(explainer.scene, o)
        assert figure.description == facts["equations"][o]
        notes = [s.text for s in figure.shapes if re.fullmatch(r"\d×", getattr(s, "text", ""))]
        assert notes.count(f"{facts['counts'][o // y.shape[1]][o % y.shape[1]]}×") >= 1
        assert len(notes) == 49
        lit = [s.text for s in figure.shapes if getattr(s, "middle", False) and s.bold]
        assert str(y.flat[o]) in lit
        assert pixels_of(figure).size == (2 * figure.width, 2 * figure.height)


def test_the_svg_holds_the_pixels_as_png():
    svg = tconv.explain(lens="picture").svg()
    found = re.findall(r'href="data:image/png;base64,([^"]*)"', svg)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]
    assert [image.size for image in images] == [(48, 48), (97, 97)]
    y = np.array(tconv.explain(lens="picture").facts()["y"], float)
    for image, numbers in zip(images, (landscape(), y), strict=True):
        assert image.mode == "L"
        greys = np.asarray(image)
        assert np.abs(greys - 255 * numbers / numbers.max()).max() <= 0.5


def test_numbers_without_a_range_are_black():
    scene = Scene.of_picture(np.zeros((2, 2)))
    assert draw_picture(scene, 0).description == "y[0,0] = 0·27 = 0"
    huge = Scene.of_picture(np.full((2, 2), 1.7e308))
    assert "inf" in draw_picture(huge, 0).description
