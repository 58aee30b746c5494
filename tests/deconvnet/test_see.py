"""Results of `see`: examples worked by hand, units, grey levels, files and errors."""

import re
from contextlib import nullcontext

import numpy as np
import pytest
from onnx import helper, numpy_helper
from PIL import Image

import tconv
from networks import network_of, proto_of
from strategies import integers_like
from tconv.deconvnet.tile_pictures import enlarged, photo_of
from tconv.deconvnet.weight_randomisation import rank_correlation


def w(*shape):
    return integers_like(shape, "float32", 1, largest=3)


FILTER = np.float32([[1, 2], [3, -4]]).reshape(1, 1, 2, 2)
IMAGE = np.float32([[1, 0, 2, 0], [5, 1, 0, 1], [0, 2, 1, 0], [1, 0, 0, 3]])[np.newaxis]
EDGE = proto_of([("Conv", "image w", "c", {}), ("Relu", "c", "r", {})], {"w": FILTER}, (1, 1, 4, 4))


def test_one_filter_by_hand():
    """At (0, 0): 1*1 + 2*0 + 3*5 - 4*1 = 12, the largest; it comes back as 12 times the filter."""
    expected = np.zeros((1, 4, 4))
    expected[0, :2, :2] = [[12, 24], [36, -48]]
    for rule in ("deconvnet", "gradient", "guided"):
        seen = tconv.see(EDGE, IMAGE, rule=rule, crop=False)
        (tile,) = seen.tiles
        assert (tile.unit, tile.activation, tile.field) == ((0, 0, 0), 12, ((0, 1), (0, 1)))
        assert np.array_equal(tile.projection, expected)
        (cropped,) = tconv.see(EDGE, IMAGE, rule=rule).tiles
        assert np.array_equal(cropped.projection, expected[:, :2, :2])
        assert str(seen.ledger) == "reversed 2 nodes: Conv×1 filter, Relu×1 rectify"


def test_all_of_a_map_is_the_sum_of_its_units():
    joint = tconv.see(EDGE, IMAGE, seed="all")
    maps = np.maximum(tconv.conv(IMAGE[np.newaxis], FILTER), 0)
    parts = sum(
        tconv.see(EDGE, IMAGE, unit=(0, *at), crop=False).tiles[0].projection
        for at in np.ndindex(maps.shape[2:])
    )
    assert np.array_equal(joint.tiles[0].projection, parts)
    assert "at once, which is not in the paper" in joint.captions[0]


def test_rules_differ_where_a_signal_is_negative_or_a_rectifier_was_shut():
    nodes = [("Conv", "image a", "c", {}), ("Relu", "c", "r", {}), ("Conv", "r b", "y", {})]
    stored = {"a": np.float32([1, -1, 1]).reshape(3, 1, 1, 1),
              "b": np.float32([2, 5, -3]).reshape(1, 3, 1, 1)}  # fmt: skip
    proto = proto_of(nodes, stored, (1, 1, 1, 1))
    image = np.float32([4]).reshape(1, 1, 1)  # c = 4 -4 4, r = 4 0 4, y = 8 - 12 = -4
    backs = {
        rule: tconv.see(proto, image, "y", rule=rule).tiles[0].projection.item()
        for rule in ("gradient", "deconvnet", "guided")
    }
    # R = -4 times (2, 5, -3) = (-8, -20, 12), then times (1, -1, 1).
    assert backs == {"gradient": -8 + 12, "deconvnet": 12, "guided": 12}
    image = -image  # c = -4 4 -4, r = 0 4 0, y = 20; R = (40, 100, -60)
    backs = [
        tconv.see(proto, image, "y", rule=rule).tiles[0].projection.item()
        for rule in ("gradient", "deconvnet", "guided")
    ]
    assert backs == [-100, 40 - 100, -100]


# ---- which units ---------------------------------------------------------------------------------

THREE = proto_of(
    [("Conv", "image w", "c", {}), ("Relu", "c", "r", {})],
    {"w": np.float32([1, 1, 2]).reshape(3, 1, 1, 1)}, (1, 1, 2, 3),
)  # fmt: skip


