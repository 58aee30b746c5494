"""Laws of renormalisation, and values that reading and writing pictures preserve."""

import builtins
import re
import stat
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError, UnsupportedError
from tconv.images import picture_size, read_picture, renormalise, write_picture
from tconv.system import memory

MODES = ["zero", "minmax", "positive"]
WORKED = np.array([[37, 121, 94], [178, 500, 342], [201, 499, 308]])
VECTORS = {
    "zero": [[137, 158, 151], [173, 255, 215], [179, 255, 206]],
    "minmax": [[0, 46, 31], [78, 255, 168], [90, 254, 149]],
    "positive": [[19, 62, 48], [91, 255, 174], [103, 254, 157]],
}
TYPES = ["int16", "uint16", "int64", "uint64", "float32", "float64", "longdouble", ">f8", "<i4"]
pictures = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=3, max_side=4),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=64),
)
quiet = pytest.mark.filterwarnings("ignore:x (is constant|has no positive value):UserWarning")


# ---- renormalise ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_the_worked_example_is_byte_exact(mode, dtype):
    picture = renormalise(WORKED.astype(dtype), mode)
    assert picture.dtype == np.uint8
    assert picture.tolist() == VECTORS[mode]


def test_zero_is_the_default():
    assert renormalise(WORKED).tolist() == VECTORS["zero"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_the_halves_are_shown_by_their_exact_values(dtype):
    x = WORKED.astype(dtype)
    for mode in MODES:
        assert np.array_equal(renormalise(x, mode), renormalise(x.astype(np.float64), mode))


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("bool", False, True), ("int8", -128, 127), ("int64", -(2**63), 2**63 - 1)],
)
def test_the_ends_of_integers_do_not_wrap(dtype, low, high):
    x = np.array([[low, high]], dtype)
    assert renormalise(x, "minmax").tolist() == [[0, 255]]
    assert renormalise(x, "positive").tolist() == [[0, 255]]


@quiet
@given(pictures, st.sampled_from(MODES))
def test_order_and_shape_are_kept_and_the_range_is_used(x, mode):
    picture = renormalise(x, mode)
    assert picture.shape == x.shape
    assert (np.diff(picture.ravel()[np.argsort(x.ravel())].astype(int)) >= 0).all()
    if x.min() < x.max() and (mode != "positive" or x.max() > 0):
        assert picture.max() == 255 or (mode == "zero" and picture.min() == 0)
        assert picture.min() == 0 or mode != "minmax"
    if mode == "zero":
        assert (picture[x == 0] == 128).all()


@quiet
@given(
    arrays(np.float64, (2, 3), elements=st.integers(-1000, 1000).map(float)),
    st.sampled_from(MODES),
    st.integers(-1060, 1010),
)
def test_a_power_of_two_changes_nothing(x, mode, exponent):
    assert np.array_equal(renormalise(x * 2.0**exponent, mode), renormalise(x, mode))


@quiet
@given(arrays(np.float64, (2, 3), elements=st.floats(-1e6, 1e6)))
def test_every_mode_is_its_formula(x):
    def rounded(value):
        return np.clip(np.floor(value + 0.5), 0, 255).tolist()

    with np.errstate(all="ignore"):
        largest, low, high = np.abs(x).max(), x.min(), x.max()
        if largest > 1e-290:
            assert renormalise(x, "zero").tolist() == rounded(127.5 + 127.5 * x / largest)
        if high - low > 1e-290:
            assert renormalise(x, "minmax").tolist() == rounded(255 * (x - low) / (high - low))
        if high > 1e-290:
            assert renormalise(x, "positive").tolist() == rounded(255 * np.maximum(x, 0) / high)


def test_the_ends_of_float64_neither_overflow_nor_vanish():
    huge, tiny = np.finfo(np.float64).max, np.finfo(np.float64).smallest_subnormal
    with np.errstate(all="raise"):
        for end in (huge, tiny):
            x = [[-end, 0.0, end]]
            assert renormalise(x, "zero").tolist() == [[0, 128, 255]]
            assert renormalise(x, "minmax").tolist() == [[0, 128, 255]]
            assert renormalise(x, "positive").tolist() == [[0, 0, 255]]


