"""The explainer as files and in a notebook, without a browser."""

import json
import re
import webbrowser
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from explained import KINDS, drawn_calls, same_bits
from PIL import Image

import tconv
from tconv.errors import ParameterError
from tconv.explainer.drawing import draw
from tconv.explainer.html_page import page_of
from tconv.explainer.raster import _PLAINER, _font, pixels_of
from tconv.explainer.scene import Scene

FORM = {"stride": 2, "padding": 1, "output_padding": 1}


def form():
    """A scene with a crop, extra cells and gaps."""
    return tconv.explain(np.arange(1, 10).reshape(3, 3), np.ones((3, 3)), **FORM)


@pytest.mark.parametrize("explainer", [tconv.explain(), form(), tconv.explain([1, 2], [3])])
def test_the_page_is_one_small_file_that_loads_nothing(explainer, tmp_path):
    explainer.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page == explainer.html()
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in page
    assert len(tconv.explain().html().encode()) <= 103_000
    assert start_of(page) == explainer.scene.state


def start_of(page):
    """What the page starts with."""
    return json.loads(re.search(r'id="start">(.*?)</script>', page)[1])


def test_the_page_holds_the_arrays_that_were_passed():
    for x, w, settings in drawn_calls(1000):
        explainer = tconv.explain(x, w, **settings)
        start = start_of(page_of(explainer.scene, ""))
        assert same_bits(start["x"], x)
        assert same_bits(start["w"], w)
        axes = explainer.scene.axes
        assert start["s"] == [axis.stride for axis in axes]
        assert start["p"] == [[axis.begin, axis.end] for axis in axes]
        assert start["op"] == [axis.extra for axis in axes]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_all_numbers(kind):
    rng = np.random.default_rng(3)
    explainer = tconv.explain(KINDS[kind](rng, (8, 8)), KINDS[kind](rng, (7, 7)), stride=2)
    assert "<svg" in explainer.html()
    for figure in (draw(explainer.scene), draw(explainer.scene, 5)):
        for label in figure.shapes:
            if getattr(label, "middle", False):
                assert len(label.text) <= 8
        assert figure.height < 3 * figure.width
    json.dumps(explainer.facts())
    assert str(explainer).startswith("y[")


def test_long_integers_are_rounded_to_digits_that_are_right():
    explainer = tconv.explain([[123456789]], [[1]])
    for scene in (explainer.scene, tconv.explain([[1]], [[123456789.0]]).scene):
        texts = [getattr(shape, "text", "") for shape in draw(scene).shapes]
        assert texts.count("1.2346e8") == 2
        assert "1.2e8" in texts  # in the matrix, whose cells are small
        assert not any("123460000" in text for text in texts)
    assert str(explainer).startswith("y[0,0] = 1·123456789 = 123456789\n")


def test_a_stamp_is_drawn_as_it_is_summed():
    """A difference of sums would show 0 for y[1], to which the second stamp adds 1e300."""
    figure = draw(Scene.of([1, 1e300], [1, 1]), 1, with_matrix=False)
    cells = [label.text for label in figure.shapes if getattr(label, "middle", False)]
    assert sorted(cells) == ["0", "1", "1", "1", "1", "1", "1e+300"]


def test_a_long_sum_is_told_in_few_digits():
    rng = np.random.default_rng(0)
    short, long = (
        tconv.explain(rng.standard_normal((n, n)), rng.standard_normal((n, n))) for n in (2, 5)
    )
    assert " = " in draw(short.scene).description
    assert draw(short.scene).description in short.facts()["equations"]
    assert " ≈ " in draw(long.scene).description
    assert " = " not in draw(long.scene).description


def test_the_svg_is_xml_with_words_and_numbers(tmp_path):
    form().save(tmp_path / "page.svg")
    root = ElementTree.fromstring((tmp_path / "page.svg").read_text("utf-8"))
    assert root.find("{*}title").text == "Transposed convolution"
    assert "y[2,2] = 1·5 = 5" in root.find("{*}desc").text
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for value in np.ravel(form().facts()["canvas"]):
        assert str(value) in texts
    _, _, width, height = map(int, root.get("viewBox").split())
    for node in root.iter("{http://www.w3.org/2000/svg}path"):
        boxes = re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)", node.get("d"))
        assert len(boxes) == node.get("d").count("M")
        for x, y, w, h in (map(int, box) for box in boxes):
            assert x + w <= width
            assert y + h <= height