def test_the_strongest_features_of_one_image():
    image = np.float32([[0, 5, 1], [5, 2, 0]])[np.newaxis]
    seen = tconv.see(THREE, image, top=2)
    # Feature 2 doubles; 0 and 1 are equal, so the lowest; of two fives the first one.
    assert [tile.unit for tile in seen.tiles] == [(2, 0, 1), (0, 0, 1)]
    assert [tile.unit for tile in tconv.see(THREE, image, feature=[1, 0]).tiles] == [
        (1, 0, 1), (0, 0, 1)
    ]  # fmt: skip
    assert tconv.see(THREE, image, unit=(1, 1, 1)).tiles[0].activation == 2


def test_the_images_where_a_feature_is_strongest():
    images = [np.full((1, 2, 3), n, np.float32) for n in (3, 9, 1, 9, 5)]
    told = []
    seen = tconv.see(
        THREE, images, feature=2, top=3, progress=lambda done, of: told.append((done, of))
    )
    assert [(tile.image, tile.activation) for tile in seen.tiles] == [(1, 18), (3, 18), (4, 10)]
    assert told == [(n, 8) for n in range(1, 9)]  # five images, and three tiles
    assert sorted(seen.photos) == [1, 3, 4]
    assert [block.feature for block in tconv.see(THREE, images).blocks] == [2, 0, 1]


def test_folders_and_pixels(tmp_path):
    for n in range(3):
        pixels = np.full((2, 3), 50 * (n + 1), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    seen = tconv.see(THREE, tmp_path, feature=0, value_range=(0, 255), mean=50, std=2)
    assert [seen.photos[tile.image].name for tile in seen.tiles] == ["2.png", "1.png", "0.png"]
    assert [tile.activation for tile in seen.tiles] == [50, 25, 0]
    assert [tile.photo[0, 0, 0] for tile in seen.tiles] == [150, 100, 50]
    one = tconv.see(THREE, tmp_path / "0.png", value_range=(0, 255), top=1)
    assert one.tiles[0].activation == 100
    large = tconv.see(THREE, np.full((8, 9), 255, np.uint8), size=(2, 3))
    assert large.photos[0].pixels.shape == (1, 2, 3)


def test_a_signal_of_one_axis():
    proto = proto_of([("Conv", "image w", "c", {}), ("Relu", "c", "r", {})],
                     {"w": np.float32([1, 2]).reshape(1, 1, 2)}, (1, 1, 5))  # fmt: skip
    seen = tconv.see(proto, np.float32([[0, 1, 3, 0, 0]]), crop=False)
    assert seen.tiles[0].projection.tolist() == [[0, 7, 14, 0, 0]]
    assert seen.figure().width > 100


# ---- grey levels ---------------------------------------------------------------------------------

WORKED = np.float32([[37, 121, 94], [178, 500, 342], [201, 499, 308]])
KERNEL = proto_of([("Conv", "image w", "y", {})], {"w": WORKED[np.newaxis, np.newaxis]},
                  (1, 1, 3, 3))  # fmt: skip
ONE = np.zeros((1, 3, 3), np.float32)
ONE[0, 0, 0] = 1 / 37


@pytest.mark.parametrize(
    ("norm", "levels"),
    [
        ("zero", [[137, 158, 151], [173, 255, 215], [179, 255, 206]]),
        ("minmax", [[0, 46, 31], [78, 255, 168], [90, 254, 149]]),
        ("positive", [[19, 62, 48], [91, 255, 174], [103, 254, 157]]),
    ],
)
def test_grey_levels_of_the_worked_example(norm, levels):
    seen = tconv.see(KERNEL, ONE, "y", norm=norm)
    np.testing.assert_allclose(seen.tiles[0].projection[0], WORKED)
    assert seen.levels()[0].tolist() == [levels]
    assert seen.levels()[0].dtype == np.uint8


@pytest.mark.parametrize(("norm", "sign"), [("zero", -1), ("zero", 1), ("positive", 1)])
def test_a_value_that_stands_out_leaves_the_others_their_contrast(norm, sign):
    """Of 400 values that are not 0 the greatest two are clipped, however many zeros there are."""
    kernel = np.zeros((1, 1, 40, 40), np.float32)
    kernel[0, 0, :20, :20] = np.arange(1, 401).reshape(20, 20)
    kernel[0, 0, 19, 19] = sign * 1e6
    proto = proto_of([("Conv", "image w", "y", {})], {"w": kernel}, (1, 1, 40, 40))
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 0, 0] = 1
    seen = tconv.see(proto, image, "y", norm=norm)
    ((_, high),) = seen.ranges()
    assert high == 399
    levels = seen.levels()[0][0]
    assert levels[19, 18] == 255
    assert levels[19, 19] == (255 if sign > 0 else 0)
    assert levels[9, 19] == (191 if norm == "zero" else 128)  # 200 of 399
    assert "99.5th percentile" in " ".join(seen.captions)
    low, high = tconv.see(proto, image, "y", norm="minmax").ranges()[0]
    assert {low, high} == ({0, 1e6} if sign > 0 else {-1e6, 399})