def test_channels_share_one_range_in_either_layout():
    x = np.stack([WORKED, -WORKED, WORKED // 2])
    for mode in MODES:
        first, last = renormalise(x, mode), renormalise(np.moveaxis(x, 0, -1), mode)
        assert np.array_equal(np.moveaxis(first, 0, -1), last)
    assert renormalise(x, "minmax")[2].max() == 191  # 255*(250 + 500)/1000 = 191.25


def test_strides_do_not_matter_and_x_is_not_changed():
    x = WORKED.astype(float)
    x.flags.writeable = False
    assert np.array_equal(renormalise(x.T[::-1]), renormalise(x).T[::-1])
    assert np.array_equal(x, WORKED)


@pytest.mark.parametrize(
    ("x", "mode", "flat", "why"),
    [
        ([[0, 0]], "zero", 128, "is constant"),
        ([[0, 0]], "minmax", 0, "is constant"),
        ([[0, 0]], "positive", 0, "has no positive value"),
        ([[7, 7]], "zero", 255, "is constant"),
        ([[-7, -7]], "zero", 0, "is constant"),
        ([[7, 7]], "minmax", 0, "is constant"),
        ([[7, 7]], "positive", 255, "is constant"),
        ([[-7, -3]], "positive", 0, "has no positive value"),
        ([[-0.0, 0.0]], "zero", 128, "is constant"),
    ],
)
def test_a_flat_picture_comes_with_a_warning(x, mode, flat, why):
    with pytest.warns(UserWarning, match=f"^x {why}, so its picture in mode '{mode}' is flat.$"):
        picture = renormalise(x, mode)
    assert picture.tolist() == [[flat, flat]]


@pytest.mark.parametrize(
    ("x", "mode", "error", "message"),
    [
        (
            [[1, 2]],
            "Zero",
            ParameterError,
            "mode='Zero' must be one of 'zero', 'minmax', 'positive'",
        ),
        ([[1, np.nan]], "zero", ParameterError, "x[0, 1]=nan must be finite; "),
        ([[1, 2], [-np.inf, 3]], "minmax", ParameterError, "x[1, 0]=-inf must be finite; "),
        ([[1 + 2j]], "zero", DTypeError, "x.dtype=complex128 must be a type of real numbers; "),
        ([["a"]], "zero", DTypeError, "x.dtype=<U1 must be a type of real numbers; "),
        ([[None]], "zero", DTypeError, "x.dtype=object must be a type of real numbers; "),
        ([[np.timedelta64(1, "s")]], "zero", DTypeError, "x.dtype=timedelta64[s] must be"),
        (3.0, "zero", ShapeError, "x.shape=() must be (H, W), (C, H, W) or (H, W, C) "),
        ([1.0, 2.0], "zero", ShapeError, "x.shape=(2,) must be (H, W), (C, H, W) or (H, W, C) "),
        (np.ones((2, 3, 4, 4)), "zero", ShapeError, "x.shape=(2, 3, 4, 4) must be (H, W), "),
        (np.ones((0, 4)), "zero", ShapeError, "x.shape=(0, 4) must be (H, W), "),
    ],
)
def test_what_is_no_picture_raises(x, mode, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        renormalise(x, mode)


# ---- read_picture and write_picture --------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tiff", ".ppm"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_what_is_written_is_read(tmp_path, suffix, data_format):
    path = tmp_path / f"colour{suffix}"
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
    if data_format == "channels_last":
        array = np.moveaxis(array, 0, -1)
    write_picture(path, array, data_format=data_format)
    back = read_picture(str(path), data_format=data_format)
    assert back.dtype == np.uint8
    assert back.flags.c_contiguous
    assert back.flags.writeable
    assert np.array_equal(back, array)


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7)])
def test_grey_is_written_as_grey(tmp_path, shape):
    grey = np.arange(35, dtype=np.uint8).reshape(shape)
    write_picture(tmp_path / "grey.png", grey)
    with Image.open(tmp_path / "grey.png") as file:
        assert file.mode == "L"
    assert np.array_equal(read_picture(tmp_path / "grey.png", channels=1), grey.reshape(1, 5, 7))
    colour = read_picture(tmp_path / "grey.png")
    assert np.array_equal(colour, np.broadcast_to(grey, (3, 5, 7)))
    last = read_picture(tmp_path / "grey.png", channels=1, data_format="channels_last")
    assert np.array_equal(last, grey.reshape(5, 7, 1))


