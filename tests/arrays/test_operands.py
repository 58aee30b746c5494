"""Operands may come in any memory; only `out` is written."""

import subprocess
import sys

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from strategies import (
    draws,
    framed,
    geometries,
    integer_operands,
    integers_like,
    keywords_of,
    same_numbers,
)
from tconv.arrays.dtypes import TYPES
from tconv.arrays.operands import as_operands, check_out, library_of
from tconv.errors import DTypeError, ParameterError
from tconv.nn.conv import ConvTranspose1d
from tconv.ops.functional import conv, conv_transpose, conv_weight_gradient
from tconv.ops.max_pool import max_unpool
from tconv.ops.planned_call import plan


def reverse(array):
    """The same array, stored backwards."""
    return array[(slice(None, None, -1),) * array.ndim].copy()[
        (slice(None, None, -1),) * array.ndim
    ]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


MEMORIES = {
    "strided, amid NaN": lambda array: framed(array, np.nan)[0],
    "transposed": lambda array: np.asfortranarray(array),
    "negative strides": reverse,
    "read-only": read_only,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "unaligned": lambda array: np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(
        array.shape
    ),
    "a subclass": lambda array: array.view(type("Sub", (np.ndarray,), {})),
    "nested lists": lambda array: array.tolist() if array.size else array,
}


@pytest.mark.parametrize("memory", MEMORIES)
@draws(0.1)
@given(geometry=geometries())
def test_memory_does_not_matter(memory, geometry):
    x, w, y = integer_operands(geometry)
    sizes, change = keywords_of(geometry), MEMORIES[memory]
    backwards = sizes | {"output_padding": 0, "input_size": geometry.input_size}
    kernel = geometry.kernel_size
    assert same_numbers(
        conv_transpose(change(x), change(w), **sizes), conv_transpose(x, w, **sizes)
    )
    assert same_numbers(conv(change(y), change(w), **backwards), conv(y, w, **backwards))
    assert same_numbers(
        conv_weight_gradient(change(x), change(y), kernel, **sizes),
        conv_weight_gradient(x, y, kernel, **sizes),
    )


@draws(0.4)
@given(geometries(), st.booleans())
def test_out_is_filled_and_nothing_beside_it(geometry, swapped):
    x, w, y = integer_operands(geometry)
    sizes = keywords_of(geometry)
    backwards = sizes | {"output_padding": 0, "input_size": geometry.input_size}
    for function, operands, keywords in (
        (conv_transpose, (x, w), sizes),
        (conv, (y, w), backwards),
        (conv_weight_gradient, (x, y, geometry.kernel_size), sizes),
    ):
        expected = function(*operands, **keywords)
        dtype = expected.dtype.newbyteorder(">") if swapped else expected.dtype
        out, memory = framed(np.zeros(expected.shape, dtype), np.nan)
        assert function(*operands, out=out, **keywords) is out
        assert same_numbers(out, expected)
        out[...] = np.nan
        assert np.isnan(memory).all()


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_out_is_filled_under_a_padding_mode(mode):
    x, w = integers_like((2, 3, 5), seed=1), integers_like((3, 2, 3), seed=2)
    keywords = {"stride": 2, "padding": 1, "padding_mode": mode}
    expected = conv_transpose(x, w, **keywords)
    out, memory = framed(np.zeros_like(expected), np.nan)
    assert conv_transpose(x, w, out=out, **keywords) is out
    assert same_numbers(out, expected)
    out[...] = np.nan
    assert np.isnan(memory).all()


def test_out_may_lie_between_the_operands_samples():
    memory = np.arange(24.0)
    x, out = memory[::2].reshape(1, 2, 6), memory[1::2].reshape(1, 2, 6)
    w = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    expected = conv_transpose(x.copy(), w)
    assert same_numbers(conv_transpose(x, w, out=out), expected)


@pytest.mark.parametrize("which", ["x", "weight", "bias"])
def test_out_must_not_overlap_an_operand(which):
    memory = np.zeros(30)
    operands = {"x": np.ones((1, 2, 3)), "weight": np.ones((2, 2, 2)), "bias": np.ones(2)}
    before = operands[which].copy()
    operands[which] = memory[: before.size].reshape(before.shape)
    operands[which][...] = before
    out = memory[before.size - 1 :][:8].reshape(1, 2, 4)
    with pytest.raises(ParameterError, match="must not overlap an operand"):
        conv_transpose(**operands, out=out)
    assert same_numbers(operands[which], before)
    assert not memory[before.size :].any()