def test_the_place_of_a_unit_is_marked_on_the_photo():
    """Also where the unit sees all of the image, as behind a gate that was pooled."""
    nodes = [
        ("Conv", "image w", "c", {}),
        ("Relu", "c", "r", {}),
        ("GlobalAveragePool", "r", "m", {}),
        ("Sigmoid", "m", "g", {}),
        ("Mul", "r g", "y", {}),
    ]
    proto = proto_of(nodes, {"w": np.ones((1, 1, 2, 2), np.float32)}, (1, 1, 16, 12))  # fmt: skip
    image = np.full((1, 16, 12), 0.5, np.float32)
    for layer, place in (("r", (4, 9)), ("y", (3.5 / 15 * 16, 8.5 / 11 * 12))):
        (tile,) = tconv.see(proto, image, layer, unit=(0, 3, 8), crop=False).tiles
        assert tile.place == pytest.approx(place)
        factor = len(photo_of(tile)) // 16
        row, column = (int(factor * each) for each in place)
        assert photo_of(tile)[row, column].tolist() == [255] * 3
        assert photo_of(tile)[row, column + 2].tolist() == [255] * 3
        assert photo_of(tile)[row + 2, column + 2].tolist() != [255] * 3
    joint = tconv.see(proto, image, "r", seed="all", crop=False)
    assert joint.tiles[0].place == ()


def test_scales():
    image = np.float32([[0, 5, 1], [3, 2, 0]])[np.newaxis]
    for scale, ranges in {
        "tile": [(-20.0, 20.0), (-5.0, 5.0), (-5.0, 5.0)],
        "row": [(-20.0, 20.0)] * 3,
        "figure": [(-20.0, 20.0)] * 3,
    }.items():
        assert list(tconv.see(THREE, image, scale=scale).ranges()) == ranges
    images = [image, 2 * image]
    ranges = tconv.see(THREE, images, scale="row").ranges()  # one row of two images per feature
    assert ranges == ((-40.0, 40.0),) * 2 + ((-10.0, 10.0),) * 4


def test_a_dead_unit_is_told():
    seen = tconv.see(THREE, np.zeros((1, 2, 3), np.float32), top=1)
    for norm, level in {"zero": 128, "minmax": 0, "positive": 0}.items():
        seen = tconv.see(THREE, np.zeros((1, 2, 3), np.float32), top=1, norm=norm)
        with pytest.warns(UserWarning, match=r"^the projection of unit 0,0,0 is zero \(dead unit"):
            assert seen.levels()[0].tolist() == [[[level]]]
    flat = proto_of([("Conv", "image w", "y", {})], {"w": np.ones((1, 1, 2, 2), np.float32)},
                    (1, 1, 2, 2))  # fmt: skip
    seen = tconv.see(flat, np.ones((1, 2, 2), np.float32), "y", norm="minmax")
    with pytest.warns(UserWarning, match="is constant"):
        assert not seen.levels()[0].any()


