"""Planned and repeated calls: no cache changes a result or hides an error."""

import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import (
    ENGINE_TYPES,
    draws,
    geometries,
    integer_operands,
    integers_like,
    keywords_of,
)
from tconv import conv_transpose, definition, engine, plan
from tconv.arrays.activations import as_activation
from tconv.engine import executor
from tconv.engine.target.target import target
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from tconv.geometry.geometry import Geometry
from tconv.ops import call_cache, dispatch, planned_call

RNG = np.random.default_rng(0)


class Mine(np.ndarray):
    """A subclass."""


def integers(shape, dtype="float32"):
    return RNG.integers(-4, 5, shape).astype(dtype)


@pytest.fixture
def call():
    """A call that is known, with its operands."""
    x, w, b = integers((2, 3, 4, 5)), integers((3, 2, 3, 2)), integers(2)
    for _ in range(2):
        conv_transpose(x, w, b, stride=2)
    return x, w, b


def is_known(x, w, *keywords):
    return call_cache.cache_entry(x, w, keywords) is not None


@pytest.mark.parametrize("dtype", ENGINE_TYPES)
def test_a_repeated_call_computes_with_its_own_numbers(dtype):
    geometry = Geometry.of((2, 4, 5, 3), (4, 3, 3, 2), stride=(2, 1), groups=2, padding=1)
    for has_bias, has_out in product([False, True], repeat=2):
        for _ in range(3):
            x, w = integers((2, 4, 5, 3), dtype), integers((4, 3, 3, 2), dtype)
            b = integers(6, dtype) if has_bias else None
            out = np.full(geometry.y_shape, np.nan, dtype) if has_out else None
            y = conv_transpose(x, w, b, stride=(2, 1), groups=2, padding=1, out=out)
            exact = definition.contract(
                geometry, "y", wide(x), wide(w), bias=None if b is None else wide(b)
            )
            assert np.array_equal(y, exact.astype(dtype))
            assert (y is out) == has_out


@pytest.mark.parametrize("dtype", ENGINE_TYPES)
def test_every_type_of_the_kernels_goes_the_short_way(dtype, monkeypatch):
    x, w, b = integers((2, 3, 4, 5), dtype), integers((3, 2, 3, 2), dtype), integers(2, dtype)
    first, _ = (conv_transpose(x, w, b, stride=2) for _ in range(2))
    asked = []
    monkeypatch.setattr(call_cache, "solve_for", lambda *operands: asked.append(operands) or first)
    again = conv_transpose(x, w, b, stride=2)
    assert np.array_equal(again, first)
    assert bool(asked) != target().uses_engine
    swapped = x.view(f"u{x.itemsize}").byteswap().view(x.dtype.newbyteorder())
    assert not is_known(swapped, swapped)


