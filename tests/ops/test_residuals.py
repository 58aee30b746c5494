"""Planned calls with a residual, and results that are some channels of a larger array."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries
from tconv import conv, conv_transpose, plan
from tconv.arrays.activations import as_activation
from tconv.engine import executor
from tconv.engine.choose import all_plans
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.ops import planned_call
from tconv.ops.planned_call import PlannedCall

RNG = np.random.default_rng(0)
needs_machine_code = pytest.mark.skipif(not target().uses_engine, reason="machine code is off")
ACTIVATIONS = [None, "relu", "silu", ("clip", -1, 2)]
# By algorithm: one row of cells, several; a few cells; sliding rows; channel lanes; phases.
LAYERS = {
    "1x1": ((2, 20, 9, 9), (12, 20, 1, 1), "x", {}),
    "k3": ((2, 3, 20, 37), (12, 3, 3, 3), "x", {"padding": 1}),
    "k3 s2": ((2, 16, 20, 37), (24, 16, 3, 3), "x", {"padding": 1, "stride": 2}),
    "many channels": ((1, 300, 5, 5), (40, 300, 3, 3), "x", {"padding": 1}),
    "depthwise": ((2, 6, 12, 20), (6, 1, 3, 3), "x", {"padding": 1, "groups": 6}),
    "transposed": ((2, 16, 7, 9), (16, 8, 4, 4), "y", {"padding": 1, "stride": 2}),
    "audio": ((1, 16, 200), (16, 8, 16), "y", {"padding": 4, "stride": 8}),
    "4-D": ((2, 2, 3, 3, 3, 3), (2, 3, 2, 2, 2, 2), "y", {}),
}


def integers(shape, dtype):
    return RNG.integers(-4, 5, shape).astype(dtype)


def a_call(layer, dtype, **more):
    """A planned call, its operands, and what it returns without a residual or an activation."""
    first, weight, want, keywords = LAYERS[layer]
    function = conv if want == "x" else conv_transpose
    x, w = integers(first, dtype), integers(weight, dtype)
    shape = function(x, w, **keywords).shape
    b = integers(shape[1], dtype)
    sums = function(x, w, b, method="direct", **keywords)
    sizes = {"want": want, "dtype": dtype, **keywords}
    if want == "x":
        sizes["output_size"] = first[2:]
        first = shape
    return plan(first, weight, **sizes, **more), (x, w, b), sums


def expected(sums, residual, activation):
    found = (sums + residual).astype(sums.dtype)
    if activation is not None:
        as_activation(activation).apply(found)
    return found


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_residual_is_added_before_the_activation(layer, dtype, activation):
    for method in ("auto", "direct"):
        call, (x, w, b), sums = a_call(
            layer, dtype, activation=activation, residual=True, method=method
        )
        residual = integers(sums.shape, dtype)
        found = call(x, call.pack(w), b, residual=residual)
        assert found.dtype == sums.dtype
        exact = activation != "silu"
        wanted = expected(sums, residual, activation)
        if exact:
            assert np.array_equal(found, wanted)
        else:
            eps = np.finfo(dtype).eps
            assert np.allclose(found, wanted, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_is_added_without_machine_code(activation, monkeypatch):
    monkeypatch.setattr(planned_call, "native", lambda *_, **__: None)
    call, (x, w, b), sums = a_call("k3 s2", "float64", activation=activation, residual=True)
    residual = integers(sums.shape, "float64")
    out = np.empty_like(sums)
    found = call(x, call.pack(w), b, residual=residual, out=out)
    assert found is out
    assert np.allclose(found, expected(sums, residual, activation))


def test_integers_take_a_residual():
    call, (x, w, b), sums = a_call("k3 s2", "int16", residual=True)
    residual = RNG.integers(-99, 99, sums.shape)
    found = call(x, call.pack(w), b.astype(sums.dtype), residual=residual)
    assert np.array_equal(found, sums + residual)


@needs_machine_code
@draws(1)
@given(geometries(ranks=(1, 2, 3), plain=True, batches=(1, 2)), st.sampled_from("yx"), st.data())
def test_every_plan_adds_it(geometry, want, data):
    follows = data.draw(st.sampled_from([None, as_activation("relu")]))
    problem = Problem(geometry, want, activation=follows, residual=True)
    plans = all_plans(problem, "float32", target(), 2)
    if not plans:
        return
    chosen = data.draw(st.sampled_from(plans))
    shape = geometry.shape_of(want)
    channels = geometry.out_channels if want == "y" else geometry.in_channels
    x, w = (
        integers(s, "float32") for s in (geometry.shape_of(problem.read), geometry.weight_shape)
    )
    bias, residual, y = (
        integers(channels, "float32"),
        integers(shape, "float32"),
        np.empty(shape, "f"),
    )
    of_groups = np.ascontiguousarray(w).reshape(geometry.groups, -1, *w.shape[1:])
    results = []
    for given_problem, more in ((Problem(geometry, want), ()), (problem, (residual,))):
        made = executor.Primitive(given_problem, "float32", target(), chosen)
        made(x, made.pack(of_groups), made.pack_bias(bias), y, *more)
        results.append(y.copy())
    assert np.array_equal(results[1], expected(results[0], residual, follows))


@pytest.mark.parametrize("layer", LAYERS)
def test_out_may_be_some_channels_of_a_larger_array(layer):
    for residual in (False, True):
        call, (x, w, b), sums = a_call(layer, "float32", residual=residual)
        more = {"residual": integers(sums.shape, "float32")} if residual else {}
        whole = np.full((sums.shape[0], sums.shape[1] + 5, *sums.shape[2:]), 77, np.float32)
        out = whole[:, 2:-3]
        assert call(x, call.pack(w), b, out=out, **more) is out
        assert np.array_equal(out, sums + more.get("residual", 0))
        assert (whole[:, :2] == 77).all()
        assert (whole[:, -3:] == 77).all()


@needs_machine_code
def test_such_an_out_is_written_without_a_copy(monkeypatch):
    call, (x, w, b), sums = a_call("k3", "float32")
    written = []
    write = executor.Primitive.write_images

    def counted(self, *operands):
        written.append(operands[-1])
        return write(self, *operands)

    monkeypatch.setattr(executor.Primitive, "write_images", counted)
    whole = np.empty((2, 15, *sums.shape[2:]), np.float32)
    call(x, call.pack(w), b, out=whole[:, 1:13])
    assert len(written) == 1
    assert np.shares_memory(written[0], whole)
    for out in (whole[:, ::-1][:, :12], whole[::-1][:, :12]):  # which have no whole images in order
        call(x, call.pack(w), b, out=out)
        assert np.array_equal(out, sums)
    assert len(written) == 1


def test_cells_that_are_not_finite_stay_where_they_are_read():
    """Winograd computes images with such cells directly, with the residual and into channels."""
    x, w = np.ones((2, 32, 24, 24), np.float32), np.ones((32, 32, 3, 3), np.float32)
    x[1, 3, 12, 12] = np.inf
    for residual in (False, True):
        call = plan(x.shape, w.shape, want="x", padding=1, residual=residual)
        more = {"residual": np.ones_like(x)} if residual else {}
        out = np.empty((2, 34, 24, 24), np.float32)[:, 1:-1]
        call(x, call.pack(w), out=out, **more)
        assert np.isinf(out).sum() == 32 * 9
        assert np.isfinite(out[0]).all()


def test_operands_need_not_be_contiguous():
    call, (x, w, b), sums = a_call("k3", "float32", residual=True, activation="relu")
    residual = integers(sums.shape, "float32")
    spread = np.repeat(residual, 2, axis=-1)[..., ::2]
    backward = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    assert not spread.flags.c_contiguous
    found = call(backward, call.pack(w), b, residual=spread)
    assert np.array_equal(found, expected(sums, residual, "relu"))


def test_what_does_not_fit_is_refused():
    call, (x, w, b), sums = a_call("k3", "float32", residual=True)
    without = a_call("k3", "float32")[0]
    residual = np.zeros_like(sums)
    cases = [
        (call, {}, ParameterError, "residual is missing"),
        (call, {"residual": residual[:1]}, ShapeError, "residual has shape"),
        (call, {"residual": residual.astype("f8")}, DTypeError, "residual must be"),
        (call, {"residual": residual.tolist()}, DTypeError, "residual must be"),
        (without, {"residual": residual}, ParameterError, "residual needs a plan"),
        (call, {"residual": residual, "out": residual}, ParameterError, "overlap"),
    ]
    for made, keywords, error, text in cases:
        with pytest.raises(error, match=re.escape(text)):
            made(x, made.pack(w), b, **keywords)
    with pytest.raises(ParameterError, match="residual"):
        plan((1, 1, 3), (1, 1, 3), residual="yes")
    with pytest.raises(DTypeError, match="pack"):
        call(x, without.pack(w), b, residual=residual)
    assert (residual == 0).all()


def test_a_call_with_a_residual_can_be_pickled():
    call, (x, w, b), sums = a_call("k3", "float32", residual=True, activation="relu")
    again = pickle.loads(pickle.dumps(call))
    assert isinstance(again, PlannedCall)
    assert again.residual
    residual = integers(sums.shape, "float32")
    assert np.array_equal(
        again(x, again.pack(w), b, residual=residual), expected(sums, residual, "relu")
    )