def test_beyond_the_image_is_mid_grey_and_hatched():
    proto = proto_of([("Conv", "image w", "y", {"pads": [1] * 4})],
                     {"w": np.ones((1, 1, 3, 3), np.float32)}, (1, 1, 4, 4))  # fmt: skip
    image = np.zeros((1, 4, 4), np.float32)
    image[0, 0, 0] = 1
    for norm in ("zero", "minmax", "positive"):
        seen = tconv.see(proto, image, "y", norm=norm)
        (tile,) = seen.tiles
        assert tile.box == ((-1, 1), (-1, 1))
        assert tile.inside.tolist() == [[False] * 3, [False, True, True], [False, True, True]]
        with pytest.warns(UserWarning, match="constant") if norm == "minmax" else nullcontext():
            (levels,) = seen.levels()
        assert (levels[0][~tile.inside] == 128).all()
        hatch = photo_of(tile)[:32, :32]
        assert set(np.unique(hatch)) == {168, 216}


# ---- sanity --------------------------------------------------------------------------------------


def test_sanity_shuffles_the_weights_and_nothing_else():
    nodes = [("Conv", "image a x", "c", {}), ("Relu", "c", "r", {}), ("Conv", "r b", "d", {}),
             ("Relu", "d", "y", {})]  # fmt: skip
    stored = {"a": w(4, 3, 3, 3), "b": w(5, 4, 2, 2), "x": w(4)}
    image = integers_like((3, 9, 9), "float32", 3, largest=5)
    seen = tconv.see(proto_of(nodes, stored, (1, 3, 9, 9)), image, "y", sanity=True, top=3)
    assert [tile.feature for tile in seen.shuffled] == [tile.feature for tile in seen.tiles]
    again = tconv.see(proto_of(nodes, stored, (1, 3, 9, 9)), image, "y", sanity=True, top=3)
    assert seen.correlations == pytest.approx(again.correlations, nan_ok=True)
    for one, other in zip(seen.shuffled, again.shuffled, strict=True):
        assert np.array_equal(one.projection, other.projection)
    for n, (real, mixed) in enumerate(zip(seen.tiles, seen.shuffled, strict=True)):
        expected = rank_correlation(abs(real.projection), abs(mixed.projection))
        assert seen.correlations[n] == pytest.approx(expected, nan_ok=True)
    assert any("compare with shuffled weights (sanity)" in line for line in seen.captions)


# ---- files ---------------------------------------------------------------------------------------


