"""Operations against PyTorch's, on NumPy arrays and on tensors, derivatives included."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.testing._internal.common_methods_invocations import op_db

import tconv
from strategies import (
    draws,
    geometries,
    integer_operands,
    integers_like,
    keywords_of,
    padded_calls,
)
from tconv.arrays.dtypes import TYPES
from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError

TRANSPOSED = [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d]
CONVOLUTIONS = [functional.conv1d, functional.conv2d, functional.conv3d]
DTYPES = ["float32", "float64", "complex64", "complex128", "int64", "float16", "bfloat16"]
IN_TORCH = {"circular": "circular", "reflect": "reflect", "replicate": "replicate"}


def tensor(array, **options):
    return torch.asarray(np.ascontiguousarray(array), **options)


def as_numpy(value):
    """The NumPy array of a tensor; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype == torch.bfloat16:
        return value.float().numpy().astype(ml_dtypes.bfloat16)
    return value.resolve_conj().numpy()


def as_torch(array):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.asarray(array.astype(np.float32)).to(torch.bfloat16)
    return torch.asarray(array)


def samples(rank, dtype):
    op = next(op for op in op_db if op.name == f"nn.functional.conv_transpose{rank}d")
    return list(op.sample_inputs("cpu", getattr(torch, dtype)))


def in_double(function, args, kwargs):
    """The result in double precision, the sum of the magnitudes behind it, and of how many."""
    wide = [v.to(torch.promote_types(v.dtype, torch.float64)) if v is not None else v for v in args]
    exact = function(*wide, **kwargs)
    scale = function(*[None if v is None else v.abs() for v in wide], **kwargs)
    return exact, scale, args[1].shape[0] * args[1][0, 0].numel() + 1


EPS = {dtype: torch.finfo(torch.float32).eps for dtype in ("float16", "bfloat16")}


def pad(array, pairs):
    """Lengthen or cut the last axes; `functional.pad` cuts first, which can fail."""
    flat = [each for pair in reversed(pairs) for each in pair]
    longer = functional.pad(array, [max(each, 0) for each in flat])
    return functional.pad(longer, [min(each, 0) for each in flat])


# ---- PyTorch's own samples -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_opinfo_sample_is_equal(rank, dtype):
    function = getattr(tconv, f"conv_transpose{rank}d")
    found = samples(rank, dtype)
    assert len(found) >= 10
    for sample in found:
        args = (sample.input, *sample.args)
        expected = TRANSPOSED[rank - 1](*args, **sample.kwargs)
        on_tensors = function(*args, **sample.kwargs)
        on_arrays = function(*map(as_numpy, args), **sample.kwargs)
        assert on_tensors.dtype == expected.dtype
        assert isinstance(on_arrays, np.ndarray)
        if dtype == "int64":
            assert torch.equal(on_tensors, expected)
            assert torch.equal(as_torch(on_arrays), expected)
            continue
        exact, scale, terms = in_double(TRANSPOSED[rank - 1], args, sample.kwargs)
        accumulated = EPS.get(dtype, torch.finfo(expected.dtype).eps) * terms * scale
        rounded = torch.finfo(expected.dtype).eps * exact.abs()
        theirs = torch.finfo(expected.dtype).eps * terms * scale  # PyTorch may sum in the half type
        for found in (on_tensors, as_torch(on_arrays)):
            found = found.to(exact.dtype)
            assert ((found - exact).abs() <= accumulated + rounded).all()
            assert ((found - expected.to(exact.dtype)).abs() <= theirs + rounded).all()


# ---- where PyTorch raises ------------------------------------------------------------------------

# What tconv defines although PyTorch refuses it.
DEFINED_BY_US = {
    "padding=-1": "a negative number extends",
    "padding=(-1, 0)": "a negative number extends",
    "padding='same'": "named padding",
    "padding='valid'": "named padding",
    "dtype=int8": "integers are exact: int8 gives int32",
    "dtype=uint8": "integers are exact: uint8 gives int32",
    "dtype=int16": "integers are exact: int16 gives int64",
    "dtype=int32": "integers are exact: int32 gives int64",
}

