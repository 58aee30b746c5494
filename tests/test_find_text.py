"""The example that finds text does what it says, on made-up maps and without the network."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from loading import example
from tconv.images import read_picture, write_picture

find_text = example("find_text")

TABLE = f"""layer        y   tconv ms  ORT ms  ratio
whole             1.000   1.100  1.10×
whole model       8.000   7.600  0.95×
2 of 2 {find_text.TAKEN} · medians of 5 runs each
"""  # with a layer that is called "whole"


def map_of(height, width, *texts):
    """Make a map with a probability in every (rows, columns, probability) and 0 elsewhere."""
    probability = np.zeros((height, width), np.float32)
    for rows, columns, value in texts:
        probability[rows, columns] = value
    return probability


def rectangle(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


# ---- from the map to boxes -----------------------------------------------------------------------


def test_a_core_grows_by_its_area_over_its_perimeter():
    [box] = find_text.boxes_of(map_of(60, 90, (np.s_[20:28], np.s_[30:62], 0.9)))
    offset = 8 * 32 * 1.6 / (2 * (8 + 32))
    np.testing.assert_allclose(
        box, rectangle(30 - offset, 20 - offset, 62 + offset, 28 + offset), atol=1e-9
    )


def test_a_box_ends_at_the_border():
    [box] = find_text.boxes_of(map_of(12, 40, (np.s_[1:11], np.s_[0:40], 0.9)))
    assert box.tolist() == rectangle(0, 0, 40, 12)


def test_texts_that_touch_at_a_corner_are_one():
    left = np.s_[10:15], np.s_[10:20], 0.9
    touching = np.s_[15:20], np.s_[20:30], 0.9
    apart = np.s_[15:20], np.s_[21:30], 0.9
    assert len(find_text.boxes_of(map_of(40, 40, left, touching))) == 1
    assert len(find_text.boxes_of(map_of(40, 40, left, apart))) == 2


@pytest.mark.parametrize(
    ("core", "rest", "found"),
    [
        (0.49, 0.0, 0),
        (0.51, 0.0, 1),
        (0.9, 0.31, 0),  # 4 rows of 20 belong to the core, and pull its mean to 0.43
        (0.9, 0.3, 1),  # only what is above 0.3 belongs to it
    ],
)
def test_what_is_unlikely_is_no_text(core, rest, found):
    probability = map_of(40, 40, (np.s_[10:30], np.s_[10:30], rest))
    probability[10:14, 10:30] = core
    assert len(find_text.boxes_of(probability)) == found


@pytest.mark.parametrize(("rows", "found"), [(1, 0), (2, 0), (3, 1)])
def test_a_speck_is_no_text(rows, found):
    probability = map_of(20, 20, (slice(10, 10 + rows), slice(2, 18), 1))
    assert len(find_text.boxes_of(probability)) == found
    assert len(find_text.boxes_of(probability.T)) == found


def test_boxes_come_from_the_top_down():
    # regions are labelled row by row, and the one on the right begins first
    probability = map_of(40, 60, (np.s_[5:35], np.s_[50:55], 0.9), (np.s_[8:12], np.s_[5:30], 0.9))
    heights = [box[:, 1].mean() for box in find_text.boxes_of(probability)]
    np.testing.assert_allclose(heights, [10, 20])


@pytest.mark.parametrize("degrees", [-40, -20, -2.5, 0, 2.5, 20, 40])
def test_the_box_of_a_tilted_text_is_tilted(degrees):
    along, across = 100, 12
    angle = np.radians(degrees)
    y, x = np.mgrid[:160, :160] + 0.5 - 80
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside = (abs(u) < along / 2) & (abs(v) < across / 2)
    [box] = find_text.boxes_of(inside.astype(np.float32))
    (right, down), (_, below) = box[1] - box[0], box[3] - box[0]
    assert np.degrees(np.arctan2(down, right)) == pytest.approx(degrees, abs=1)
    assert below > 0  # clockwise from the top left
    offset = along * across * 1.6 / (2 * (along + across))
    sides = np.linalg.norm(np.diff(box, axis=0), axis=1)
    np.testing.assert_allclose(sides[:2], [along + 2 * offset, across + 2 * offset], atol=2.5)
    np.testing.assert_allclose(box.mean(axis=0), 80, atol=0.6)


def test_the_smallest_rectangle_holds_every_pixel():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels = rng.integers(0, 30, (12, 2))
        turn, low, high = find_text.smallest_rectangle(pixels)
        np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-12)
        corners = np.concatenate([pixels[:, ::-1] + c for c in np.ndindex(2, 2)]) @ turn
        assert (corners >= low - 1e-9).all()
        assert (corners <= high + 1e-9).all()
        upright = np.ptp(pixels, axis=0) + 1
        assert np.prod(high - low) <= np.prod(upright) + 1e-9


def test_an_empty_map_has_no_box():
    assert find_text.boxes_of(np.zeros((5, 7), np.float32)) == []
    assert find_text.count([]) == "no lines of text"


# ---- the page and the sheet ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "padded"), [((1, 1), (32, 32)), ((32, 64), (32, 64)), ((191, 384), (192, 384))]
)
def test_a_page_is_padded_by_its_edge(size, padded):
    page = np.random.default_rng(0).integers(0, 256, (3, *size)).astype(np.uint8)
    found = find_text.padded(page)
    assert found.shape == (3, *padded)
    rows, columns = (np.minimum(range(n), last - 1) for n, last in zip(padded, size, strict=True))
    assert np.array_equal(found, page[:, rows][:, :, columns])


def test_the_default_page_is_that_of_scikit_image():
    page = find_text.read_page(None)
    assert (page.shape, page.dtype) == ((3, 191, 384), np.uint8)


def test_the_sheet_shows_page_boxes_and_map():
    page = np.full((3, 192, 384), 200, np.uint8)
    probability = map_of(192, 384, (np.s_[50:60], np.s_[100:200], 1))
    box = np.array(rectangle(90.0, 40.0, 210.0, 70.0))
    picture = find_text.sheet(page, probability, [box])
    left, right, top = 12, 12 + 768 + 12, 34
    assert picture.shape == (3, top + 384 + 12, right + 768 + 12)
    shown, core = (picture[:, top : top + 384, at : at + 768] for at in (left, right))
    assert core[0].sum() == 255 * probability.sum() * 4
    red = (shown == np.reshape(find_text.COLOUR, (3, 1, 1))).all(axis=0)
    rows, columns = np.nonzero(red)
    np.testing.assert_allclose([columns.min(), columns.max()], [180, 420], atol=2)
    np.testing.assert_allclose([rows.min(), rows.max()], [80, 140], atol=2)
    assert (shown[:, ~red] == 200).all()
    assert picture[:, :top].std() > 5  # the labels


def test_a_large_page_is_not_enlarged_and_a_narrow_one_has_room_for_labels():
    for height, width in ((5, 1200), (900, 4)):
        page = np.zeros((3, height, width), np.uint8)
        picture = find_text.sheet(page, np.zeros((height, width), np.float32), [])
        assert picture.shape[1] == 34 + height + 12
        assert picture.shape[2] >= 2 * 150


# ---- the program ---------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """A file that passes for the model, as nothing reads it here."""
    path = tmp_path / "model.onnx"
    path.touch()
    return path


@pytest.fixture
def command_line(monkeypatch):
    """Stand in for `tconv run`: the map is how dark the page is."""

    def answer(stdout=TABLE, code=0, shape=None):
        def run(words, *, cwd, **options):
            seen.append(words)
            page = read_picture(Path(cwd) / words[words.index("-o") - 1], channels=1)
            dark = (1 - page[np.newaxis] / np.float32(255)).astype(np.float32)
            found = dark if shape is None else np.zeros(shape, np.float32)
            np.savez(Path(cwd) / words[words.index("-o") + 1], probability=found)
            return subprocess.CompletedProcess(words, code, stdout)

        monkeypatch.setattr(find_text.subprocess, "run", run)
        return seen

    seen = []
    return answer


def test_the_page_goes_through_the_command_line_and_comes_back_in_its_size(model, command_line):
    page = np.random.default_rng(0).integers(0, 256, (3, 33, 70)).astype(np.uint8)
    page[:] = page[0]
    seen = command_line()
    probability = find_text.detect(model, page)
    [words] = seen
    assert words[1:4] == ["-m", "tconv", "run"]
    assert words[4] == str(model.resolve())
    assert words[8:] == ["--mean", "0.5", "--std", "0.5", "--compare"]
    np.testing.assert_allclose(probability, 1 - page[0] / 255, atol=1e-6)


def test_the_program_says_how_many_lines_there_are(model, command_line, tmp_path, capsys):
    command_line()
    page = np.full((3, 50, 80), 255, np.uint8)
    page[:, 10:16, 10:70] = page[:, 30:36, 10:40] = 0
    write_picture(tmp_path / "page.png", page)
    output = tmp_path / "new" / "found.png"
    options = ["--model", model, "--picture", tmp_path / "page.png", "--output", output]
    find_text.main([str(option) for option in options])
    printed = capsys.readouterr().out
    assert "page.png -o map.npz --mean 0.5 --std 0.5 --compare" in printed
    assert TABLE in printed
    assert "Found 2 lines of text." in printed
    assert str(output) in printed
    assert read_picture(output).std() > 20  # not a blank page


@pytest.mark.parametrize(
    ("lines", "words"), [(0, "Found no lines of text."), (1, "Found 1 line of text.")]
)
def test_few_lines_are_told_too(model, command_line, tmp_path, capsys, lines, words):
    command_line()
    page = np.full((3, 50, 80), 255, np.uint8)
    page[:, 10 : 10 + 6 * lines, 10:70] = 0
    write_picture(tmp_path / "page.png", page)
    paths = {"--model": model, "--picture": tmp_path / "page.png", "--output": tmp_path / "o.png"}
    find_text.main([str(word) for pair in paths.items() for word in pair])
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"stdout": ""}, "The table must have a row 'whole model' that ends with two times"),
        ({"stdout": "whole model  –  7.6  –\n"}, "must have a row 'whole model' that ends with"),
        ({"stdout": "", "code": 2}, "`tconv run` ended with exit code 2"),
        ({"shape": (1, 2)}, r"gave \(1, 2\), no map of the page"),
    ],
)
def test_an_answer_that_is_none_is_explained(model, command_line, answer, message):
    command_line(**answer)
    with pytest.raises(SystemExit, match=message):
        find_text.detect(model, np.zeros((3, 40, 40), np.uint8))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (TABLE, "0.95 times as fast as ONNX Runtime alone, and computed 2 of its 2 ConvTranspose."),
        (TABLE.replace("×", "x"), "tconv ran the network 0.95 times as fast"),
        (TABLE.replace("7.600  0.95", "98.40  12.30"), "ran the network 12.30 times as fast"),
        (
            TABLE.replace("0.95×", "≈"),
            "0.95 times as fast as ONNX Runtime alone (too near to 1 for",
        ),
        (
            TABLE.replace("0.95×", "?"),
            "0.95 times as fast as ONNX Runtime alone (too near to 1 for",
        ),
        (TABLE.replace("2 of 2", "1 of 2"), "and computed 1 of its 2 ConvTranspose."),
        (TABLE.replace("2 of 2", "0 of 2"), "alone, to which it left all of it: there was little"),
        (TABLE.partition("2 of 2")[0], "alone, to which it left all of it: there was little"),
        (
            "whole   8.000   8.800  1.10×\nmodel\n2 of 2\n" + "\n".join(find_text.TAKEN.split()),
            "1.10 times as fast as ONNX Runtime alone, and computed 2 of its 2 ConvTranspose.",
        ),
    ],
    ids=[
        "",
        "plainer signs",
        "large",
        "near",
        "near, plainly",
        "some",
        "none",
        "nobody told",
        "folded",
    ],
)
def test_the_program_says_how_fast_it_was_and_who_computed(
    model, command_line, capsys, table, sentence
):
    command_line(stdout=table)
    assert find_text.detect(model, np.zeros((3, 3, 5), np.uint8)).shape == (3, 5)
    assert sentence in capsys.readouterr().out.partition(table)[2]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--model", "nowhere.onnx", "nowhere.onnx is missing: run `make demo`, which fetches it."),
        ("--picture", "nowhere.png", "No such file or directory: 'nowhere.png'"),
        ("--picture", __file__, "must be a picture in a format that Pillow reads"),
        ("--output", "out.text", "must end in the suffix of a picture format"),
    ],
)
def test_wrong_options_are_explained(model, command_line, option, value, message):
    command_line()
    with pytest.raises(SystemExit) as caught:
        find_text.main(["--model", str(model), option, value])
    assert message in str(caught.value)