def test_the_figure_holds_every_tile(tmp_path):
    nodes = [("Conv", "image a", "c", {"pads": [1] * 4}), ("Relu", "c", "r", {})]
    proto = proto_of(nodes, {"a": w(4, 3, 3, 3)}, (1, 3, 9, 9))
    image = integers_like((3, 9, 9), "float32", 3, largest=1) / 2 + 0.5
    seen = tconv.see(proto, image)
    figure = np.asarray(seen.figure())
    assert tuple(figure[0, 0]) == (128, 128, 128)
    for levels, tile in zip(seen.levels(), seen.tiles, strict=True):
        assert is_within(enlarged(levels), figure)
        assert is_within(photo_of(tile), figure)
    seen.save(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as picture:
        texts = dict(picture.text)
        assert np.array_equal(np.asarray(picture), figure)
    assert (texts["tconv:rule"], texts["tconv:layer"]) == ("deconvnet", "r")
    assert texts["tconv:feature"] == ",".join(str(tile.feature) for tile in seen.tiles)
    assert texts["tconv:unit"].split() == [",".join(map(str, t.unit)) for t in seen.tiles]
    assert texts["tconv:model-sha256"] == seen.sha256
    largest = [float(m) for m in texts["tconv:m"].split()]
    assert largest == [float(abs(tile.projection).max()) for tile in seen.tiles]


def is_within(tile, figure):
    """Whether a tile stands somewhere in a figure, pixel for pixel."""
    rows, columns = tile.shape[:2]
    starts = np.argwhere((figure[: 1 - rows, : 1 - columns] == tile[0, 0]).all(-1))
    return any(np.array_equal(figure[y : y + rows, x : x + columns], tile) for y, x in starts)


def test_numbers_and_pages(tmp_path):
    image = np.float32([[0, 5, 1], [3, 2, 0]])[np.newaxis]
    seen = tconv.see(THREE, image, sanity=True, crop=False)
    seen.save(tmp_path / "seen.npz")
    with np.load(tmp_path / "seen.npz") as file:
        assert np.array_equal(file["projection"], [tile.projection for tile in seen.tiles])
        assert file["levels"].dtype == np.uint8
        assert file["shuffled_projection"].shape == file["projection"].shape
    seen.save(tmp_path / "seen.html")
    page = (tmp_path / "seen.html").read_text("utf-8")
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    with pytest.raises(tconv.ParameterError, match=r"must end in one of \.png, \.html, \.npz; "):
        seen.save(tmp_path / "seen.jpg")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["seen.html", "seen.npz"]


# ---- layers --------------------------------------------------------------------------------------

DEEP = proto_of(
    [("Conv", "image a", "block1/conv", {}), ("Relu", "block1/conv", "block1/relu", {}),
     ("MaxPool", "block1/relu", "pool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
     ("Conv", "pool b", "block2/conv", {}), ("Relu", "block2/conv", "block2/relu", {}),
     ("GlobalAveragePool", "block2/relu", "mean", {}), ("Flatten", "mean", "flat", {}),
     ("Gemm", "flat c", "logits", {}), ("Relu", "logits", "last", {})],
    {"a": w(4, 3, 3, 3), "b": w(5, 4, 2, 2), "c": w(5, 3)}, (1, 3, 10, 10),
)  # fmt: skip


def test_layers_are_listed():
    assert str(tconv.see_layers(DEEP)) == (
        "index  layer        op                 shape    sees  jump  rule deconvnet\n"
        "    0  block1/conv  Conv               1×4×8×8   3×3   1×1  ok\n"
        "    1  block1/relu  Relu               1×4×8×8   3×3   1×1  ok\n"
        "    2  pool         MaxPool            1×4×4×4   4×4   2×2  ok\n"
        "    3  block2/conv  Conv               1×5×3×3   6×6   2×2  ok\n"
        "    4  block2/relu  Relu               1×5×3×3   6×6   2×2  ok\n"
        "    5  mean         GlobalAveragePool  1×5×1×1   all        ok\n"
        "    6  flat         Flatten            1×5       all        ok\n"
        "    7  logits       Gemm               1×3       all        ok\n"
        "    8  last         Relu               1×3       all        ok\n"
        "9 layers, 9 that rule deconvnet can look at\n"
        "default layer: block2/relu"
    )


@pytest.mark.parametrize(
    ("layer", "name"),
    [(None, "block2/relu"), (0, "block1/conv"), ("7", "logits"), ("ock1/c", "block1/conv"),
     ("pool", "pool")],
)  # fmt: skip
def test_layers_are_found(layer, name):
    image = integers_like((3, 10, 10), "float32", 3)
    assert tconv.see(DEEP, image, layer, top=1).layer == name


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"layer": "block"}, tconv.ParameterError, r"layer='block' must name one layer, but 4 "),
        ({"layer": "blok1/conv"}, tconv.ParameterError, r"did you mean 'block1/conv'\?$"),
        ({"layer": 9}, tconv.ParameterError, r"layer=9 must be from 0 to 8; "),
        ({"rule": "guide"}, tconv.ParameterError, r"rule='guide' must be one of 'deconvnet', "),
        ({"norm": "max"}, tconv.ParameterError, r"norm='max' must be one of 'zero', "),
        ({"scale": "all"}, tconv.ParameterError, r"scale='all' must be one of 'tile', "),
        ({"seed": "map"}, tconv.ParameterError, r"seed='map' must be one of 'unit', 'all'"),
        ({"top": 0}, tconv.ParameterError, r"top=0 must be at least 1"),
        ({"feature": 5}, tconv.ParameterError, r"feature=5 has channel 5, must be from 0 to 4"),
        ({"feature": []}, tconv.ParameterError, r"feature=\[\] must be one channel or several"),
        ({"unit": (0, 0)}, tconv.ShapeError, r"unit=\(0, 0\) must be \(channel, row, column\)"),
        ({"unit": (0, 3, 0)}, tconv.ParameterError, r"unit=\(0, 3, 0\) has row 3, must be from"),
        ({"unit": (0, 0, 0), "feature": 0}, tconv.ParameterError, r"must stand without feature=0"),
        ({"target_class": 1, "feature": 0}, tconv.ParameterError, r"must stand without feature=0"),
        ({"target_class": 3}, tconv.ParameterError, r"target_class=3 must be from 0 to 2, a class"),
        ({"target_class": 1, "layer": "flat"}, tconv.ParameterError, r"layer='flat' has shape \("),
        ({"mean": (1, 2)}, tconv.ParameterError, r"mean=\(1, 2\) must be 1 or 3 finite numbers"),
        ({"std": 0}, tconv.ParameterError, r"std=0 must not hold 0, it divides"),
        ({"value_range": (1, 1)}, tconv.ParameterError, r"must be two different numbers"),
        ({"size": (9, 9)}, tconv.ShapeError, r"image 0 has size \(10, 10\), must be \(9, 9\)"),
        ({"images": np.zeros((4, 10, 10), np.uint8)}, tconv.ShapeError, r"must be \(3, H, W\)"),
        ({"images": np.zeros((3, 9, 9), np.uint8)}, tconv.ShapeError, r"the network takes 10x10"),
        ({"images": np.zeros((3, 10, 10), int)}, tconv.DTypeError, r"must be uint8 \(pixels\) or"),
        ({"images": np.full((3, 10, 10), np.nan)}, tconv.ParameterError, r"holds NaN or infinity"),
        ({"images": []}, tconv.ParameterError, r"images=\[\] must hold an image"),
    ],
)
def test_bad_arguments(keywords, error, match):
    images = keywords.pop("images", integers_like((3, 10, 10), "float32", 3))
    with pytest.raises(error, match=match):
        tconv.see(DEEP, images, **keywords)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 4, 8, 8), r"the first input 'image' is tensor\(float\) \(1, 4, 8, 8\), must be an im"),
        ((1, 3), r"the first input 'image' is tensor\(float\) \(1, 3\), must be an image"),
        ((2, 3, 8, 8), r"must take one image at a time; export it for a batch of 1\.$"),
    ],
)
def test_models_that_take_no_image(shape, match):
    with pytest.raises(tconv.ShapeError, match=match):
        tconv.see_layers(proto_of([("Relu", "image", "y", {})], shape=shape))