@pytest.mark.parametrize("explainer", [tconv.explain(), form()])
def test_a_gif_has_a_frame_for_every_stamp_and_ends_as_the_png(explainer, tmp_path):
    explainer.save(tmp_path / "page.gif")
    explainer.save(tmp_path / "page.png")
    with Image.open(tmp_path / "page.gif") as gif, Image.open(tmp_path / "page.png") as png:
        assert gif.n_frames == np.size(explainer.facts()["x"]) + 1
        frames = []
        for n in range(gif.n_frames):
            gif.seek(n)
            frames.append((np.asarray(gif.convert("RGB")), gif.info["duration"]))
        assert frames[-1][1] > frames[0][1]
        assert np.array_equal(frames[-1][0], np.asarray(png.convert("RGB")))
        assert not np.array_equal(frames[0][0], frames[1][0])


def test_the_last_stamp_completes_the_output():
    explainer = form()
    cells = [shape.text for shape in draw(explainer.scene, 9).shapes if hasattr(shape, "text")]
    done = [shape.text for shape in draw(explainer.scene).shapes if hasattr(shape, "text")]
    numbers = re.compile(r"\d+")
    assert sorted(filter(numbers.fullmatch, cells)) == sorted(filter(numbers.fullmatch, done))


def test_the_pixels_are_where_the_boxes_are():
    figure = draw(Scene.of())
    pixels = np.asarray(pixels_of(figure).convert("RGB"))
    assert pixels.shape == (2 * figure.height, 2 * figure.width, 3)
    lit = next(shape for shape in figure.shapes if getattr(shape, "thickness", 0) == 3)
    assert tuple(pixels[2 * lit.y, 2 * lit.x + lit.width]) == (0x16, 0x19, 0x1D)
    assert tuple(pixels[0, 0]) == (255, 255, 255)


def test_the_font_has_every_sign_that_is_painted():
    font = _font(40)
    missing = bytes(font.getmask("\U0010ffff"))
    signs = {sign for shape in draw(form().scene).shapes for sign in getattr(shape, "text", "")}
    for sign in "".join(signs).translate(_PLAINER).replace(" ", ""):
        assert bytes(font.getmask(sign)) != missing, sign


def test_every_extra_cell_is_tagged():
    texts = [getattr(shape, "text", "") for shape in draw(form().scene).shapes]
    assert texts.count("op") == 6 + 6 - 1
    assert "op" not in [getattr(shape, "text", "") for shape in draw(Scene.of()).shapes]


def test_a_notebook_gets_page_picture_and_text():
    bundle = tconv.explain()._repr_mimebundle_()
    assert sorted(bundle) == ["image/svg+xml", "text/html", "text/plain"]
    assert bundle["text/plain"] == str(tconv.explain())
    assert 'sandbox="allow-scripts allow-downloads"' in bundle["text/html"]
    assert bundle["text/html"].endswith(f"{bundle['image/svg+xml']}</details>")
    srcdoc = re.search(r'srcdoc="([^"]*)"', bundle["text/html"])[1]
    assert "<script" not in srcdoc


def test_show_opens_a_file(monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    path = tconv.explain().show()
    assert opened == [path.as_uri()]
    assert path.read_text("utf-8") == tconv.explain().html()
    path.unlink()


def test_bad_names_of_files(tmp_path):
    with pytest.raises(ParameterError, match=r"must end in one of \.html, \.svg, \.png, \.gif"):
        tconv.explain().save(tmp_path / "page.pdf")
    with pytest.raises(ParameterError, match="must name a file in a folder that exists"):
        tconv.explain().save(tmp_path / "none" / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_without_pillow_there_is_a_message(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"^PNG and GIF need Pillow: pip install pillow\.$"):
        tconv.explain().save(tmp_path / "page.png")
    tconv.explain().save(tmp_path / "page.html")


def test_the_example_writes_the_page(monkeypatch, tmp_path, capsys):
    from loading import example

    module = example("explain")
    monkeypatch.setattr(module, "OUTPUT", tmp_path / "out")
    module.main()
    page = Path(tmp_path / "out" / "explainer.html")
    assert page.read_text("utf-8") == tconv.explain().html()
    assert capsys.readouterr().out.endswith(f"{page.as_uri()}\n")