def test_a_colour_picture_is_read_as_luma(tmp_path):
    write_picture(tmp_path / "p.png", np.array([[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]]], "u1"))
    assert read_picture(tmp_path / "p.png", channels=1).tolist() == [[[76, 150, 29]]]


def test_transparent_parts_lie_on_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 127]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    back = read_picture(tmp_path / "alpha.png", data_format="channels_last")
    assert back.tolist() == [[[10, 20, 30], [255, 255, 255], [128, 128, 128]]]
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "grey.png")  # grey and alpha
    assert read_picture(tmp_path / "grey.png", channels=1).tolist() == [[[30, 255, 128]]]


def test_palettes_are_looked_up(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "palette.png").tolist() == [[[1, 200]], [[2, 100]], [[3, 50]]]
    image.save(tmp_path / "holes.png", transparency=1)
    assert read_picture(tmp_path / "holes.png").tolist() == [[[1, 255]], [[2, 255]], [[3, 255]]]


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_16_bit_grey_is_rounded_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"deep{suffix}")
    back = read_picture(tmp_path / f"deep{suffix}", channels=1)
    assert back.tolist() == [[[0, 0, 1, 1, 128, 255]]]


def test_a_turned_photo_is_read_upright(tmp_path):
    image = Image.fromarray(np.array([[10, 20, 30]], np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: turn clockwise by a quarter to show
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_picture(tmp_path / "turned.png", channels=1).tolist() == [[[10], [20], [30]]]


def test_values_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(UnsupportedError, match=r"float.tiff' holds 32-bit values, whose range"):
        read_picture(tmp_path / "float.tiff")


def test_reading_what_is_no_picture_raises(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ParameterError, match=r"text.png' must be a picture in a format that Pil"):
        read_picture(tmp_path / "text.png")
    write_picture(tmp_path / "cut.png", np.zeros((64, 64), np.uint8))
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="truncated"):
        read_picture(tmp_path / "cut.png")
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_picture(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 4}, "channels=4 must be 1 (grey) or 3 (red, green, blue); pass 1 or 3."),
        ({"data_format": "NCHW"}, "data_format='NCHW' must be one of 'channels_first', "),
    ],
)
def test_reading_with_a_wrong_option_raises(tmp_path, options, message):
    write_picture(tmp_path / "p.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(ParameterError, match="^" + re.escape(message)):
        read_picture(tmp_path / "p.png", **options)


@pytest.mark.parametrize(
    ("name", "array", "error", "message"),
    [
        ("p.png", np.zeros((2, 2)), DTypeError, "array.dtype=float64 must be uint8; pass renorm"),
        ("p.png", np.zeros((2, 2), int), DTypeError, "array.dtype=int64 must be uint8; pass reno"),
        ("p.png", np.zeros((9, 2, 2), "u1"), ShapeError, "array.shape=(9, 2, 2) must be (H, W), "),
        ("p.png", np.zeros((2, 2, 3), "u1"), ShapeError, "array.shape=(2, 2, 3) must be (H, W), "),
        ("p.png", np.zeros((0, 2), "u1"), ShapeError, "array.shape=(0, 2) must be (H, W), "),
        ("p.png", np.zeros((3, 2, 0), "u1"), ShapeError, "array.shape=(3, 2, 0) must be (H, W), "),
        ("p.png", np.zeros(4, "u1"), ShapeError, "array.shape=(4,) must be (H, W), "),
        ("p", np.zeros((2, 2), "u1"), ParameterError, "must end in the suffix of a picture"),
        ("p.txt", np.zeros((2, 2), "u1"), ParameterError, "must end in the suffix of a picture"),
        ("a/p.png", np.zeros((2, 2), "u1"), ParameterError, "must name a file in a folder that"),
        ("d.png", np.zeros((2, 2), "u1"), ParameterError, "must name a file in a folder that"),
    ],
)
def test_writing_what_is_no_picture_raises_and_leaves_nothing(
    tmp_path, name, array, error, message
):
    (tmp_path / "d.png").mkdir()
    with pytest.raises(error, match=re.escape(message)):
        write_picture(tmp_path / name, array)
    assert [file.name for file in tmp_path.iterdir()] == ["d.png"]


def test_the_other_layout_is_suggested(tmp_path):
    array = np.zeros((3, 2, 2), np.uint8)
    with pytest.raises(ShapeError, match=re.escape('pass data_format="channels_first".')):
        write_picture(tmp_path / "p.png", array, data_format="channels_last")
    with pytest.raises(ShapeError, match=re.escape('pass data_format="channels_last".')):
        write_picture(tmp_path / "p.png", array.T)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    write_picture(tmp_path / "p.png", np.zeros((2, 2), np.uint8))
    before = (tmp_path / "p.png").read_bytes()

    def save(image, file, format):
        file.write(b"half a pic")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="no space left"):
        write_picture(tmp_path / "p.png", np.ones((2, 2), np.uint8))
    assert [file.name for file in tmp_path.iterdir()] == ["p.png"]
    assert (tmp_path / "p.png").read_bytes() == before