def test_models_that_are_none():
    with pytest.raises(tconv.ModelError, match="is damaged or no ONNX model"):
        tconv.see(b"no model at all", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(tconv.ParameterError, match="model must be a path, bytes or an onnx"):
        tconv.see(7, np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(tconv.ParameterError, match="layer must be named, as the network has"):
        tconv.see(proto_of([("Sigmoid", "image", "y", {})]), np.zeros((3, 8, 7), np.uint8))


def test_sizes_that_only_an_image_tells():
    proto = proto_of([("Conv", "image w", "c", {}), ("Relu", "c", "r", {})],
                     {"w": w(2, 3, 3, 3)}, (1, 3, "H", "W"))  # fmt: skip
    assert tconv.see(proto, np.ones((3, 5, 6), np.float32)).photos[0].pixels.shape == (3, 5, 6)
    assert tconv.see_layers(proto, size=(7, 8)).rows[0].shape == (1, 2, 5, 6)
    supposed = tconv.see_layers(proto)
    assert supposed.rows[0].shape == (1, 2, 222, 222)
    assert str(supposed).endswith(
        "\nshapes are those for an image of 224x224, as the network takes any size"
    )


def test_constants_are_folded_and_sizes_that_are_computed_are_known():
    """What exporters write: weights behind nodes, and shapes computed from the image's."""
    nodes = [
        ("Identity", "w", "v", {}), ("Mul", "v two", "u", {}), ("Conv", "image u", "c", {}),
        ("Relu", "c", "r", {}), ("Shape", "r", "s", {}), ("Gather", "s zero", "n", {"axis": 0}),
        ("Unsqueeze", "n axes", "m", {}), ("Concat", "m rest", "t", {"axis": 0}),
        ("Reshape", "r t", "flat", {}), ("Gemm", "flat g", "y", {}),
    ]  # fmt: skip
    stored = {"w": w(2, 3, 3, 3), "two": np.float32(2), "zero": np.int64(0),
              "axes": np.array([0]), "rest": np.array([-1]), "g": w(8, 2)}  # fmt: skip
    image = integers_like((3, 4, 4), "float32", 3)
    seen = tconv.see(proto_of(nodes, stored, (1, 3, 4, 4)), image, "y", rule="gradient")
    assert [entry[:2] for entry in seen.ledger.entries] == [
        ("Conv", "filter"), ("Relu", "rectify"), ("Reshape", "copy"), ("Gemm", "filter")
    ]  # fmt: skip
    plain = proto_of([("Conv", "image w", "c", {}), ("Relu", "c", "r", {}),
                      ("Flatten", "r", "f", {}), ("Gemm", "f g", "y", {})],
                     {"w": 2 * stored["w"], "g": stored["g"]}, (1, 3, 4, 4))  # fmt: skip
    other = tconv.see(plain, image, "y", rule="gradient")
    for a, b in zip(seen.tiles, other.tiles, strict=True):
        assert np.array_equal(a.projection, b.projection)


@pytest.mark.parametrize("images", ["path", "array"])
def test_a_large_picture_needs_a_size(tmp_path, images):
    """It is refused before the network runs, or even is read."""
    proto = proto_of([("Conv", "image w", "c", {}), ("Relu", "c", "r", {})],
                     {"w": w(1, 3, 1, 1)}, (1, 3, "H", "W"))  # fmt: skip
    pixels = np.zeros((1999, 2003, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    given = tmp_path / "large.png" if images == "path" else pixels
    name = r"large\.png" if images == "path" else "image 0"
    with pytest.raises(
        tconv.ParameterError,
        match=name + " has 1999x2003 pixels, must have at mo"
        r"st 4 million unless .*; pass size=\(640, 640\) to make",
    ):
        tconv.see(proto, given)
    assert tconv.see(proto, given, size=(64, 64), top=1).photos[0].pixels.shape == (3, 64, 64)


@pytest.mark.parametrize("sanity", [False, True])
def test_sparse_weights_are_those_that_they_stand_for(sanity):
    nodes = [("Flatten", "image", "f", {}), ("MatMul", "f g", "m", {}), ("Relu", "m", "y", {})]
    g = w(12, 5) * np.float32(np.arange(12) % 3)[:, np.newaxis]
    dense, thin = proto_of(nodes, {"g": g}, (1, 3, 2, 2)), proto_of(nodes, {}, (1, 3, 2, 2))
    thin.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(g[g != 0], "g"),
            numpy_helper.from_array(np.flatnonzero(g), "places"),
            g.shape,
        )
    )
    image = integers_like((3, 2, 2), "float32", 3)
    one, other = (tconv.see(proto, image, "y", sanity=sanity) for proto in (dense, thin))
    for a, b in zip((*one.tiles, *one.shuffled), (*other.tiles, *other.shuffled), strict=True):
        assert np.array_equal(a.projection, b.projection)


def test_seen_tells_all_it_knows():
    image = np.float32([[0, 5, 1], [3, 2, 0]])[np.newaxis]
    seen = tconv.see(THREE, image)
    told = seen.as_dict()
    assert told["tiles"][0]["unit"] == (2, 0, 1)
    assert told["computed_by"] == {"forward": "onnxruntime", "back": "tconv"}
    assert str(seen).split()[:4] == ["feature", "image", "unit", "activation"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 2**64),
        ("size", 10**5000),
        ("feature", 10**5000),
        ("feature", range(2**60)),
        ("unit", 1.0),
        ("layer", [1]),
        ("layer", 10**5000),
        ("layer", "9" * 9999),
        ("target_class", 1.5),
        ("mean", "0"),
        ("std", np.broadcast_to(1.0, 2**55)),
        ("value_range", 3),
        ("threads", 1.5),
        ("progress", 3),
        ("top", None),
    ],
    ids=lambda value: str(value)[:9] if isinstance(value, str) else "value",
)
def test_no_argument_is_taken_for_what_it_is_not(name, value):
    network = tconv.ConvTranspose2d(1, 2, 2, stride=2, activation="relu", rng=0).to_onnx()
    image = np.ones((1, 4, 4), np.uint8)
    with pytest.raises(tconv.TConvError, match=name):
        tconv.see(network, image, **{"layer": "y", name: value})


