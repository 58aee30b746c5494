"""Random operators of SciPy: both kinds, every padding mode, batches and layouts."""

import numpy as np
from hypothesis import strategies as st

from strategies import geometries, integers_like, keywords_of, padded_calls
from tconv.scipy import ConvOperator, ConvTransposeOperator

TYPES = ("float32", "float64", "complex64", "complex128")


@st.composite
def operators(draw, dtypes=TYPES, has_modes=True):
    """An operator whose weight holds small integers, of any geometry with a batch of at least 1."""
    if has_modes and draw(st.booleans()):
        geometry, keywords = draw(padded_calls())
        mode = keywords["padding_mode"]
    else:
        geometry, mode = draw(geometries(ranks=(1, 2, 3), batches=(1, 2, 3))), "zeros"
    weight = integers_like(geometry.weight_shape, draw(st.sampled_from(dtypes)), seed=7)
    is_transposed = draw(st.booleans())
    keywords = keywords_of(geometry, "y" if is_transposed else "x")
    keywords["output_size"] = keywords.pop("input_size", None)
    kind = ConvTransposeOperator if is_transposed else ConvOperator
    size = geometry.input_size if is_transposed else geometry.output_size
    if mode != "zeros":
        keywords.pop("output_padding", None)
    return kind(weight, size, batch=geometry.batch, padding_mode=mode, **keywords)


def dense(op):
    """The matrix, column by column."""
    return np.stack([op @ each for each in np.eye(op.shape[1])], 1)


@st.composite
def circulants(draw, dtypes=("float64", "complex128")):
    """A circular operator whose larger array has stride times the cells of the smaller one."""
    rank, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    axes = [
        [draw(st.integers(1, most)) for most in (5, 4, 3, 2)] for _ in range(rank)
    ]  # cells, taps, stride, dilation
    cells, taps, strides, dilations = (tuple(each) for each in zip(*axes, strict=True))
    paddings = []
    for k, s, d in zip(taps, strides, dilations, strict=True):
        spare = d * (k - 1) + 1 - s
        begin = draw(st.integers(0, max(spare, 0)))
        paddings.append((begin, spare - begin))
    if any(end < 0 for _, end in paddings):  # gaps: no circular operator is as large
        taps = tuple(max(k, s) for k, s in zip(taps, strides, strict=True))
        spares = [d * (k - 1) + 1 - s for k, s, d in zip(taps, strides, dilations, strict=True)]
        paddings = [(spare // 2, spare - spare // 2) for spare in spares]
    shape = groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *taps
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    weight = rng.standard_normal(shape)
    if draw(st.sampled_from(dtypes)) == "complex128":
        weight = weight + 1j * rng.standard_normal(shape)
    is_transposed = draw(st.booleans())
    kind = ConvTransposeOperator if is_transposed else ConvOperator
    larger = tuple(n * s for n, s in zip(cells, strides, strict=True))
    return kind(
        weight, cells if is_transposed else larger, batch=draw(st.integers(1, 2)), groups=groups,
        stride=strides, dilation=dilations, padding=paddings, padding_mode="circular",
        data_format=draw(st.sampled_from(["channels_first", "channels_last"])),
    )  # fmt: skip