class TestOutThatRepeatsItself:
    """Cells of `out` that share memory could hold only one of their numbers."""

    @pytest.mark.parametrize(
        "strides", [(0, 8, 8), (48, 24, 0), (8, 8, 8), (24, 16, 4), (8, 24, 16)]
    )
    def test_is_refused(self, strides):
        out = as_strided(np.zeros(99), (2, 3, 4), strides)
        with pytest.raises(ParameterError, match="must not repeat its own memory"):
            check_out(out, np, (2, 3, 4), "float64", [])

    @pytest.mark.parametrize(
        "out",
        [
            np.zeros((2, 3, 4)),
            np.zeros((4, 3, 2)).T,
            np.zeros((4, 9, 8))[::2, ::3, ::-2],
            np.zeros((2, 3, 4))[::-1, ::-1, ::-1],
            np.zeros((2, 2, 3, 4)).diagonal().transpose(2, 0, 1)[:, :, None][..., [0]],
            np.zeros((1, 3, 4)),
            np.zeros((0, 3, 4)),
            np.broadcast_to(np.zeros((1, 3, 1)), (1, 3, 1)).copy(),
        ],
        ids=range(8),
    )
    def test_other_views_are_not(self, out):
        check_out(out, np, out.shape, "float64", [])


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_has_its_result(dtype):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    x, w = np.ones((1, 2, 3), kind), np.ones((2, 2, 2), kind)
    result = TYPES[dtype].result
    y = conv_transpose(x, w)
    for found in (y, conv(x, w), conv_weight_gradient(x, x, 1), conv_transpose(x, w, out=y)):
        assert found.dtype.name == result
    assert y.tolist() == [[[2, 4, 4, 2]] * 2]


def test_bias_may_have_the_results_type():
    x, w = np.ones((1, 1, 2), np.int8), np.ones((1, 1, 1), np.int8)
    for kind in (np.int8, np.int32):
        assert conv_transpose(x, w, np.array([100], kind)).tolist() == [[[101, 101]]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "bfloat16"])
@pytest.mark.parametrize("other", ["bool", "int8", "uint64", "float16", "float32", "float64"])
def test_dtype_converts_all_operands_first(dtype, other):
    x, w = np.ones((1, 1, 2), other), np.full((1, 1, 2), 3, "int16")
    y = conv_transpose(x, w, np.array([1.0]), dtype=dtype)
    assert y.dtype.name == dtype
    assert y.tolist() == [[[4, 7, 4]]]


def test_dtype_may_be_named_in_any_way():
    x, w = np.ones((1, 1, 2), "int8"), np.ones((1, 1, 2))
    for dtype in (float, "float64", np.float64, np.dtype("float64"), np.dtype(">f8")):
        assert conv_transpose(x, w, dtype=dtype).dtype == np.float64
    assert conv_transpose(x, w.astype(int), dtype=int).dtype == np.int64
    assert conv_transpose(x, w, dtype=complex).dtype == np.complex128


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("float64", "int64"), ("complex64", "float64"), ("float32", "int8"), ("complex128", "int64")],
)
def test_a_conversion_never_drops_a_fraction_or_an_imaginary_part(found, wanted):
    with pytest.raises(DTypeError, match=f"dtype={wanted} cannot hold"):
        as_operands({"x": np.ones((1, 1, 2), found)}, wanted)


@pytest.mark.parametrize(("value", "wanted"), [(128, "int8"), (-129, "int8"), (-1, "uint8")])
def test_a_conversion_never_wraps_an_integer(value, wanted):
    with pytest.raises(DTypeError, match=f"values {value} to {value}, which dtype={wanted} cannot"):
        as_operands({"x": np.full((1, 1, 2), value)}, wanted)
    info = np.iinfo(wanted)
    _, (x,) = as_operands({"x": np.array([[[info.min, info.max]]], "int64")}, wanted)
    assert x.tolist() == [[[info.min, info.max]]]


ALL = ["bool", "uint64", "longdouble", *TYPES]


