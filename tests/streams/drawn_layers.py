"""Random layers and sequences of them, and what they give in one call with method="direct"."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

import tconv
from tconv.nn.conv_base import Convolution
from tconv.ops.planned_call import PlannedCall

__all__ = ["convolutions", "directly", "directly_or_none", "noise", "sequences"]

TYPES = ["float16", "bfloat16", "float32", "float64"]
ACTIVATIONS = [None, "relu", "tanh", "silu", ("leaky_relu", 0.1), ("snake", 1.5), "gelu"]


def noise(shape, dtype, seed, zeros=0.2):
    """Normal numbers, whose sums depend on their order, and among them zeros of either sign."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    x[rng.random(shape) < zeros] *= 0
    return x.astype(dtype)


@st.composite
def convolutions(draw, dtype=None, in_channels=None):
    """A Conv1d or ConvTranspose1d of any settings that has a stream."""
    kernel = draw(st.integers(1, 16) | st.sampled_from([1, 2, 3]))
    stride = draw(st.integers(1, 8) | st.just(1))
    dilation, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 4]))
    if in_channels is not None and in_channels % groups:
        groups = 1
    reach = dilation * (kernel - 1) + 1
    transposed, seed = draw(st.booleans()), draw(st.integers(0, 99))
    padding = draw(st.integers(-3, reach + 1)), draw(st.integers(-3, reach + 1))
    settings = {
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "padding": (padding,),
        "bias": draw(st.booleans()),
        "dtype": dtype or draw(st.sampled_from(TYPES)),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "rng": seed,
    }
    if transposed:
        settings["output_padding"] = draw(st.integers(0, max(stride, dilation) - 1))
    channels = in_channels or groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 4))
    layer = (tconv.ConvTranspose1d if transposed else tconv.Conv1d)(*channels, kernel, **settings)
    layer.weight.value = noise(layer.weight.shape, layer.dtype, seed)
    return layer


@st.composite
def sequences(draw, dtype="float32"):
    """A sequence that goes down and up, with residual blocks and activations between."""
    channels, layers = draw(st.integers(1, 4)), []
    first = channels
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["conv", "pointwise", "residual", "hourglass"]))
        if kind == "conv":
            layers.append(draw(convolutions(dtype, channels)))
            channels = layers[-1].out_channels
        elif kind == "pointwise":
            layers.append(draw(_pointwise(dtype, channels)))
        elif kind == "residual":
            layers.append(tconv.Residual(*draw(_alike(dtype, channels))))
        else:  # half the cells and twice as many again: alike for even sizes alone
            down = tconv.Conv1d(channels, 2, 4, stride=2, padding=1, dtype=dtype, rng=0)
            up = tconv.ConvTranspose1d(2, channels, 4, stride=2, padding=1, dtype=dtype, rng=1)
            inner = draw(_alike(dtype, 2))
            layers.append(tconv.Residual(down, *inner, up))
    assume(any(isinstance(each, Convolution | tconv.Residual) for each in layers))
    return tconv.Sequential(*layers), first


@st.composite
def _alike(draw, dtype, channels):
    """Layers that keep the size: centred, causal, or one that looks ahead."""
    found = []
    for _ in range(draw(st.integers(1, 2))):
        kernel, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 3))
        reach = dilation * (kernel - 1)
        begin = draw(st.sampled_from([reach // 2, reach, 0]))
        found.append(draw(_pointwise(dtype, channels)))
        kinds = [tconv.Conv1d, tconv.ConvTranspose1d]
        found.append(
            draw(st.sampled_from(kinds))(
                channels,
                channels,
                kernel,
                padding=((begin, reach - begin),),
                dilation=dilation,
                dtype=dtype,
                rng=draw(st.integers(0, 9)),
            )
        )
    return found


@st.composite
def _pointwise(draw, dtype, channels):
    made = [tconv.ReLU(), tconv.LeakyReLU(0.1), tconv.Tanh(), tconv.Sigmoid()]
    made += [tconv.Snake(alpha=0.7), tconv.Snake(channels, 1.3, dtype=dtype)]
    return draw(st.sampled_from(made))


def directly(layer, x):
    """What a layer gives of a whole input, each convolution with method="direct"."""
    if isinstance(layer, tconv.Residual):
        y = directly(layer.branch, x)
        if y.shape != x.shape:
            raise tconv.ShapeError("the branch has another shape")
        return x + y
    if isinstance(layer, tconv.Sequential):
        for each in layer:
            x = directly(each, x)
        return x
    if not isinstance(layer, Convolution):
        return layer.predict(x)
    geometry, dtype = layer._geometry(x.shape, layer.in_channels), str(layer.dtype)
    call = PlannedCall(geometry, dtype, None, "direct", layer._activation, layer._wanted)
    bias = None if layer.bias is None else layer.bias.value
    return call(np.ascontiguousarray(x), call.pack(layer.weight.value), bias)


def directly_or_none(layer, x):
    """The same; None where the input is too short, or of a length that a residual block refuses."""
    try:
        return directly(layer, x)
    except tconv.ShapeError:
        return None