CHANGES = {
    "nothing": {},
    **{f"{name}={value}": {name: value}
       for name in ("stride", "dilation")
       for value in (0, -1, (1, 0), (1, 1, 1), (), 1.5, "1", None, 2**63)},
    **{f"padding={value!r}": {"padding": value}
       for value in (-1, (-1, 0), (1, 1, 1), (), 9, 10**6, 2**63, 1.5, "same", "valid", None)},
    **{f"output_padding={value}": {"output_padding": value}
       for value in (-1, 1, 2, (0, 1), (1, 1, 1), (), 0.5, None, 2**63)},
    **{f"groups={value}": {"groups": value} for value in (0, -1, 2, 3, 4, 8, 1.5, None, 2**63)},
    "stride=2 output_padding=1": {"stride": 2, "output_padding": 1},
    "stride=2 output_padding=2": {"stride": 2, "output_padding": 2},
    "dilation=3 output_padding=2": {"dilation": 3, "output_padding": 2},
    "dilation=3 output_padding=3": {"dilation": 3, "output_padding": 3},
    **{f"x {shape}": {"x": shape}
       for shape in ((4,), (4, 5), (4, 5, 5), (1, 2, 4, 5, 5), (2, 3, 5, 5), (2, 0, 5, 5),
                     (2, 4, 0, 5), (0, 4, 5, 5), (0, 3, 5, 5), (2, 5, 5, 4))},
    **{f"weight {shape}": {"weight": shape}
       for shape in ((4, 3), (4, 3, 3), (4, 3, 3, 3, 3), (3, 4, 3, 3), (4, 0, 3, 3), (0, 3, 3, 3),
                     (4, 3, 0, 3), (4, 3, 1, 1))},
    **{f"bias {shape}": {"bias": shape} for shape in ((), (1,), (4,), (3, 1), (1, 3), (0,))},
    **{f"dtype={dtype}": {"dtype": dtype}
       for dtype in ("bool", "int8", "uint8", "int16", "int32", "int64", "float16", "complex64")},
    **{f"{name} of float64": {"double": name} for name in ("x", "weight", "bias")},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_there_is_no_answer_where_pytorch_raises(change):
    options = dict(CHANGES[change])
    dtype = getattr(torch, options.pop("dtype", "float32"))
    shapes = {"x": (2, 4, 5, 5), "weight": (4, 3, 3, 3), "bias": (3,)}
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.ones(options.pop(name, shape)).to(dtype)
    groups = options.get("groups")
    if isinstance(groups, int) and groups in (2, 4):
        tensors["bias"] = torch.ones(3 * groups).to(dtype)
    double = options.pop("double", None)
    if double:
        tensors[double] = tensors[double].double()
    x, weight, bias = tensors.values()
    try:
        expected = functional.conv_transpose2d(x, weight, bias, **options)
    except (RuntimeError, TypeError, ValueError, OverflowError):
        expected = None
    if expected is None and change in DEFINED_BY_US:
        assert tconv.conv_transpose2d(x, weight, bias, **options) is not None
        return
    assert change not in DEFINED_BY_US, "PyTorch has learnt this; take it off the list"
    try:
        found = tconv.conv_transpose2d(x, weight, bias, **options)
    except TConvError:
        found = None
    assert (found is None) >= (expected is None)
    if expected is not None and found is not None:
        torch.testing.assert_close(found, expected)


def test_what_pytorch_answers_is_answered():
    refused = set()
    for change, options in CHANGES.items():
        if set(options) & {"dtype", "double", "groups"}:
            continue
        shapes = {"x": (2, 4, 5, 5), "weight": (4, 3, 3, 3), "bias": (3,)}
        rest = {name: value for name, value in options.items() if name not in shapes}
        operands = [torch.ones(options.get(name, shape)) for name, shape in shapes.items()]
        try:
            functional.conv_transpose2d(*operands, **rest)
        except (RuntimeError, TypeError, ValueError, OverflowError):
            continue
        try:
            tconv.conv_transpose2d(*operands, **rest)
        except TConvError:
            refused.add(change)
    assert not refused


def test_int64_that_wraps_in_pytorch_raises():
    x = torch.full((1, 1, 2), 2**62)
    assert functional.conv_transpose1d(x, torch.full((1, 1, 1), 4)).tolist() == [[[0, 0]]]
    with pytest.raises(DTypeError, match="sums of int64 products could reach"):
        tconv.conv_transpose1d(x, torch.full((1, 1, 1), 4))


# ---- nn.ConvTranspose's output_size --------------------------------------------------------------


@draws(0.4)
@given(geometries(ranks=(1, 2, 3), batches=(1, 2), plain=True), st.integers(-2, 5))
def test_output_size_is_that_of_the_layer(geometry, more):
    padding = tuple(max(min(axis.begin, axis.end), 0) for axis in geometry.axes)
    sizes = keywords_of(geometry) | {"padding": padding}
    x, w, _ = (tensor(v) for v in integer_operands(geometry))
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[geometry.rank - 1]
    layer = kind(
        geometry.in_channels,
        geometry.out_channels,
        geometry.kernel_size,
        stride=sizes["stride"],
        padding=padding,
        dilation=sizes["dilation"],
        groups=geometry.groups,
        bias=False,
        dtype=torch.float64,
    )
    layer.weight = nn.Parameter(w)
    crops = zip(geometry.axes, padding, strict=True)
    wanted = tuple(axis.full - 2 * crop + more for axis, crop in crops)
    assume(min(wanted) >= 1)
    keywords = {**sizes, "output_padding": 0, "output_size": wanted}
    try:
        expected = layer(x, output_size=list(wanted))
    except ValueError:  # tconv: up to max(stride, dilation) - 1, PyTorch: up to stride - 1
        dilated = all(more < max(axis.stride, axis.dilation) for axis in geometry.axes)
        if more < 0 or not dilated:
            with pytest.raises(ShapeError, match="cannot be reached"):
                tconv.conv_transpose(x, w, **keywords)
        return
    assert torch.equal(tconv.conv_transpose(x, w, **keywords), expected)


# ---- random settings -----------------------------------------------------------------------------


def in_torch(geometry, x, w, bias):
    """The call in PyTorch, which knows no asymmetric or negative padding: the full output, cut."""
    sizes = keywords_of(geometry)
    full = TRANSPOSED[geometry.rank - 1](
        x, w, bias, sizes["stride"], 0, sizes["output_padding"], geometry.groups, sizes["dilation"]
    )
    return pad(full, [(-axis.begin, -axis.end) for axis in geometry.axes])


@draws()
@given(geometries(ranks=(1, 2, 3), plain=True), st.booleans())
def test_random_settings_and_their_gradients_are_equal(geometry, with_bias):
    x, w, dy = (tensor(v) for v in integer_operands(geometry))
    bias = tensor(integers_like((geometry.out_channels,), seed=1)) if with_bias else None
    # PyTorch's padding would cut the bias of extended cells away, so bias is added after.
    mine = [v.clone().requires_grad_() for v in (x, w)]
    theirs = [v.clone().requires_grad_() for v in (x, w)]
    y = tconv.conv_transpose(*mine, bias, **keywords_of(geometry))
    expected = in_torch(geometry, *theirs, None)
    if bias is not None:
        expected = expected + bias.reshape(-1, *[1] * geometry.rank)
    assert isinstance(y, torch.Tensor)
    assert torch.equal(y, expected)
    y.backward(dy)
    expected.backward(dy)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one.grad, other.grad)
    pulled = tconv.conv_transpose_vjp(x, w, **keywords_of(geometry))[1](dy)
    for one, other in zip(pulled[:2], theirs, strict=True):
        assert torch.equal(one, other.grad)


