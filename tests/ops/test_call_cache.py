"""Bound calls and their cache: the same results from the second call on, and every error."""

import copy
import pickle
from itertools import product

import numpy as np
import pytest

from strategies import ENGINE_TYPES, integers_like
from tconv import conv, conv_transpose_vjp, conv_weight_gradient, definition
from tconv.arrays.dtypes import as_dtype
from tconv.engine.target.target import target
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from tconv.geometry.geometry import Geometry
from tconv.nn.conv import Conv2d, ConvTranspose2d
from tconv.ops import call_cache, dispatch

STRIDED = {"stride": 2, "padding": 1}


def integers(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def drawn(geometry, seed):
    """x, w and y of a geometry."""
    return [integers_like(geometry.shape_of(letter), seed=seed) for letter in "xwy"]


def operands(want, dtype="float32", seed=0):
    """Of `STRIDED`, in the order of the contraction; and their geometry."""
    geometry = Geometry.of((2, 3, 4, 5), (3, 2, 3, 3), **STRIDED)
    shapes = [geometry.shape_of(letter) for letter in "xwy" if letter != want]
    if want == "x":
        shapes.reverse()
    return geometry, *(integers(shape, dtype, seed + n) for n, shape in enumerate(shapes))


def call(want, a, b, **options):
    """One of the public functions."""
    if want == "x":
        return conv(a, b, **STRIDED, input_size=(4, 5), **options)
    return conv_weight_gradient(a, b, 3, **STRIDED, **options)


@pytest.fixture
def long_ways(monkeypatch):
    """The letters that were solved for the long way."""
    taken, solve_for = [], call_cache.solve_for

    def note(want, *others):
        taken.append(want)
        return solve_for(want, *others)

    monkeypatch.setattr(call_cache, "solve_for", note)
    return taken


@pytest.mark.parametrize("want", "xw")
@pytest.mark.parametrize("dtype", ENGINE_TYPES)
def test_functions_take_the_short_way_from_the_second_time_on(want, dtype, long_ways):
    call_cache._entry.cache_clear()
    as_dtype(np, dtype)  # bfloat16 joins the usual types when it is first asked for
    for seed, has_out in product(range(2), [False, True]):
        geometry, a, b = operands(want, dtype, seed)
        out = np.full(geometry.shape_of(want), np.nan, dtype) if has_out else None
        result = call(want, a, b, out=out)
        wide = (each.astype(np.float64) for each in (a, b))
        assert np.array_equal(result, definition.contract(geometry, want, *wide).astype(dtype))
        assert (result is out) == has_out
    is_short = dispatch.native(geometry, want, dtype, None) is not None
    assert len(long_ways) == (1 if is_short else 4)


@pytest.mark.parametrize("want", "xw")
def test_what_is_wrong_is_refused_as_ever(want):
    geometry, a, b = operands(want)
    memory = np.zeros(1000, np.float32)
    out = memory[: call(want, a, b).size].reshape(geometry.shape_of(want))
    with pytest.raises(DTypeError, match="pass dtype= to convert"):
        call(want, a, b.astype(np.float64))
    with pytest.raises(ParameterError, match="must not overlap"):
        call(want, a, memory[: b.size].reshape(b.shape), out=out)
    with pytest.raises(ShapeError, match="out has shape"):
        call(want, a, b, out=np.empty((3,), np.float32))
    with pytest.raises(ParameterError, match="max_bytes=0"):
        call(want, a, b, max_bytes=0)
    with pytest.raises(MemoryLimitError, match="max_bytes=1"):
        call(want, a, b, max_bytes=1)
    with pytest.raises(ParameterError, match="threads"):
        call(want, a, b, threads=True)


def test_so_is_a_bias_of_conv():
    _, y, w = operands("x")
    for _ in range(2):
        call("x", y, w, bias=np.ones(3, np.float32))
    with pytest.raises(ShapeError, match=r"bias has shape \(2,\)"):
        call("x", y, w, bias=np.ones(2, np.float32))
    with pytest.raises(DTypeError, match="bias has float64"):
        call("x", y, w, bias=np.ones(3))


def test_a_type_to_convert_to_is_never_left_out():
    _, y, w = operands("x")
    for _ in range(3):
        assert call("x", y, w).dtype == np.float32
        assert call("x", y, w, dtype="float64").dtype == np.float64


def test_a_step_of_training_takes_the_short_way(long_ways):
    call_cache._entry.cache_clear()
    geometry, x, w = operands("y")
    dy = integers(geometry.y_shape)
    for _ in range(3):
        _, pull_back = conv_transpose_vjp(x, w, **STRIDED)
        pull_back(dy)
    assert len(long_ways) == (3 if target().uses_engine else 9)
    with pytest.raises(ShapeError, match="dy has shape"):
        pull_back(dy[:1])
    with pytest.raises(TypeError, match="unexpected keyword argument 'strid'"):
        conv_transpose_vjp(x, w, strid=2)
    with pytest.raises(ParameterError, match="must be an integer"):
        conv_transpose_vjp(x, w, stride=2.0, padding=1)


# ---- layers --------------------------------------------------------------------------------------


def stepped(layer, x):
    """y, dx and the gradients of one step."""
    layer.zero_gradients()
    y = layer(x)
    return y, layer.backward(y), *(each.gradient.copy() for each in layer.parameters())


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_layer_takes_the_short_way_with_its_new_values(kind, activation, long_ways):
    layer = kind(4, 6, 3, stride=2, padding=1, groups=2, rng=0, activation=activation)
    for seed in range(3):
        for n, parameter in enumerate(layer.parameters()):
            parameter.value = integers(parameter.shape, seed=seed + n)
        x = integers((2, 4, 7, 6), seed=seed)
        found = stepped(layer, x)
        for one, other in zip(found, stepped(copy.deepcopy(layer), x), strict=True):
            assert np.array_equal(one, other)
        del long_ways[-3:]  # of the copy
    assert len(long_ways) == (3 if target().uses_engine else 9)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize(
    ("name", "value"),
    [("stride", (1, 1)), ("padding", (2, 0)), ("dilation", (2, 1)), ("activation", "tanh"),
     ("data_format", "channels_last"), ("padding_mode", "reflect")],
)  # fmt: skip
def test_a_setting_that_changes_counts_at_once(kind, name, value):
    x = integers((2, 5, 5, 5))
    layer = kind(5, 5, 3, stride=2, padding=1, rng=0)
    for _ in range(2):
        layer(x)
    setattr(layer, name, value)
    fresh = pickle.loads(pickle.dumps(layer))
    for one, other in zip(stepped(layer, x), stepped(fresh, x), strict=True):
        assert np.array_equal(one, other)


def test_a_setting_that_only_equals_the_one_before_is_refused():
    x, layer = integers((1, 2, 5, 5)), Conv2d(2, 2, 3, stride=2)
    for _ in range(2):
        layer(x)
    layer.stride = (2.0, 2.0)
    with pytest.raises(ParameterError, match="must be an integer"):
        layer(x)


def test_a_setting_that_may_change_within_is_not_remembered():
    x, layer = integers((1, 2, 5, 5)), ConvTranspose2d(2, 2, 3)
    layer.stride = [1, 1]
    assert layer(x).shape == (1, 2, 7, 7)
    layer.stride[0] = 2
    assert layer(x).shape == (1, 2, 11, 7)


def test_output_sizes_are_told_apart():
    x, layer = integers((1, 2, 1, 1)), ConvTranspose2d(2, 2, 1, stride=2)
    for _ in range(2):
        assert layer(x, output_size=1).shape == (1, 2, 1, 1)
        assert layer(x, output_size=(2, 1)).shape == (1, 2, 2, 1)
        assert layer(x, output_size=[2, 2]).shape == (1, 2, 2, 2)
        with pytest.raises(ParameterError):
            layer(x, output_size=True)
        with pytest.raises(ShapeError, match="x has"):
            layer(integers((1, 3, 1, 1)))
        with pytest.raises(DTypeError, match="the layer has float32"):
            layer(x.astype(np.float64))


def test_many_sizes_are_not_remembered_for_ever():
    layer = Conv2d(1, 1, 1)
    for size in range(1, 60):
        layer(np.ones((1, 1, size, 1), np.float32))
    assert len(layer._bound) < 20


def test_large_calls_are_held_against_the_memory_every_time(monkeypatch):
    x, layer = integers((1, 2, 5, 5)), Conv2d(2, 2, 3)
    monkeypatch.setattr(dispatch, "SMALL_BYTES", 1)
    monkeypatch.setattr(dispatch, "available_bytes", lambda: 10**12)
    for _ in range(2):
        layer(x)
    monkeypatch.setattr(dispatch, "available_bytes", lambda: 1)
    with pytest.raises(MemoryLimitError, match="may be used"):
        layer(x)