def test_a_file_is_replaced_with_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "link.png").symlink_to("p.png")
    for value in (0, 255):
        write_picture(tmp_path / "link.png", np.full((2, 2), value, np.uint8))
        assert read_picture(tmp_path / "p.png").max() == value
    assert (tmp_path / "link.png").is_symlink()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "p.png")}
    assert len(modes) == 1


def test_a_missing_pillow_is_one_line(tmp_path, monkeypatch):
    def without_pillow(name, *rest):
        if name.startswith("PIL"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *rest)

    real_import = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_pillow)
    message = r"^Reading and writing pictures needs Pillow: pip install pillow\.$"
    with pytest.raises(ImportError, match=message):
        read_picture(tmp_path / "p.png")
    with pytest.raises(ImportError, match=message):
        write_picture(tmp_path / "p.png", np.zeros((2, 2), np.uint8))


# ---- sizes, before a pixel is read ---------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_the_size_is_that_of_what_is_read(tmp_path, mode):
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    Image.new(mode, (5, 3)).save(path)
    assert picture_size(path) == (3, 5) == read_picture(path).shape[1:]


def test_a_picture_is_weighed_before_it_is_read(tmp_path, monkeypatch):
    for mode in ("L", "RGB", "RGBA"):
        Image.new(mode, (3000, 2000)).save(tmp_path / f"{mode}.png")
    monkeypatch.setattr("tconv.images._read_pixels", lambda *_: 1 / 0)
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**23)
    for mode in ("L", "RGB", "RGBA"):
        message = r"^a picture of 2000x3000 needs [\d,]+ bytes but 6,710,886 may be used"
        with pytest.raises(MemoryLimitError, match=message):
            read_picture(tmp_path / f"{mode}.png")
        assert picture_size(tmp_path / f"{mode}.png") == (2000, 3000)


def test_what_is_weighed_is_what_reading_takes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("tconv.images.check_room", lambda what, needed: asked.append(needed))
    for mode in ("L", "RGB", "RGBA", "P"):
        Image.new(mode, (1500, 1000)).save(tmp_path / f"{mode}.png")
        tracemalloc.start()  # which sees what NumPy allocates, though not Pillow
        read_picture(tmp_path / f"{mode}.png", channels=3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= asked[-1]


@pytest.mark.parametrize("path", [None, 3, b"a.png", ["a.png"], "a\0.png", "\ud800.png"])
def test_a_path_is_a_string_or_a_path(path):
    for call in (read_picture, lambda each: write_picture(each, np.zeros((2, 2), np.uint8))):
        with pytest.raises(ParameterError, match=r"^path=.* must be a (string|path)"):
            call(path)


@pytest.mark.parametrize("within", [3, None, "ab", (1,), (2, 1), (0, np.inf), [[0], [1]], (0, "1")])
def test_a_range_is_two_numbers(within):
    if within is not None:
        with pytest.raises(ParameterError, match=r"^within=.* must be two finite numbers"):
            renormalise(np.eye(2), within=within)


@pytest.mark.parametrize("channels", [2, None, "3", [3], np.ones(3)])
def test_channels_are_1_or_3(channels):
    with pytest.raises(ParameterError, match=r"^channels=.* must be"):
        read_picture("a.png", channels=channels)


def test_a_picture_that_there_is_no_memory_for_is_refused():
    huge = np.broadcast_to(np.uint8(0), (2**28, 2**28))
    with pytest.raises(MemoryLimitError, match=r"^the picture of x needs [\d,]+ bytes"):
        renormalise(huge)
    with pytest.raises(MemoryLimitError, match=r"^the picture needs [\d,]+ bytes"):
        write_picture("a.png", huge)
