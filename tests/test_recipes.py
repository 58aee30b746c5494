"""ARCHITECTURE.md's recipes to add something: what each says is enough is enough."""

import numpy as np
import pytest

import tconv
from tconv.arrays.padding_modes import PADDING_MODES, PaddingMode
from tconv.geometry.weight_formats import WEIGHT_FORMATS

# An instruction set: engine/target/test_isa.py. A reversal: deconvnet/rules/test_box_laws.py. An
# implementation for an array library: ops/test_dispatch.py.


def pad_symmetric(xp, y, axis, begin, end):
    """Mirror at the border, the outermost sample included."""
    y = xp.moveaxis(y, axis, -1)
    y = xp.concat([xp.flip(y[..., :begin], axis=-1), y, xp.flip(y[..., -end:], axis=-1)], axis=-1)
    return xp.moveaxis(y, -1, axis)


def transposed_symmetric(xp, full, axis, begin, end):
    full = xp.moveaxis(full, axis, -1)
    size = full.shape[-1] - begin - end
    y = full[..., begin : begin + size]
    head = xp.flip(full[..., :begin], axis=-1)
    tail = xp.flip(full[..., begin + size :], axis=-1)
    y = xp.concat([y[..., :begin] + head, y[..., begin:]], axis=-1)
    y = xp.concat([y[..., :-end], y[..., -end:] + tail], axis=-1)
    return xp.moveaxis(y, -1, axis)


def test_a_padding_mode_is_a_row(monkeypatch):
    row = PaddingMode(pad_symmetric, transposed_symmetric)
    monkeypatch.setitem(PADDING_MODES, "symmetric", row)
    rng = np.random.default_rng(0)
    y, x = (rng.integers(-4, 5, shape).astype("f4") for shape in ((2, 3, 7, 6), (2, 4, 9, 8)))
    w = rng.integers(-4, 5, (4, 3, 3, 3)).astype("f4")
    keywords = {"padding": 2, "padding_mode": "symmetric"}
    padded = np.pad(y, [(0, 0), (0, 0), (2, 2), (2, 2)], "symmetric")
    assert np.array_equal(tconv.conv(y, w, **keywords), tconv.conv(padded, w))
    transposed = tconv.conv_transpose(x, w, **keywords)
    assert transposed.shape == y.shape
    assert (transposed * y).sum() == (x * tconv.conv(y, w, **keywords)).sum()
    layer = tconv.ConvTranspose2d(4, 3, 3, bias=False, rng=0, **keywords)
    layer.weight.value = w
    assert np.array_equal(layer.predict(x), transposed)
    with pytest.raises(tconv.ShapeError, match="must be smaller than the output size"):
        tconv.conv_transpose(x[..., :4], w, **keywords)


def test_a_weight_format_is_a_row(monkeypatch):
    monkeypatch.setitem(WEIGHT_FORMATS, "I*O", True)
    rng = np.random.default_rng(0)
    x, w = rng.integers(-4, 5, (2, 4, 5, 6)), rng.integers(-4, 5, (4, 3, 3, 2))
    for dtype in ("f4", "i8"):  # by the engine, and by the portable path
        a, b = x.astype(dtype), w.astype(dtype)
        moved = np.moveaxis(b, 1, -1)
        expected = tconv.conv_transpose(a, b, stride=2)
        assert np.array_equal(
            tconv.conv_transpose(a, moved, stride=2, weight_format="I*O"), expected
        )
        dw = tconv.conv_weight_gradient(a, expected, stride=2, kernel_size=(3, 2))
        found = tconv.conv_weight_gradient(
            a, expected, stride=2, kernel_size=(3, 2), weight_format="I*O"
        )
        assert np.array_equal(found, np.moveaxis(dw, 1, -1))
