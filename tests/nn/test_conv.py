"""Convolution layers take their channels from x, refuse what the operation refuses, and copy."""

import copy
import os
import pickle
import re

import numpy as np
import pytest

from strategies import integers_like, same_numbers
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.nn import conv as conv_layers
from tconv.nn.conv import Conv, Conv1d, Conv2d, ConvTranspose, ConvTranspose1d, ConvTranspose2d
from tconv.nn.layer import Sequential
from tconv.nn.optim import SGD
from tconv.ops.functional import conv, conv_transpose


@pytest.mark.parametrize("kind", [Conv1d, ConvTranspose1d])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_channels_are_taken_from_the_first_x(kind, last, batch):
    options = {"data_format": "channels_last"} if last else {}
    lazy = kind(None, 4, 3, groups=2, dtype="float64", rng=7, **options)
    assert lazy.in_channels is None
    assert "(None, 4, " in repr(lazy)
    with pytest.raises(ParameterError, match=r"^weight has no value yet, in_channels=None"):
        lazy.state_dict()
    x = integers_like((*batch, 5, 6) if last else (*batch, 6, 5))
    given_channels = kind(6, 4, 3, groups=2, dtype="float64", rng=7, **options)
    assert same_numbers(lazy(x), given_channels(x))
    assert lazy.in_channels == 6
    assert repr(lazy) == repr(given_channels)
    with pytest.raises(ShapeError, match="channels"):
        lazy(integers_like((*batch, 5, 4) if last else (*batch, 4, 5)))


def test_a_lazy_layer_is_filled_by_a_state():
    lazy, full = Conv1d(None, 4, 3, groups=2), Conv1d(6, 4, 3, groups=2)
    lazy.load_state_dict(full.state_dict())
    x = np.ones((1, 6, 5), np.float32)
    assert same_numbers(lazy(x), full(x))
    with pytest.raises(
        ParameterError, match=r"weight has shape \(4, 3, 2\), must be \(4, None, 3\)"
    ):
        Conv1d(None, 4, 3).load_state_dict(Conv1d(3, 4, 2).state_dict())


def test_a_failed_first_forward_fills_nothing():
    lazy = ConvTranspose1d(None, 4, 3, groups=2)
    with pytest.raises(ShapeError, match=r"^groups=2 must divide the 3 input channels of weight"):
        lazy(np.ones((1, 3, 5), np.float32))
    with pytest.raises(ShapeError, match=r"^x\.ndim=1 must be 3"):
        lazy(np.ones(3, np.float32))
    assert lazy.in_channels is None


def test_an_optimiser_may_come_before_the_first_forward():
    net = Sequential(
        Conv1d(None, 2, 3, dtype="float64"), ConvTranspose1d(None, 1, 3, dtype="float64")
    )
    optimiser = SGD(net.parameters(), lr=0.1)
    y = net(integers_like((1, 3, 6)))
    before = net.state_dict()
    net.backward(np.ones_like(y))
    optimiser.step()
    assert all(not np.array_equal(value, before[name]) for name, value in net.state_dict().items())


# ---- what is refused -----------------------------------------------------------------------------

WRONG = [
    {"stride": 0},
    {"stride": (1, -1)},
    {"stride": 1.5},
    {"stride": (1, 2, 3)},
    {"dilation": 0},
    {"dilation": "2"},
    {"padding": 2.0},
    {"padding": (1, 2, 3)},
    {"padding": ((1, 2, 3), 1)},
    {"padding": "full"},
    {"data_format": "nhwc"},
    {"padding_mode": "mirror"},
    {"padding_mode": "reflect", "padding": "same"},
    {"padding_mode": "reflect", "padding": -1},
    {"groups": 0},
    {"groups": True},
]
WRONG_TRANSPOSED = [
    {"output_padding": 1},
    {"output_padding": (0, 2), "stride": 2},
    {"output_padding": -1},
    {"output_padding": 1, "stride": 2, "padding": "same"},
    {"output_padding": 1, "stride": 2, "padding_mode": "circular"},
]