@pytest.mark.parametrize("size", [2**64, 10**5000, 2**31], ids=["64", "5000", "31"])
def test_a_size_that_no_model_has_is_refused(size):
    network = tconv.ConvTranspose2d(1, 2, 2, rng=0).to_onnx()
    with pytest.raises(tconv.TConvError, match="size"):
        tconv.see_layers(network, size=size)


@pytest.mark.parametrize("images", [3, None, [3], range(2**60), "a\0b", [[None]], {}])
def test_what_is_no_image_is_refused(images):
    network = tconv.ConvTranspose2d(1, 2, 2, rng=0).to_onnx()
    with pytest.raises(tconv.TConvError, match="image"):
        tconv.see(network, images, "y")


@pytest.mark.parametrize(
    ("node", "stored", "unit", "opset"),
    [
        (("Conv", "image w", "y", {"pads": [1] * 4}), {"w": w(2, 3, 1, 1)}, (0, 0, 0), 17),
        (("Resize", "image  s", "y", {"mode": "linear"}),
         {"s": np.float32([1, 1, 1.05, 2])}, (0, 6, 6), 17),
        (("MaxPool", "image", "y",
          {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_UPPER"}),
         {}, (0, 3, 3), 17),
    ],
    ids=["windows over padding", "a scale that keeps the size", "dilated, as ONNX Runtime pads"],
)  # fmt: skip
def test_rare_settings_have_the_derivative_of_what_onnx_runtime_computes(node, stored, unit, opset):
    proto = proto_of([node], stored, opset=opset)
    image = integers_like((3, 8, 7), "float32", 3, largest=9)
    (tile,) = tconv.see(proto, image, "y", unit=unit, rule="gradient", crop=False).tiles
    recorder, found = network_of(proto).recorder(["y"]), np.zeros(image.shape)
    for at in np.ndindex(image.shape):
        ends = []
        for step in (0.25, -0.25):
            moved = image.copy()
            moved[at] += step
            ends.append(float(recorder(moved[np.newaxis])["y"][(0, *unit)]))
        found[at] = (ends[0] - ends[1]) / 0.5
    np.testing.assert_allclose(tile.projection, found * tile.activation, rtol=1e-5, atol=1e-5)


def test_a_weight_on_the_left_is_shuffled_too():
    proto = proto_of([("MatMul", "w image", "y", {})], {"w": w(3, 8)})
    image = integers_like((3, 8, 7), "float32", 3, largest=9)
    seen = tconv.see(proto, image, "y", unit=(0, 0, 0), rule="gradient", sanity=True)
    assert seen.correlations != (1,)
    assert not np.array_equal(seen.tiles[0].projection, seen.shuffled[0].projection)