def test_that_holds_for_bfloat16_in_a_new_process():
    """Where nobody has asked for the type before the first call."""
    code = (
        "import numpy as np\n"
        "from tconv import conv_transpose\nfrom tconv.arrays import dtypes\n"
        "assert 'bfloat16' not in dtypes.NATIVE_DTYPES.values()\n"
        "import ml_dtypes\n"
        "x = np.ones((1, 1, 3), ml_dtypes.bfloat16)\n"
        "conv_transpose(x, x)\n"
        "assert dtypes.NATIVE_DTYPES[x.dtype] == 'bfloat16'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_layouts_are_told_apart():
    x, w = integers((2, 3, 3)), integers((3, 3, 3))
    for _, last, weights, flip in product(range(2), [False, True], ["IO*", "*OI"], [False, True]):
        data_format = "channels_last" if last else "channels_first"
        layout = {"data_format": data_format, "weight_format": weights, "flip_kernel": flip}
        y = conv_transpose(x, w, **layout)
        geometry = Geometry.of(x.shape, w.shape, **layout)
        assert np.array_equal(y, definition.contract(geometry, "y", x, w))


@pytest.mark.parametrize("stride", [2.0, (2.0, 2), True, (True, True), "2", None, [2, 2.0]])
def test_what_only_equals_a_known_keyword_is_refused_as_ever(call, stride):
    x, w, b = call
    conv_transpose(x, w, stride=(2, 2))
    conv_transpose(x, w, stride=(1, 1))
    conv_transpose(x, w, stride=1)
    with pytest.raises(ParameterError, match="must be an integer"):
        conv_transpose(x, w, b, stride=stride)


@pytest.mark.parametrize("padding", [((1, True), 0), ((1.0, 1), 0), (1, 0.0), ((1, 1), None)])
def test_so_are_entries_of_pairs(call, padding):
    x, w, _ = call
    for known in (((1, 1), 0), (1, 0), ((1, 1), (0, 0))):
        first, second = (conv_transpose(x, w, padding=known) for _ in range(2))
        assert np.array_equal(first, second)
    with pytest.raises(ParameterError, match="must be an integer"):
        conv_transpose(x, w, padding=padding)


@pytest.mark.parametrize("keyword", ["padding_mode", "method", "data_format", "weight_format"])
def test_what_is_no_choice_is_refused_as_ever(call, keyword):
    x, w, b = call
    with pytest.raises(ParameterError, match=f"{keyword}='what' must be one of"):
        conv_transpose(x, w, b, stride=2, **{keyword: "what"})


def test_a_keyword_may_change_its_value_between_calls(call):
    class Changing:
        value = 1

        def __index__(self):
            return self.value

    x, w, _ = call
    stride = Changing()
    shapes = []
    for stride.value in (1, 2, 1, 3):
        shapes.append(conv_transpose(x, w, stride=stride).shape)
        assert shapes[-1] == conv_transpose(x, w, stride=stride.value).shape
    assert len(set(shapes)) == 3


def test_arrays_out_of_the_ordinary_take_the_long_way(call):
    x, w, b = call
    y = conv_transpose(x, w, b, stride=2)
    swapped = x.astype(x.dtype.newbyteorder())
    for each in (swapped, x[:, :, ::-1][:, :, ::-1], np.asfortranarray(x), x.view(Mine)):
        assert np.array_equal(conv_transpose(each, w, b, stride=2), y)
    assert np.array_equal(conv_transpose(x, np.asfortranarray(w), b, stride=2), y)
    assert np.array_equal(conv_transpose(x, w, np.repeat(b, 2)[::2], stride=2), y)
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    assert np.array_equal(conv_transpose(unaligned, w, b, stride=2), y)
    assert not is_known(swapped, swapped)
    assert not is_known(x.view(Mine), w)
    assert not is_known(x, w.astype("float64"))


def test_complaints_stay(call):
    x, w, b = call
    y = conv_transpose(x, w, b, stride=2)
    with pytest.raises(ShapeError, match="bias has shape"):
        conv_transpose(x, w, b[:1], stride=2)
    with pytest.raises(DTypeError, match="but bias has float64"):
        conv_transpose(x, w, b.astype("float64"), stride=2)
    with pytest.raises(DTypeError, match="bias is a masked array"):
        conv_transpose(x, w, np.ma.array(b), stride=2)
    with pytest.raises(DTypeError, match="x is a masked array"):
        conv_transpose(np.ma.array(x), w, b, stride=2)
    with pytest.raises(MemoryLimitError, match="max_bytes=1"):
        conv_transpose(x, w, b, stride=2, max_bytes=1)
    memory = np.zeros(y.size + x.size, "float32")
    x_in = memory[: x.size].reshape(x.shape)
    for shift, fits in ((x.size, True), (x.size - 1, False), (0, False)):
        out = memory[shift : shift + y.size].reshape(y.shape)
        x_in[...] = x
        if fits:
            assert np.array_equal(conv_transpose(x_in, w, b, stride=2, out=out), y)
        else:
            with pytest.raises(ParameterError, match="must not overlap"):
                conv_transpose(x_in, w, b, stride=2, out=out)
    y.flags.writeable = False
    with pytest.raises(ParameterError, match="read-only"):
        conv_transpose(x, w, b, stride=2, out=y)
    repeats = np.broadcast_to(np.zeros(1, "float32"), y.shape)
    with pytest.raises(ParameterError, match="read-only"):
        conv_transpose(x, w, b, stride=2, out=repeats)


def test_an_out_between_the_samples_of_an_operand_is_taken(call):
    x, w, b = call
    y = conv_transpose(x, w, b, stride=2)
    memory = np.zeros((2, *y.shape), "float32").transpose(1, 2, 3, 4, 0)
    x_in = memory[: x.shape[0], :1, : x.shape[2], : x.shape[3], 1].repeat(3, 1)
    x_in[...] = x
    out = memory[..., 0]
    assert np.array_equal(conv_transpose(x_in, w, b, stride=2, out=out), y)
    pairs = np.zeros((*x.shape, 2), "float32")
    pairs[..., 1] = x
    small = conv_transpose(x, w[:, :, :1, :1].copy(), padding=0)
    out = np.zeros((*small.shape, 2), "float32")[..., 0]
    assert np.array_equal(conv_transpose(pairs[..., 1], w[:, :, :1, :1].copy(), out=out), small)


def test_a_plan_that_is_gone_is_made_again(call):
    x, w, b = call
    y = conv_transpose(x, w, b, stride=2)
    executor.create_primitive.cache_clear()
    assert np.array_equal(conv_transpose(x, w, b, stride=2), y)


def test_another_target_is_honoured(call, monkeypatch):
    x, w, b = call
    y = conv_transpose(x, w, b, stride=2)
    monkeypatch.setenv("TCONV_THREADS", "nonsense")
    target.cache_clear()
    try:
        with pytest.raises(ParameterError, match="TCONV_THREADS"):
            conv_transpose(x, w, b, stride=2)
    finally:
        monkeypatch.undo()
        target.cache_clear()
    assert np.array_equal(conv_transpose(x, w, b, stride=2), y)


def test_a_registered_contraction_comes_first(call, monkeypatch):
    x, w, b = call
    monkeypatch.setattr(dispatch, "_contracts", {})
    dispatch.register("numpy", lambda *_, **__: "registered")
    assert conv_transpose(x, w, b, stride=2) == "registered"


def test_what_must_be_held_against_the_memory_is_not_known(call, monkeypatch):
    x, w, b = call
    call_cache._entry.cache_clear()
    monkeypatch.setattr(dispatch, "SMALL_BYTES", 1)
    monkeypatch.setattr(dispatch, "available_bytes", lambda: 10**12)
    conv_transpose(x, w, b, stride=2)
    monkeypatch.setattr(dispatch, "available_bytes", lambda: 1)
    with pytest.raises(MemoryLimitError, match="may be used"):
        conv_transpose(x, w, b, stride=2)


# ---- plans with an activation --------------------------------------------------------------------

EXACT = ["relu", ("leaky_relu", 0.25), ("leaky_relu", 2), ("prelu", -0.5), ("clip", -1, None)]


@given(
    geometries(),
    st.sampled_from(["float32", "float64", "float16"]),
    st.sampled_from(EXACT),
    st.booleans(),
)
def test_a_plan_with_an_activation_is_the_call_and_then_the_activation(
    geometry, dtype, activation, has_out
):
    """In every layout, by the engine and without it."""
    x, w, _ = (array.astype(dtype) for array in integer_operands(geometry))
    bias = integers_like((geometry.out_channels,), dtype, 3)
    keywords = keywords_of(geometry)
    expected = conv_transpose(x, w, bias, **keywords)
    as_activation(activation).apply(expected)
    call = planned_call.plan(x.shape, w.shape, dtype=dtype, activation=activation, **keywords)
    assert call.activation == activation
    packed = call.pack(w)
    memory = np.zeros((*geometry.y_shape, 2), dtype)
    for out in (None, np.zeros(geometry.y_shape, dtype), memory[..., 1]) if has_out else (None,):
        y = call(x, packed, bias, out)
        assert out is None or y is out
        assert np.array_equal(y, expected)
    assert not memory[..., 0].any()
    for array in (np.asfortranarray(x), x[::-1][::-1]):
        assert np.array_equal(call(array, packed, bias), expected)


@draws(0.3)
@given(geometries(ranks=(1, 2), batches=(1, 2)), st.sampled_from(["auto", "measure", "direct"]))
def test_it_pickles_with_its_activation(geometry, method):
    x, w, _ = integer_operands(geometry)
    keywords = keywords_of(geometry) | {"dtype": "float64", "method": method}
    call = planned_call.plan(x.shape, w.shape, activation=("leaky_relu", 0.5), **keywords)
    again = pickle.loads(pickle.dumps(call))
    assert again.activation == ("leaky_relu", 0.5)
    assert np.array_equal(again(x, again.pack(w)), call(x, call.pack(w)))
    assert "then leaky_relu 0.5" in str(again)


def test_a_plan_refuses_an_activation_as_layers_do():
    with pytest.raises(ParameterError, match=r"^activation='elu' must be None, 'relu'"):
        planned_call.plan((1, 2, 3), (2, 1, 3), activation="elu")
    with pytest.raises(DTypeError, match=r'^activation="relu" takes one of float16.* not int8;'):
        planned_call.plan((1, 2, 3), (2, 1, 3), dtype="int8", activation="relu")


def test_packed_weights_belong_to_one_activation():
    x, w = integers((1, 2, 17)), integers((2, 3, 4))
    relu, none = (planned_call.plan(x.shape, w.shape, activation=each) for each in ("relu", None))
    with pytest.raises(DTypeError, match="what pack of this plan returned"):
        relu(x, none.pack(w))
    assert np.array_equal(relu(x, relu.pack(w)), np.maximum(none(x, none.pack(w)), 0))


# ---- convolutions --------------------------------------------------------------------------------


def wide(array):
    return array.astype("complex128" if array.dtype.kind == "c" else "float64")


def test_what_a_planned_convolution_refuses():
    call = plan((1, 2, 5), (2, 3, 4), want="x")
    packed = call.pack(np.ones((2, 3, 4), np.float32))
    with pytest.raises(ShapeError, match=r"y has shape \(1, 2, 5\), the plan is for \(1, 3, 8\)"):
        call(np.ones((1, 2, 5), np.float32), packed)
    with pytest.raises(ShapeError, match=r"bias has shape \(3,\), the plan is for \(2,\)"):
        call(np.ones((1, 3, 8), np.float32), packed, np.ones(3, np.float32))
    with pytest.raises(ParameterError, match="want"):
        plan((1, 2, 5), (2, 3, 4), want="w")


# ---- packed weights belong to one plan -----------------------------------------------------------


@draws(0.5)
@given(
    geometries(ranks=(1, 2), batches=(1, 2)),
    st.sampled_from([*ENGINE_TYPES, "complex64", "int8", "int64"]),
    st.sampled_from("yx"),
    st.data(),
)
def test_packed_weights_serve_equal_plans_and_no_others(geometry, dtype, want, data):
    """On every path: int64, and whatever the engine leaves out, is packed as it is."""
    changed = data.draw(st.sampled_from(["batch", "flip_kernel", "axes", "dtype", "want"]))
    other, other_type, other_want = geometry, dtype, want
    if changed == "batch":
        other = replace(geometry, batch=geometry.batch + 1, batched=True)
    elif changed == "flip_kernel":
        other = replace(geometry, flip_kernel=not geometry.flip_kernel)
    elif changed == "axes":
        first = geometry.axes[0]._replace(end=geometry.axes[0].end - 1)
        other = replace(geometry, axes=(first._replace(output=first.law), *geometry.axes[1:]))
    elif changed == "dtype":
        other_type = "int32" if dtype == "int64" else "float64" if dtype == "float32" else "float32"
    else:
        other_want = "x" if want == "y" else "y"
    x, w, y = (integers_like(geometry.shape_of(letter), dtype, 1) for letter in "xwy")
    mine, same, theirs = (
        planned_call.PlannedCall(*each)
        for each in (
            (geometry, dtype, 1, "auto", None, want),
            (replace(geometry), dtype, 1, "auto", None, want),
            (other, other_type, 1, "auto", None, other_want),
        )
    )
    read, packed = x if want == "y" else y, mine.pack(w)
    assert np.array_equal(mine(read, packed), same(read, packed))
    shape = theirs.geometry.shape_of("x" if other_want == "y" else "y")
    with pytest.raises(DTypeError, match="what pack of this plan returned"):
        theirs(integers_like(shape, other_type, 2), packed)


def test_on_the_portable_path_a_reshaped_weight_is_refused():
    w = np.arange(24, dtype=np.int64).reshape(4, 2, 3)
    one, other = (plan((1, n, 5), (n, 24 // n // 3, 3), dtype="int64") for n in (4, 2))
    with pytest.raises(DTypeError, match="what pack of this plan returned"):
        other(np.ones((1, 2, 5), np.int64), one.pack(w))


@given(geometries(ranks=(1, 2), batches=(1, 2)), st.sampled_from(["float32", "complex64", "int8"]))
def test_neither_does_a_contraction_take_weights_of_another(geometry, dtype):
    """Which would read beyond them."""
    other = replace(geometry, batch=geometry.batch + 1, batched=True)
    plans = [dispatch.native(each, "y", dtype, 1) for each in (geometry, other)]
    if None in plans:
        return
    x, w, _ = (integers_like(other.shape_of(letter), dtype) for letter in "xwy")
    packed = planned_call._pack(geometry, w, plans[0])
    with pytest.raises(DTypeError, match="weight must be packed for these sizes"):
        engine.contract(other, "y", x, packed, plan=plans[1])


@pytest.mark.parametrize("dtype", [[], {}, None, 3, "no", object(), np.ndarray, 10**5000], ids=type)
def test_a_type_is_one_that_there_is(dtype):
    with pytest.raises(DTypeError, match=r"^dtype=.* must name one of float16, "):
        plan((1, 2, 4), (2, 3, 3), dtype=dtype)


@pytest.mark.parametrize("weight", [None, "words", [[1], [1, 2]], {}, object()])
def test_what_is_packed_is_an_array(weight):
    with pytest.raises(DTypeError, match=r"^weight"):
        plan((1, 2, 4), (2, 3, 3)).pack(weight)