@pytest.mark.parametrize("keywords", WRONG + WRONG_TRANSPOSED, ids=str)
@pytest.mark.parametrize("kind", [ConvTranspose2d, Conv2d])
def test_a_layer_refuses_what_the_operation_refuses(kind, keywords):
    if kind is Conv2d and "output_padding" in keywords:
        return
    operation = conv if kind is Conv2d else conv_transpose
    with pytest.raises(ValueError, match=r"must|exclude") as expected:
        operation(np.ones((1, 4, 9, 9)), np.ones((4, 4, 3, 3)), **keywords)
    with pytest.raises(type(expected.value)) as found:
        kind(4, 4, 3, **keywords)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: ConvTranspose2d(3, 4, 3, groups=2),
            ShapeError,
            "groups=2 must divide in_channels=3; pass groups that divides in_channels and "
            "out_channels.",
        ),
        (
            lambda: Conv2d(4, 3, 3, groups=2),
            ShapeError,
            "groups=2 must divide out_channels=3; pass groups that divides in_channels and "
            "out_channels.",
        ),
        (
            lambda: Conv2d(0, 3, 3),
            ParameterError,
            "in_channels=0 must be at least 1; pass a positive integer.",
        ),
        (
            lambda: Conv2d(1, 3.5, 3),
            ParameterError,
            "out_channels=3.5 must be an integer; pass an integer.",
        ),
        (
            lambda: Conv2d(1, 1, (3, 3, 3)),
            ParameterError,
            "kernel_size=(3, 3, 3) must be one integer or 2, one per spatial axis, not 3; pass 1 "
            "or (1, 1).",
        ),
        (
            lambda: Conv2d(1, 1, 0),
            ParameterError,
            "kernel_size[0]=0 must be at least 1; pass a positive integer.",
        ),
        (
            lambda: ConvTranspose(1, 1, 3),
            ParameterError,
            "kernel_size=3 must be a tuple, whose length is the number of spatial axes; pass "
            "(3, 3) for two of them.",
        ),
        (
            lambda: Conv(1, 1, ()),
            ParameterError,
            "kernel_size=() must be a tuple, whose length is the number of spatial axes; pass "
            "(3, 3) for two of them.",
        ),
        (
            lambda: Conv1d(1, 1, 1, bias=None),
            ParameterError,
            "bias=None must be True or False; pass one of these.",
        ),
        (
            lambda: Conv1d(1, 1, 1, dtype="complex64"),
            DTypeError,
            "dtype='complex64' must name one of float16, bfloat16, float32, float64; pass one "
            "of these.",
        ),
        (
            lambda: Conv1d(1, 1, 1, activation="elu"),
            ParameterError,
            "activation='elu' must be None, 'relu', ('leaky_relu', slope), ('prelu', slope), "
            "('elu', alpha), ('clip', low, high), ('hard_sigmoid', alpha, beta), 'tanh', "
            "'sigmoid', 'silu', 'hard_swish', 'gelu', ('gelu', 'tanh') or ('snake', a); pass "
            '("elu", 1.0).',
        ),
        (
            lambda: ConvTranspose1d(1, 1, 1, activation=("leaky_relu", -1)),
            ParameterError,
            "activation[1]=-1 must be a finite number of at least 0, in float32, the slope below "
            "0; pass 0.01 for example.",
        ),
        (
            lambda: Conv1d(1, 1, 1, rng="seed"),
            ParameterError,
            "rng='seed' must be a numpy.random.Generator or a seed; pass an integer of 0 or more.",
        ),
        (
            lambda: Conv1d(1, 1, 1, initialiser="he"),
            ParameterError,
            "initialiser='he' must be one of 'kaiming_uniform', 'kaiming_normal', "
            "'xavier_uniform', 'xavier_normal', 'bilinear', 'icnr', 'torch', 'zeros'; pass one of "
            "these.",
        ),
        (
            lambda: Conv1d(1, 1, 1, initialiser=lambda shape, **_: np.zeros(5)),
            ShapeError,
            "weight has shape (5,), must be (1, 1, 1); pass such an array.",
        ),
        (
            lambda: Conv1d(1, 1, 3)(np.ones((1, 1, 5))),
            DTypeError,
            'x has dtype float64 but the layer has float32; pass x.astype("float32") or make the '
            'layer with dtype="float64".',
        ),
        (
            lambda: ConvTranspose1d(2, 1, 3)(np.ones((1, 1, 5), np.float32)),
            ShapeError,
            "x has 1 channels but the layer has in_channels=2; pass x with 2 channels or a layer "
            "with in_channels=1.",
        ),
        (
            lambda: Conv1d(2, 1, 3)(np.ones((1, 5, 2), np.float32)),
            ShapeError,
            "x has 5 channels but the layer has in_channels=2; pass x with 2 channels or a layer "
            'with in_channels=5, or data_format="channels_last" if the channels stand there.',
        ),
        (
            lambda: Conv1d(1, 1, 3)(np.ones((1, 1, 2), np.float32)),
            ShapeError,
            "x has size 2 on spatial axis 0, but the kernel needs 3 (kernel 3, stride 1, dilation "
            "1, padding (0, 0)); pass a larger x or raise padding[0] by 1 in all.",
        ),
        (
            lambda: Conv1d(1, 1, 3)(np.ones((1, 1, 0), np.float32)),
            ShapeError,
            "x has size 0 on spatial axis 0, must be at least 1; pass one that is not empty.",
        ),
        (
            lambda: Conv1d(1, 1, 3, padding=4, padding_mode="reflect")(np.ones((1, 1, 4), "f4")),
            ShapeError,
            'padding[0]=(4, 4) must be smaller than x\'s size 4 with padding_mode="reflect"; lower '
            'padding or use padding_mode="circular".',
        ),
    ],
)
def test_exact_messages(make, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()


def test_a_weight_larger_than_the_memory_is_refused():
    with pytest.raises(MemoryError, match=r"^weight of shape .* needs [\d,]+ bytes to draw"):
        Conv2d(2**31, 2**31, 2**31)


def test_a_gradient_of_another_shape_or_type_is_refused():
    layer = Conv1d(1, 2, 3)
    y = layer(np.ones((1, 1, 5), np.float32))
    with pytest.raises(ShapeError, match=r"^dy has shape \(2, 3\), must be that of y, \(1, 2, 3\)"):
        layer.backward(y[0])
    with pytest.raises(DTypeError, match=r"^dy has dtype float64, must be that of y, float32"):
        layer.backward(y.astype(np.float64))
    assert not layer.weight.gradient.any()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_the_rank_of_a_class_is_that_of_its_name(name, rank):
    layer = getattr(conv_layers, f"{name}{rank}d")(1, 1, 3)
    assert layer.kernel_size == (3,) * rank
    assert isinstance(layer, getattr(conv_layers, name))
    y = getattr(conv_layers, name)(1, 1, (2,) * (rank + 2))(
        np.ones((1, *[3] * (rank + 2)), np.float32)
    )
    assert y.ndim == rank + 3


def test_settings_may_be_changed_afterwards():
    layer = Conv1d(1, 1, 3, padding=1)
    layer.padding = "valid"
    assert layer(np.ones((1, 1, 5), np.float32)).shape == (1, 1, 3)


# ---- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
@pytest.mark.parametrize("channels", [2, None])
def test_copies_compute_the_same_and_draw_the_same(copied, channels):
    layer = ConvTranspose2d(channels, 3, 4, stride=2, padding="same", dtype="bfloat16", rng=3)
    other = copied(layer)
    x = np.ones((1, 2, 3, 3)).astype(layer.dtype)
    assert same_numbers(layer(x), other(x))
    assert repr(layer) == repr(other)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize(
    "activation",
    ["relu", ("leaky_relu", 0.1), "gelu", ("gelu", "tanh"), ("clip", None, 0.5)],
    ids=str,
)
def test_an_activation_is_shown_and_copied_and_no_part_of_a_state(
    copied, kind, activation, tmp_path
):
    layer, plain = kind(2, 3, 4, rng=3, activation=activation), kind(2, 3, 4, rng=3)
    assert repr(layer) == f"{repr(plain)[:-1]}, activation={activation!r})"
    x = np.ones((1, 2, 5, 5), np.float32)
    again = copied(layer)
    assert again.activation == activation
    assert same_numbers(again(x), layer(x))
    assert sorted(layer.state_dict()) == sorted(plain.state_dict())
    layer.save(tmp_path / "state.npz")
    plain.load(tmp_path / "state.npz")
    plain.activation = activation
    assert same_numbers(plain(x), layer(x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads, which BLAS keeps
def test_a_lazy_layer_survives_a_fork():
    layer = ConvTranspose2d(None, 3, 4, stride=2, rng=3)
    x = np.ones((1, 2, 3, 3), np.float32)
    expected = copy.deepcopy(layer)(x)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if np.array_equal(layer(x), expected) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
