"""Every remedy works: what a message advises is read from it and done, until the call succeeds.

`tests/test_bad_input.py` has the messages of the functions one by one, each with the call that it
proposes. Here sizes and settings are drawn, and the advice is parsed; a case of random numbers
finds advice that holds for the example in mind and for no other.
"""

import ast
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tconv
from strategies import draws
from tconv.arrays.dtypes import TYPES
from tconv.errors import TConvError
from tconv.geometry.onnx_attributes import ConvAttributes, NodeAttributes
from tconv.nn.init import init_bilinear, init_icnr

_MOST_STEPS = 30  # one complaint may follow another, some for every axis


def followed(call, advice, start):
    """Do what the messages say until there are none; return what was called at last.

    `advice` has a pattern for each remedy, and what to change where it is found.
    """
    state, told = dict(start), []
    for _ in range(_MOST_STEPS):
        try:
            call(state)
        except TConvError as error:
            told.append(str(error))
        else:
            return state, told
        rows = [(re.search(pattern, told[-1]), change) for pattern, change in advice.items()]
        found = [(match, change) for match, change in rows if match]
        assert found, f"no remedy is known for: {told[-1]}"
        match, change = found[0]
        change(state, *match.groups())
    raise AssertionError(f"the remedies lead nowhere: {told[-3:]} from {start}")


def put(name, convert=int):
    """Change that sets one entry of a list."""

    def change(state, n, value):
        entries = list(state[name])
        entries[int(n)] = convert(value)
        state[name] = tuple(entries)

    return change


# ---- sizes of the functions ----------------------------------------------------------------------