@draws(0.4)
@given(geometries(ranks=(1, 2, 3), plain=True))
def test_the_convolution_is_pytorchs(geometry):
    _, w, y = (tensor(v) for v in integer_operands(geometry))
    sizes = keywords_of(geometry) | {"output_padding": 0}
    padded = pad(y, [(axis.begin, axis.end) for axis in geometry.axes])
    expected = CONVOLUTIONS[geometry.rank - 1](
        padded, w, None, sizes["stride"], 0, sizes["dilation"], geometry.groups
    )
    bias = tensor(integers_like((geometry.in_channels,), seed=1))
    expected = expected + bias.reshape(-1, *[1] * geometry.rank)
    assert torch.equal(tconv.conv(y, w, bias, **sizes), expected)
    from_arrays = tconv.conv(y.numpy(), w.numpy(), bias.numpy(), **sizes)
    assert np.array_equal(from_arrays, expected.numpy())


@draws(0.4)
@given(padded_calls())
def test_padding_modes_are_pytorchs_and_their_adjoints_autograds(case):
    geometry, keywords = case
    keywords |= {"data_format": "channels_first", "weight_format": "IO*", "flip_kernel": False}
    mode = keywords["padding_mode"]
    if mode == "circular":  # PyTorch wraps around once at most
        assume(all(max(axis.begin, axis.end) <= axis.output for axis in geometry.axes))
    channels, groups = geometry.out_channels, geometry.groups
    y = tensor(integers_like((2, channels, *geometry.output_size), seed=1)).requires_grad_()
    shape = (geometry.in_channels, channels // groups, *geometry.kernel_size)
    w = tensor(integers_like(shape, seed=2)).requires_grad_()
    padding = [edge for axis in reversed(geometry.axes) for edge in (axis.begin, axis.end)]
    padded = functional.pad(y, padding, IN_TORCH[mode]) if any(padding) else y
    expected = CONVOLUTIONS[geometry.rank - 1](
        padded, w, None, keywords["stride"], 0, keywords["dilation"], groups
    )
    assert torch.equal(tconv.conv(y, w, **keywords), expected)
    x = tensor(integers_like(expected.shape, seed=3))
    expected.backward(x)
    assert torch.equal(tconv.conv_transpose(x, w.detach(), **keywords), y.grad)
    gradient = tconv.conv_weight_gradient(x, y.detach(), geometry.kernel_size, **keywords)
    assert torch.equal(gradient, w.grad)


# ---- what tensors can do -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_autograd_flows_through_twice(mode):
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def function(*operands):
        return tconv.conv_transpose(*operands, stride=2, padding=1, padding_mode=mode)

    assert torch.autograd.gradcheck(function, (x, w, bias))
    assert torch.autograd.gradgradcheck(function, (x, w, bias))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own
def test_function_transforms_apply():
    x, w = torch.randn(4, 2, 3, 5), torch.randn(3, 2, 3)

    def function(x, w):
        return tconv.conv_transpose(x, w, stride=2, padding=1)

    expected = torch.stack([function(each, w) for each in x])
    torch.testing.assert_close(torch.func.vmap(function, (0, None))(x, w), expected)
    _, change = torch.func.jvp(lambda w: function(x[0], w), (w,), (w,))
    torch.testing.assert_close(change, expected[0])
    gradient = torch.func.grad(lambda x: function(x, w).sum())(x[0])
    torch.testing.assert_close(
        gradient, tconv.conv(torch.ones_like(expected[0]), w, stride=2, padding=1)
    )


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_has_its_result(dtype):
    x = torch.ones(1, 2, 3).to(getattr(torch, dtype))
    w = torch.ones(2, 2, 2).to(getattr(torch, dtype))
    result = getattr(torch, TYPES[dtype].result)
    y = tconv.conv_transpose(x, w)
    for found in (y, tconv.conv(x, w), tconv.conv_weight_gradient(x, x, 1)):
        assert found.dtype == result
    assert y.tolist() == [[[2, 4, 4, 2]] * 2]
    assert tconv.check_adjoint(w, (1, 2, 3)) < 0.01


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_check_adjoint_is_as_precise_as_the_type(dtype):
    w = torch.randn(2, 3, 4, dtype=getattr(torch, dtype))
    assert tconv.check_adjoint(w, (1, 2, 5), stride=2) < 1e-14


def test_views_and_wrong_tensors():
    x, w = torch.randn(5, 3, 2).permute(2, 1, 0), torch.randn(6, 2, 3).flip(0)[::2]
    expected = functional.conv_transpose1d(x, w)
    torch.testing.assert_close(tconv.conv_transpose(x, w), expected)
    torch.testing.assert_close(tconv.conv_transpose(x, nn.Parameter(w)), expected)
    with pytest.raises(DTypeError, match="x is an array of torch but weight of numpy; convert one"):
        tconv.conv_transpose(x, w.numpy())
    with pytest.raises(DTypeError, match="x is on device cpu but weight on meta; move one of them"):
        tconv.conv_transpose(x, w.to("meta"))
    assert tconv.conv_transpose(x.to("meta"), w.to("meta")).shape == expected.shape


def test_out():
    x, w = torch.ones(1, 1, 2), torch.ones(1, 1, 2)
    memory = torch.zeros(1, 1, 6)
    out = memory[:, :, ::2]
    assert tconv.conv_transpose(x, w, out=out) is out
    assert memory.tolist() == [[[1, 0, 2, 0, 1, 0]]]
    with pytest.raises(DTypeError, match="out must be an array of the operands' library"):
        tconv.conv_transpose(x, w, out=np.zeros((1, 1, 3), np.float32))
    with pytest.raises(DTypeError, match="out has dtype float64, must be the result's float32"):
        tconv.conv_transpose(x, w, out=out.double())
    with pytest.raises(ShapeError, match="out has shape"):
        tconv.conv_transpose(x, w, out=memory)


def test_sizes_may_be_tensors():
    x, w = torch.ones(1, 1, 2), torch.ones(1, 1, 2)
    for stride in (torch.tensor(2), torch.tensor([2])):
        assert tconv.conv_transpose(x, w, stride=stride).tolist() == [[[1, 1, 1, 1]]]
    assert tconv.conv_transpose(x, w, output_size=torch.Size([3])).shape == (1, 1, 3)
    with pytest.raises(ParameterError, match="must be an integer"):
        tconv.conv_transpose(x, w, stride=torch.tensor(True))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
def test_conjugated_conv_is_the_adjoint_that_torch_differentiates_by(dtype):
    x, w, y = (
        tensor(integers_like(shape, dtype, n))
        for n, shape in enumerate([(1, 2, 5), (2, 3, 4), (1, 3, 12)])
    )
    x.requires_grad_()
    there = tconv.conv_transpose(x, w, stride=2)
    there.backward(y)
    assert torch.equal(tconv.conv(y, w, conjugate=True, stride=2), x.grad)
    _, pull_back = tconv.conv_transpose_vjp(x.detach(), w, stride=2)
    assert torch.equal(pull_back(y.conj())[0].conj().resolve_conj(), x.grad)
    assert tconv.check_adjoint(w, (1, 2, 5), conjugate=True, stride=2) < 1e-5