@pytest.mark.parametrize("one", ALL)
@pytest.mark.parametrize("other", ALL)
def test_the_dtype_that_a_refusal_proposes_works(one, other):
    arrays = {}
    for name, dtype in (("x", one), ("weight", other)):
        arrays[name] = np.ones((1, 1, 2), ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    try:
        as_operands(arrays)
    except DTypeError as error:
        proposed = str(error).partition('for example dtype="')[2].rstrip('".')
        _, found = as_operands(arrays, proposed)
        assert [v.dtype.name for v in found] == [proposed] * 2
    else:
        assert one == other in TYPES


def test_scalars_and_lists_are_numpys():
    assert library_of(np.float32(1)) == library_of(np.zeros(1)) == "numpy"
    _, (x, weight) = as_operands({"x": [[1.0]], "weight": 2.0})
    assert isinstance(x, np.ndarray)
    assert weight.shape == ()


def test_libraries_are_not_mixed():
    x, w = np.ones((1, 1, 2)), array_api_strict.ones((1, 1, 2))
    for pair, names in (((x, w), "numpy but weight of array_api_strict"), ((w, x), "array_api_st")):
        with pytest.raises(DTypeError, match=f"x is an array of {names}"):
            conv_transpose(*pair)
    with pytest.raises(DTypeError, match="out must be an array of the operands' library"):
        conv_transpose(x, x, out=w)


def test_another_library_comes_back_as_it_came():
    x, w = array_api_strict.ones((1, 1, 2)), array_api_strict.ones((1, 1, 2))
    y = conv_transpose(x, w, stride=2, padding=1)
    assert isinstance(y, type(x))
    assert y.dtype == x.dtype
    out = array_api_strict.zeros((1, 1, 2))
    assert conv_transpose(x, w, stride=2, padding=1, out=out) is out
    assert np.asarray(out).tolist() == np.asarray(y).tolist() == [[[1, 1]]]
    for mode in ("circular", "reflect", "replicate"):
        y = conv_transpose(x, w, stride=2, padding=1, padding_mode=mode)
        assert same_numbers(
            np.asarray(y),
            conv_transpose(np.asarray(x), np.asarray(w), stride=2, padding=1, padding_mode=mode),
        )


# ---- arrays that are not what they say -----------------------------------------------------------

LYING = """
import numpy as np
import pytest
from tconv import ConvTranspose1d, ShapeError, conv, conv_transpose, conv_transpose_vjp, plan
from tconv.engine.target.target import target

class Liar(np.ndarray):
    said = None  # the shape

    shape = property(lambda self: self.said)
    ndim = property(lambda self: len(self.said))
    size = property(lambda self: int(np.prod(self.said)))
    nbytes = property(lambda self: self.size * 4)
    strides = property(lambda self: np.empty(self.said, np.float32).strides)
    flags = property(lambda self: np.empty(self.said, np.float32).flags)
    dtype = property(lambda self: np.dtype("float32"))

def liar(shape, real=1, dtype=np.float32):
    kind = type("Liar", (Liar,), {"said": shape})
    return np.zeros(real, dtype).view(kind)

LARGE = 1_000_000
x_shape, w_shape = (1, 4, LARGE), (4, 2, 3)
for want, read, written in (("y", x_shape, (1, 2, LARGE + 2)), ("x", (1, 2, LARGE + 2), x_shape)):
    call = plan(x_shape, w_shape, want=want)
    solve = conv_transpose if want == "y" else conv
    a, w, out = np.ones(read, np.float32), np.ones(w_shape, np.float32), liar(written)
    packed, bias = call.pack(w), np.ones(written[1], np.float32)
    exact = call(a, packed)
    for lie in (
        lambda: call(liar(read), packed),
        lambda: call(a, packed, liar(bias.shape)),
        lambda: call(a, packed, out=out),
        lambda: call.pack(liar(w_shape)),
        lambda: solve(liar(read), w),
        lambda: solve(a, liar(w_shape)),
        lambda: solve(a, w, liar(bias.shape)),
        lambda: solve(a, w, out=out),
    ):
        for _ in range(2):  # also where such a call is remembered
            with pytest.raises(ShapeError):
                lie()
    # One that says what is so is taken, and what is written is its memory.
    honest = np.zeros(written, np.float32).view(type("Honest", (np.ndarray,), {}))
    for _ in range(2):
        for way in (lambda: solve(a, w, out=honest), lambda: call(a, packed, out=honest)):
            assert way() is honest
            assert np.array_equal(honest, exact)
            honest.fill(0)

layer = ConvTranspose1d(4, 2, 3, rng=0)
y = layer(np.ones(x_shape, np.float32))
for lie in (
    lambda: layer.backward(liar(y.shape)),
    lambda: setattr(layer.weight, "value", liar(w_shape)),
    lambda: conv_transpose_vjp(np.ones(x_shape, np.float32), w)[1](liar(y.shape)),
    lambda: conv_transpose_vjp(liar(x_shape), w),
    lambda: layer(liar(x_shape)),
):
    with pytest.raises(ShapeError):
        lie()
print("done")
"""


def test_arrays_that_lie_about_themselves_are_seen_as_they_are():
    done = subprocess.run([sys.executable, "-c", LYING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


@pytest.mark.parametrize("dtype", ["float32", "int64"])
@pytest.mark.parametrize("name", ["x", "weight", "bias", "out"])
def test_a_plan_refuses_masked_arrays_as_functions_do(name, dtype):
    call = plan((1, 2, 5), (2, 3, 4), dtype=dtype)
    operands = {
        "x": np.ones((1, 2, 5), dtype),
        "weight": np.ones((2, 3, 4), dtype),
        "bias": np.ones(3, dtype),
        "out": np.ones((1, 3, 8), dtype),
    }
    operands[name] = np.ma.masked_array(operands[name], True)
    with pytest.raises(DTypeError, match=f"{name} is a masked array"):
        call(operands["x"], call.pack(operands["weight"]), operands["bias"], operands["out"])
    with pytest.raises(DTypeError, match=f"{name} is a masked array"):
        conv_transpose(**operands)


def test_so_do_layers_and_their_parameters():
    layer = ConvTranspose1d(2, 3, 4, rng=0)
    x = np.ma.masked_array(np.ones((1, 2, 5), np.float32), True)
    y = layer(x.data)
    for door in (
        lambda: layer.backward(np.ma.masked_array(y, True)),
        lambda: setattr(layer.weight, "value", np.ma.masked_array(layer.weight.value, True)),
        lambda: setattr(layer.bias, "gradient", np.ma.masked_array(layer.bias.value, True)),
        lambda: max_unpool(y, np.ma.masked_array(np.zeros(y.shape, int), True), (16,)),
        lambda: layer(x),
    ):
        with pytest.raises(DTypeError, match="is a masked array, whose mask would be ignored"):
            door()
