"""Dispatch: which implementation serves a call, and the checks before it."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries, integer_operands, operands_of, same_numbers
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ParameterError,
    ShapeError,
    UnsupportedError,
)
from tconv.geometry.geometry import Geometry
from tconv.ops import dispatch
from tconv.ops.dispatch import Call, register, solve_for
from tconv.ops.functional import conv, conv_transpose, conv_weight_gradient
from tconv.portable import contract as portable

CALL = Call("conv_transpose")


@draws(0.4)
@given(geometries(), st.sampled_from("yxw"))
def test_without_more_said_the_portable_path_computes(geometry, want):
    operands = operands_of(want, *integer_operands(geometry))
    result = solve_for(want, geometry, *operands, None, CALL)
    assert same_numbers(result, portable.contract(geometry, want, *operands))


def test_a_registered_contraction_serves_its_library_with_the_one_signature(monkeypatch):
    monkeypatch.setattr(dispatch, "_contracts", {})
    calls = []

    def contract(geometry, want, a, b, **options):
        calls.append((want, options))
        return portable.contract(geometry, want, a, b, **options)

    register("numpy", contract)
    x, w, bias, out = np.ones((1, 1, 2)), np.ones((1, 1, 2)), np.ones(1), np.empty((1, 1, 3))
    conv_transpose(x, w, bias, out=out, method="direct", threads=3)
    conv(out, w)
    conv_weight_gradient(x, out, 2)
    plain = {"method": "auto", "threads": None}
    assert calls[0] == (
        "y",
        {"bias": bias, "out": calls[0][1]["out"], "method": "direct", "threads": 3},
    )
    assert calls[0][1]["out"] is out
    assert calls[1:] == [("x", {"bias": None, **plain}), ("w", {"bias": None, **plain})]
    conv_transpose(x, w, bias, padding=1, padding_mode="circular", method="measure")
    assert calls[3] == ("y", {"method": "measure", "threads": None})  # bias comes after folding


def test_a_host_on_demand_is_imported_with_the_first_array_of_its_library(monkeypatch):
    monkeypatch.setattr(dispatch, "_contracts", {})
    monkeypatch.setattr(dispatch, "_HOSTS_ON_DEMAND", {"numpy": "tconv.host"})
    imported = []

    def import_module(name):
        imported.append(name)
        register("numpy", portable.contract)

    monkeypatch.setattr(dispatch, "import_module", import_module)
    x = np.ones((1, 1, 2))
    for _ in range(2):
        solve_for("y", Geometry.of(x.shape, x.shape), x, x, None, CALL)
    assert imported == ["tconv.host"]


def test_a_lazy_contraction_is_told_the_limits_that_hold_for_its_tasks(monkeypatch):
    monkeypatch.setattr(dispatch, "_contracts", {})
    monkeypatch.setattr(dispatch, "_lazy_libraries", set())
    calls = []

    def contract(geometry, want, a, b, **options):
        calls.append(options)
        return np.zeros(geometry.shape_of(want))

    register("numpy", contract, lazy=True)
    x = np.ones((1, 1, 2))
    conv_transpose(x, x, method="direct", max_bytes=1)  # not held against it here
    told = {"bias": None, "method": "direct", "threads": None}
    assert calls == [{**told, "name": "conv_transpose", "max_bytes": 1}]
    with pytest.raises(ParameterError, match="out must be left out for arrays that are computed"):
        conv_transpose(x, x, out=np.empty((1, 1, 3)))
    with pytest.raises(ShapeError, match="bias has shape"):
        conv_transpose(x, x, np.ones(2))


# ---- integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "accumulator"), [("int8", "int32"), ("uint8", "int32"), ("int64", "int64")]
)
def test_integers_are_summed_up_to_the_last_one_that_fits(dtype, accumulator):
    most, largest = np.iinfo(accumulator).max, np.iinfo(dtype).max
    channels = max(most // largest**2, 1)
    x = np.full((1, channels, 1), largest, dtype)
    w = np.full((channels, 1, 1), 1 if dtype == "int64" else largest, dtype)
    rest = most - channels * largest * int(w[0, 0, 0])
    assert conv_transpose(x, w, np.array([rest], accumulator)).item() == most
    with pytest.raises(DTypeError, match=f"beyond {accumulator}'s {most:,}; pass smaller values"):
        conv_transpose(x, w, np.array([rest + 1], accumulator))


def test_the_bound_counts_what_meets_in_one_cell_only():
    x, w = np.full((1, 1, 9), 2**31), np.full((1, 1, 1), 2**31)
    for keywords in ({}, {"padding": 1}, {"padding": -3}, {"stride": 2}, {"padding": "same"}):
        assert conv_transpose(x, w, **keywords).max() == 2**62
    with pytest.raises(DTypeError, match="could reach 13,835,058,055,282,163,712"):
        conv_transpose(x, w, padding=1, padding_mode="circular")  # where cells are added up
    w = np.full((1, 1, 2), 2**31)
    with pytest.raises(DTypeError, match="could reach 9,223,372,036,854,775,808"):
        conv_transpose(x, w)


@pytest.mark.parametrize("want", ["y", "x", "w"])
@draws(0.2)
@given(geometry=geometries(), exponent=st.integers(20, 31))
def test_integers_are_right_or_refused(want, geometry, exponent):
    a, b = operands_of(want, *integer_operands(geometry, "int64"))
    a, b = a << exponent, b << exponent
    small = solve_for(want, geometry, a >> exponent, b >> exponent, None, CALL)
    with suppress(DTypeError):
        result = solve_for(want, geometry, a, b, None, CALL)
        exact = [int(number) << 2 * exponent for number in small.ravel()]
        assert [int(number) for number in result.ravel()] == exact


@pytest.mark.parametrize("dtype", ["int8", "int64"])
def test_an_empty_batch_of_integers_overflows_nothing(dtype):
    x, w = np.ones((0, 2, 3), dtype), np.full((2, 1, 2), np.iinfo(dtype).max, dtype)
    assert conv_transpose(x, w).shape == (0, 1, 4)


# ---- memory --------------------------------------------------------------------------------------


def test_80_percent_of_what_is_available_is_used(monkeypatch):
    x, w = np.ones((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    monkeypatch.setattr(dispatch, "available_bytes", lambda: 10**9)
    with pytest.raises(MemoryLimitError, match=r"800,000,000 may be used \(80% of the memory"):
        conv_transpose(x, w, padding=-(10**8))


def test_small_calls_do_not_ask(monkeypatch):
    monkeypatch.setattr(dispatch, "available_bytes", lambda: 0)
    conv_transpose(np.ones((1, 1, 100)), np.ones((1, 1, 3)))


def test_an_unknown_amount_is_bounded_by_what_can_be_addressed(monkeypatch):
    monkeypatch.setattr(dispatch, "available_bytes", lambda: None)
    with pytest.raises(MemoryLimitError, match="can be addressed; lower the sizes"):
        conv_transpose(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2**62)


# ---- axes ----------------------------------------------------------------------------------------


def test_up_to_30_spatial_axes():
    for rank in (1, 12, 30):
        before = (1,) * (rank + 1)
        x, w = np.ones((*before, 2)), np.full((*before, 3), 2.0)
        assert conv_transpose(x, w).ravel().tolist() == [2, 4, 4, 2]
    with pytest.raises(UnsupportedError, match="has 31 spatial axes, at most 30 are supported"):
        conv_transpose(np.ones((1,) * 33), np.ones((1,) * 33))