def _lower(state, n, most):
    put("padding", lambda total: (int(total) // 2, int(total) - int(total) // 2))(state, n, most)


def _raise_padding(state, n, by):
    if state["padding"] == "valid":
        state["padding"] = ((0, 0),) * len(state["stride"])
    begin, end = state["padding"][int(n)]
    put("padding", tuple)(state, n, (begin, end + int(by)))


ADVICE = {
    r"must be 0 with padding=.*; leave it out": lambda s: s.update(
        output_padding=(0,) * len(s["stride"])
    ),
    r"output_padding\[(\d+)\]=.*; pass at most (\d+),": put("output_padding"),
    r"; pass a divisor such as 1(?:, (\d+))*\.": lambda s, last: s.update(groups=int(last or 1)),
    r"groups=.*; pass 1\.": lambda s: s.update(groups=1),
    r"; pass [xy] with (\d+) channels": lambda s, count: s.update(channels=int(count)),
    r"; lower padding\[(\d+)\] to a sum of at most (\d+)": _lower,
    r" excludes output_padding=": lambda s: s.update(output_padding=(0,) * len(s["stride"])),
    r"; for \d+ pass padding=(\(.*\))\.": lambda s, text: s.update(padding=ast.literal_eval(text)),
    r"_size\[(\d+)\]=.*(?:reachable|possible) (?:are|is only) (\d+)(?: to \d+)?; pass": put(
        "wanted"
    ),
    r"raise padding\[(\d+)\] by (\d+) in all": _raise_padding,
    r"; pass output_padding\[(\d+)\]=(\d+)\.": put("output_padding"),
    r"; pass output_size for an output that holds only the bias": lambda s: s.update(
        wanted=(3,) * len(s["stride"])
    ),
}


@st.composite
def asked(draw, names=("valid", "same", "same_lower"), least=1):
    """Sizes and settings of a call, sound or not."""
    rank = draw(st.sampled_from((1, 2)))

    def per_axis(*limits):
        return tuple(draw(st.integers(*limits)) for _ in range(rank))

    pads = tuple((draw(st.integers(-2, 6)), draw(st.integers(-2, 6))) for _ in range(rank))
    return {
        "size": per_axis(least, 6),
        "kernel": per_axis(1, 5),
        "stride": per_axis(1, 4),
        "dilation": per_axis(1, 3),
        "padding": draw(st.sampled_from([pads, pads, pads, *names])),
        "output_padding": draw(st.sampled_from([(0,) * rank, per_axis(0, 5)])),
        "groups": draw(st.integers(1, 4)),
        "channels": draw(st.integers(1, 6)),
        "weight": (draw(st.integers(1, 6)), draw(st.integers(1, 3))),
        "wanted": draw(st.sampled_from([None, per_axis(1, 30)])),
    }


def keywords_of(state):
    names = ("stride", "dilation", "padding", "output_padding", "groups")
    return {name: state[name] for name in names}


@draws(4)
@given(asked(least=0))
def test_what_a_transposed_convolution_advises_works(state):
    def call(s):
        tconv.output_shape(
            (1, s["channels"], *s["size"]),
            (*s["weight"], *s["kernel"]),
            **keywords_of(s),
            output_size=s["wanted"],
        )

    found, told = followed(call, ADVICE, state)
    y = np.zeros((1, found["channels"], *found["size"]))
    w = np.zeros((*found["weight"], *found["kernel"]))
    tconv.conv_transpose(y, w, **keywords_of(found), output_size=found["wanted"])
    for message in told:  # a wanted size is kept where the message says how
        if state["wanted"] and "; for " in message:
            n, size = re.search(r"output_size\[(\d+)\]=(\d+)", message).groups()
            assert found["wanted"][int(n)] == int(size)


@draws(4)
@given(asked())
def test_what_a_convolution_advises_works(state):
    def call(s):
        tconv.conv(
            np.zeros((1, s["channels"], *s["size"])),
            np.zeros((*s["weight"], *s["kernel"])),
            **keywords_of(s),
            input_size=s["wanted"],
        )

    _, told = followed(call, ADVICE, state)
    assert not any("output_size" in message for message in told)


# ---- nodes of ONNX -------------------------------------------------------------------------------


def _lower_pads(state, n, m, most):
    pads = list(state["pads"])
    pads[int(n)], pads[int(m)] = 0, int(most)
    state["pads"] = pads


def _raise_pads(state, how, n, m, least):
    pads = list(state["pads"] or (0,) * 2 * len(state["size"]))
    pads[int(n)], pads[int(m)] = 0, int(least)
    state["pads"] = pads
    if how != "raise":
        state["auto_pad"] = None


OF_NODES = {
    r"output_padding\[(\d+)\]=.*; set it to at most (\d+),": put("output_padding"),
    r"; set group=(\d+)": lambda s, group: s.update(group=int(group)),
    r"; pass an X with (\d+) channels": lambda s, count: s.update(channels=int(count)),
    r"(raise|leave auto_pad out and set) pads\[(\d+)\] and pads\[(\d+)\] to a sum of at least "
    r"(-?\d+)": _raise_pads,
    r"lower pads\[(\d+)\] and pads\[(\d+)\] to a sum of at most (\d+)": _lower_pads,
    r"output_shape\[(\d+)\]=.*reachable are 1 to (\d+); set one": put("output_shape"),
    r"; leave one of the two out": lambda s: s.update(pads=None),
    r"; pass an X that is not empty": lambda s: s.update(size=tuple(max(n, 1) for n in s["size"])),
}
_ATTRIBUTES = (
    "auto_pad",
    "dilations",
    "group",
    "output_padding",
    "output_shape",
    "pads",
    "strides",
)
# What tconv's own functions have and ONNX has not.
_FOREIGN = re.compile(
    r"output_size|padding\[|padding=|stride\[|dilation\[|groups|weight_format|dtype="
)


@draws(4)
@given(
    st.sampled_from([NodeAttributes, ConvAttributes]),
    asked(least=0),
    st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
)
def test_what_a_node_advises_works_and_is_said_in_the_words_of_onnx(kind, state, auto_pad):
    explicit = not isinstance(state["padding"], str)
    begins, ends = zip(*state["padding"], strict=True) if explicit else (None, None)
    node = {
        "auto_pad": auto_pad,
        "strides": state["stride"],
        "dilations": state["dilation"],
        "output_padding": state["output_padding"],
        "output_shape": state["wanted"],
        "group": state["groups"],
        "pads": (*begins, *ends) if explicit else None,
        **{name: state[name] for name in ("size", "channels", "weight", "kernel")},
    }

    def call(s):
        names = [name for name in _ATTRIBUTES if name not in kind.not_of_it]
        given = {name: s[name] for name in names if s[name] is not None}
        given = {n: list(v) if isinstance(v, tuple) else v for n, v in given.items()}
        x, w = (1, s["channels"], *s["size"]), (*s["weight"], *s["kernel"])
        kind.of(given).geometry(x, w)

    _, told = followed(call, OF_NODES, node)
    for message in told:
        assert not _FOREIGN.search(message.replace("output_padding[", "")), message


# ---- types ---------------------------------------------------------------------------------------

_NUMBERS = [*TYPES, "uint64", "uint16", "bool", "longdouble", "uint32"]


def _array(shape, dtype):
    import ml_dtypes

    return np.ones(shape, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize(("first", "second"), list(product(_NUMBERS, _NUMBERS)))
def test_what_is_advised_for_types_works(first, second):
    state = {"x": _array((1, 1, 3), first), "weight": _array((1, 1, 2), second), "dtype": None}

    def call(s):
        tconv.conv_transpose(s["x"], s["weight"], dtype=s["dtype"])

    advice = {
        r'for example dtype="(\w+)"': lambda s, name: s.update(dtype=name),
        r"; pass an array of integers, real or complex numbers": lambda s: s.update(
            x=s["x"].astype("float64"), weight=s["weight"].astype("float64")
        ),
        r"^(\w+) has dtype \S+, which dtype=(\S+) cannot hold; convert": lambda s, name, dtype: (
            s.update({name: s[name].astype(dtype)})
        ),
        r" values \d+ to \d+, which dtype=\w+ cannot hold; pass a wider": lambda s: s.update(
            dtype="int64"
        ),
    }
    _, told = followed(call, advice, state)
    assert len(told) <= 2


# ---- initialisers --------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_what_initialisers_advise_works(kernel, stride, inputs, outputs):
    try:
        init_bilinear((inputs, outputs, kernel), stride=stride)
    except TConvError as error:
        if "or use icnr" in str(error):
            init_icnr((inputs, outputs, kernel), stride=stride)
        else:
            assert kernel < stride
        number = re.search(r"; pass (\d+)", str(error))
        if number:
            init_bilinear((inputs, inputs, int(number[1])), stride=stride)
        else:
            with pytest.raises(TConvError) if kernel < 2 * stride - 1 else _nothing():
                init_bilinear((inputs, inputs, kernel), stride=stride)
    try:
        init_icnr((inputs, outputs, kernel), stride=stride)
    except TConvError as error:
        number = int(re.search(r"; pass (\d+) or a multiple", str(error))[1])
        for times in (1, 2):
            init_icnr((inputs, outputs, times * number), stride=stride)


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


# ---- padding modes -------------------------------------------------------------------------------


def _no_less_than_0(state):
    pairs = [(max(a, 0), max(b, 0)) for a, b in state["padding"]]
    state["padding"] = tuple(pairs)


_MODES = {
    r"; pass integers, or padding_mode=": lambda s: s.update(padding=((0, 0),) * len(s["stride"])),
    r"; pass output_padding=0 or padding_mode=": lambda s: s.update(
        output_padding=(0,) * len(s["stride"])
    ),
    r"; pass padding of 0 or more, or padding_mode=": _no_less_than_0,
}
_CIRCULAR = {
    r'; lower padding or use padding_mode="(circular)"': lambda s, mode: s.update(mode=mode)
}
_LOWER = {
    r"^padding\[(\d+)\]=.*; lower padding or": lambda s, n: put("padding", tuple)(s, n, (0, 0))
}


@draws(2)
@given(asked(), st.sampled_from(["circular", "reflect", "replicate"]), st.sampled_from([0, 1]))
def test_what_padding_modes_advise_works(state, mode, which):
    def call(s):
        tconv.conv_transpose(
            np.zeros((1, s["channels"], *s["size"])),
            np.zeros((*s["weight"], *s["kernel"])),
            **keywords_of(s),
            padding_mode=s["mode"],
        )

    last = (_CIRCULAR, _LOWER)[which]
    _, told = followed(call, _MODES | last | ADVICE, {**state, "mode": mode})
    if any('padding_mode="zeros"' in message for message in told):  # the other way out of these
        followed(call, ADVICE, {**state, "mode": "zeros"})


# ---- layers --------------------------------------------------------------------------------------


@given(st.integers(-3, 4), st.integers(-3, 4), st.integers(1, 4), st.integers(1, 4))
def test_what_a_layer_advises_on_its_way_to_onnx_works(begin, end, kernel, stride):
    pytest.importorskip("onnx")

    def call(s):
        tconv.ConvTranspose1d(
            1, 1, kernel, stride=stride, padding=s["padding"], padding_mode=s["mode"]
        ).to_onnx()

    advice = {
        r"; make the layer with padding of 0 or more": _no_less_than_0,
        r'; make the layer with padding_mode="(\w+)"': lambda s, mode: s.update(mode=mode),
    }
    for mode in ("zeros", "circular"):
        state = {"padding": ((begin, end),), "mode": mode, "stride": (stride,)}
        followed(call, advice | _MODES, state)


def test_an_activation_before_a_normalisation_is_dealt_with_as_is_said():
    layer = tconv.ConvTranspose1d(1, 2, 2, activation="relu", rng=0)
    bn = tconv.BatchNorm1d(2) if hasattr(tconv, "BatchNorm1d") else _Statistics(2)
    with pytest.raises(TConvError, match=r"; set layer\.activation=None, fold, and set the"):
        tconv.fold_batch_norm(layer, bn)
    layer.activation = None
    result = tconv.fold_batch_norm(layer, bn)
    result.activation = "relu"
    assert result.predict(np.ones((1, 1, 3), np.float32)).shape == (1, 2, 4)


class _Statistics:
    """A normalisation after training, as PyTorch has it."""

    def __init__(self, channels):
        self.running_mean, self.running_var = np.zeros(channels), np.ones(channels)
        self.weight, self.bias = np.ones(channels), np.zeros(channels)
        self.eps, self.training = 1e-5, False
