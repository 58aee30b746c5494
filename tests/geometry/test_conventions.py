"""Arguments for other libraries give the sizes that tconv gives, cell for cell."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tconv.geometry.axis import Axis
from tconv.geometry.conventions import conventions
from tconv.geometry.geometry import Geometry
from tconv.geometry.onnx_attributes import NodeAttributes


def axis(i, k, s=1, d=1, begin=0, end=0, extra=0):
    empty = Axis(i, k, 0, s, d, begin, end, extra)
    return empty._replace(output=empty.law)


@st.composite
def axes(draw):
    found = []
    for _ in range(draw(st.integers(1, 2))):
        s, d = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        crops = st.integers(-2, 4)
        extra = draw(st.integers(0, max(s, d) - 1))
        sizes = draw(st.integers(1, 6)), draw(st.integers(1, 5))
        found.append(axis(*sizes, s, d, draw(crops), draw(crops), extra))
    assume(all(each.output > 0 for each in found))
    return tuple(found)


def told(axes, library):
    """The arguments for a library, evaluated; None where it cannot be told."""
    row = next(row for row in conventions(axes) if row.library.startswith(library))
    assert (row.this is None) == (row.arguments == "")
    assert row.this in (None, tuple(each.output for each in axes))
    return eval(f"dict({row.arguments})") if row.arguments else None


def crops(geometry):
    """What decides which number each cell is: the crop at the beginning, and the size."""
    return [(each.begin, each.output) for each in geometry.axes]


def geometry(axes, **arguments):
    return Geometry.of(
        (1, 1, *(each.input for each in axes)),
        (1, 1, *(each.kernel for each in axes)),
        stride=tuple(each.stride for each in axes),
        dilation=tuple(each.dilation for each in axes),
        **arguments,
    )


@given(axes())
def test_tconv_can_always_be_told(axes):
    arguments = told(axes, "tconv")
    assert crops(geometry(axes, **arguments)) == [(each.begin, each.output) for each in axes]


@given(axes())
def test_pytorch_is_told_by_padding_of_0_or_more_on_both_sides(axes):
    arguments = told(axes, "PyTorch")
    if arguments is None:
        return
    paddings = arguments["padding"]
    assert all(p >= 0 for p in ([paddings] if isinstance(paddings, int) else paddings))
    assert crops(geometry(axes, **arguments)) == [(each.begin, each.output) for each in axes]


@given(axes())
def test_onnx_is_told_by_pads_of_0_or_more(axes):
    arguments = told(axes, "ONNX")
    if arguments is None:
        return
    assert min(arguments["pads"]) >= 0
    settings = NodeAttributes.of(
        {
            "strides": [each.stride for each in axes],
            "dilations": [each.dilation for each in axes],
            **arguments,
        }
    )
    shapes = geometry(axes).x_shape, geometry(axes).weight_shape
    assert crops(settings.geometry(*shapes)) == [(each.begin, each.output) for each in axes]


@given(axes())
def test_jax_pads_the_stretched_input(axes):
    pairs = told(axes, "JAX")["padding"]
    for each, (before, after) in zip(axes, pairs, strict=True):
        stretched = (each.input - 1) * each.stride + 1
        assert stretched + before + after - (each.reach - 1) == each.output
        assert each.reach - 1 - before == each.begin


@given(axes())
def test_keras_knows_two_words(axes):
    arguments = told(axes, "Keras")
    if arguments is None:
        return
    extras = arguments.get("output_padding")
    for n, each in enumerate(axes):
        i, k, s = each.input, each.reach, each.stride
        extra = extras[n] if isinstance(extras, tuple) else extras
        if arguments["padding"] == "valid":
            begin = 0
            size = (i - 1) * s + (max(k, s) if extra is None else k + extra)
        else:
            size = i * s if extra is None else (i - 1) * s + k % 2 + extra
            begin = max((i - 1) * s + k - size, 0) // 2
        assert extra is None or 0 <= extra < s
        assert (begin, size) == (each.begin, each.output)


@pytest.mark.parametrize(
    ("setting", "valid", "same"),
    [  # the traps: sizes of tconv, PyTorch, ONNX, Keras and JAX
        (axis(3, 2, 3), (8, 8, 8, 9, 9), (9, None, 8, 9, 9)),
        (axis(5, 3, 5), (23, 23, 23, 25, 25), (25, None, 23, 25, 25)),
        (axis(64, 4, 2, begin=1, end=1), (130,) * 5, (128, None, 128, 128, 128)),
        (axis(8, 3, 2, 2), (19, 19, 19, None, 19), (16, None, 16, None, 16)),
    ],
)
def test_the_same_word_gives_different_sizes(setting, valid, same):
    rows = conventions((setting,))
    assert tuple(row.valid and row.valid[0] for row in rows) == valid
    assert tuple(row.same and row.same[0] for row in rows) == same


def test_what_a_library_cannot_do_is_empty():
    four = conventions((axis(4, 3, 2),) * 4)
    assert [row.library for row in four if row.arguments] == ["tconv", "ONNX", "JAX, Flax"]
    assert [row.library for row in four if row.valid is None] == ["PyTorch", "Keras, TensorFlow"]
    extended = conventions((axis(4, 3, begin=-1),))
    assert [row.library for row in extended if row.arguments] == ["tconv", "JAX, Flax"]
    crooked = conventions((axis(4, 4, 2, begin=0, end=1),))
    refused = [row.library for row in crooked if not row.arguments]
    assert refused == ["PyTorch", "Keras, TensorFlow"]


def test_arguments_are_as_short_as_can_be():
    rows = {row.library: row.arguments for row in conventions((axis(64, 4, 2, 1, 1, 1),) * 2)}
    assert rows == {
        "tconv": "padding=1",
        "PyTorch": "padding=1",
        "ONNX": "pads=[1, 1, 1, 1]",
        "Keras, TensorFlow": 'padding="same"',
        "JAX, Flax": "padding=((2, 2), (2, 2))",
    }
