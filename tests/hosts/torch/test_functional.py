"""Functions of tconv.torch: PyTorch's results, and errors where PyTorch crashes."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.utils.flop_counter
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing._internal.common_methods_invocations import op_db

import tconv
import tconv.torch
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ParameterError,
    ShapeError,
    TConvError,
)
from tconv.torch.interop import as_array, as_tensor

OURS = [tconv.torch.conv_transpose1d, tconv.torch.conv_transpose2d, tconv.torch.conv_transpose3d]
THEIRS = [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
OTHERS = ["complex64", "complex128", "int64"]
each_rank = pytest.mark.parametrize("rank", [1, 2, 3])


def op(rank):
    return next(op for op in op_db if op.name == f"nn.functional.conv_transpose{rank}d")


def close(found, expected, args, kwargs, rank):
    """Whether two results differ by rounding only: of sums, in the order that each takes."""
    if not expected.dtype.is_floating_point:
        return torch.equal(found, expected)
    wide = [None if v is None else v.detach().abs().double() for v in args]
    scale = THEIRS[rank - 1](*wide, **kwargs)
    terms = args[1].shape[0] * args[1][0, 0].numel() + 1
    most = torch.finfo(expected.dtype).eps * terms * scale
    return bool(((found.double() - expected.double()).abs() <= most).all())


# ---- what PyTorch tests its own function with ----------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS + OTHERS)
@each_rank
def test_every_opinfo_sample_is_equal(rank, dtype):
    found = list(op(rank).sample_inputs("cpu", getattr(torch, dtype)))
    assert len(found) >= 10
    for sample in found:
        args = (sample.input, *sample.args)
        y, expected = (f[rank - 1](*args, **sample.kwargs) for f in (OURS, THEIRS))
        assert y.dtype == expected.dtype
        assert y.stride() == expected.stride()
        assert close(y, expected, args, sample.kwargs, rank)


@each_rank
def test_every_opinfo_gradient_is_equal(rank):
    for sample in op(rank).sample_inputs("cpu", torch.float64, requires_grad=True):
        args = (sample.input, *sample.args)
        leaves = [each for each in args if each is not None and each.requires_grad]
        gradients = []
        for f in (OURS[rank - 1], THEIRS[rank - 1]):
            y = f(*args, **sample.kwargs)
            gradients.append(torch.autograd.grad((y * y).sum(), leaves))
        for pair in zip(*gradients, strict=True):
            torch.testing.assert_close(*pair)


@each_rank
def test_every_opinfo_error_is_one_here(rank):
    for each in op(rank).error_inputs("cpu") if op(rank).error_inputs_func else ():
        sample = each.sample_input
        with pytest.raises(each.error_type):
            OURS[rank - 1](sample.input, *sample.args, **sample.kwargs)


@each_rank
def test_the_signatures_are_theirs(rank):
    names = [*inspect.signature(OURS[rank - 1]).parameters]
    theirs = THEIRS[rank - 1].__doc__.strip().partition("(")[2].partition(")")[0]
    assert names == [each.partition("=")[0].strip() for each in theirs.split(",")]
    x, weight = torch.ones(1, 2, *[3] * rank), torch.ones(2, 2, *[2] * rank)
    for settings in ({"stride": [2], "dilation": [2]}, {"stride": torch.Size([2] * rank)},
                  {"padding": np.int64(1)}, {"output_padding": (1,), "stride": 2}):  # fmt: skip
        assert torch.equal(*(f[rank - 1](x, weight, **settings) for f in (OURS, THEIRS)))
    for settings in ({"stride": 1.0}, {"padding": "same"}, {"groups": 1.0}, {"dilation": (1.0,)}):
        for f in (OURS, THEIRS):
            with pytest.raises((TypeError, RuntimeError)):
                f[rank - 1](x, weight, **settings)


# ---- any sizes -----------------------------------------------------------------------------------


@st.composite
def calls(draw):
    """x, weight, bias and keywords of small integers."""
    rank = draw(st.integers(1, 3))
    axes = st.tuples(*[st.integers(1, 3)] * rank)
    groups, batch = draw(st.integers(1, 3)), draw(st.sampled_from([(), (0,), (1,), (2,)]))
    channels = groups * draw(st.integers(1, 3))
    stride, dilation = draw(axes), draw(axes)
    kwargs = {
        "stride": stride,
        "padding": draw(st.tuples(*[st.integers(0, 2)] * rank)),
        "output_padding": tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        ),
        "groups": groups,
        "dilation": dilation,
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = (channels, draw(st.integers(1, 3)), *draw(axes))
    shapes = [(*batch, channels, *draw(axes)), weight, (weight[1] * groups,)]
    args = [torch.from_numpy(rng.integers(-4, 5, shape)).double() for shape in shapes]
    return rank, args if draw(st.booleans()) else [*args[:2], None], kwargs


# PyTorch says so of its own gradients of an empty batch.
@pytest.mark.filterwarnings("ignore:grad and param do not obey:UserWarning")
@given(calls(), st.sampled_from(FLOATS[2:]))
def test_small_integers_give_the_same_and_so_do_their_gradients(call, dtype):
    rank, args, kwargs = call
    results = []
    for f in (OURS[rank - 1], THEIRS[rank - 1]):
        leaves = [
            None if each is None else each.to(getattr(torch, dtype)).requires_grad_()
            for each in args
        ]
        try:
            y = f(*leaves, **kwargs)
        except RuntimeError:
            results.append(None)
            continue
        y.backward(torch.arange(y.numel()).reshape(y.shape).to(y.dtype) % 5 - 2)
        results.append([y, *(leaf.grad for leaf in leaves if leaf is not None)])
    ours, theirs = results
    if ours is None and theirs is not None:  # what it refuses of float64, and of a batch of 1
        assert 0 in theirs[0].shape[-rank:]
    assume(ours is not None)
    assert theirs is not None
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("what", ["x", "weight", "both"])
@pytest.mark.parametrize("rank", [2, 3])
def test_channels_stay_last_in_memory(rank, what):
    last = torch.channels_last if rank == 2 else torch.channels_last_3d
    x, weight = torch.ones(2, 4, *[3] * rank), torch.ones(4, 3, *[2] * rank)
    x = x if what == "weight" else x.to(memory_format=last)
    weight = weight if what == "x" else weight.to(memory_format=last)
    leaves = [each.requires_grad_() for each in (x, weight)]
    y = OURS[rank - 1](*leaves, stride=2)
    assert y.is_contiguous(memory_format=last)
    assert torch.equal(y, THEIRS[rank - 1](*leaves, stride=2))
    gradients = torch.autograd.grad(y.sum(), leaves)
    expected = torch.autograd.grad(THEIRS[rank - 1](*leaves, stride=2).sum(), leaves)
    for pair in zip(gradients, expected, strict=True):
        assert torch.equal(*pair)


@pytest.mark.parametrize("change", [
    lambda t: t.transpose(-1, -2), lambda t: t.flip(-1)[..., ::2], lambda t: t[..., 1:],
    lambda t: t.expand_as(t) * 1, lambda t: t[..., :1].expand(*t.shape[:-1], 5),
    lambda t: torch.complex(t, t).conj().imag,
])  # fmt: skip
def test_tensors_may_lie_in_memory_as_they_like(change):
    rng = np.random.default_rng(0)
    x = change(torch.from_numpy(rng.integers(-4, 5, (2, 3, 5, 5))).double())
    weight = change(torch.from_numpy(rng.integers(-4, 5, (3, 2, 4, 4))).double())
    assert torch.equal(*(f[1](x, weight, stride=2) for f in (OURS, THEIRS)))


# ---- without copies, with PyTorch's threads ------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_is_copied_on_the_way_in_and_out(dtype):
    tensor = torch.arange(6.0).reshape(2, 3).to(getattr(torch, dtype)).requires_grad_()
    array = as_array(tensor)
    assert array.__array_interface__["data"][0] == tensor.data_ptr()
    assert np.array_equal(array.astype("float64"), tensor.detach().double().numpy())
    assert not array.flags.writeable
    result = array.copy()
    back = as_tensor(result)
    assert back.data_ptr() == result.__array_interface__["data"][0]
    assert back.dtype == tensor.dtype


def test_as_many_threads_work_as_pytorch_has(monkeypatch):
    from tconv.torch import contract

    asked, made = [], contract.BoundCall
    monkeypatch.setattr(
        contract, "BoundCall", lambda g, d, call: asked.append(call.threads) or made(g, d, call)
    )
    x, weight, before = torch.ones(1, 3, 7), torch.ones(3, 5, 2), torch.get_num_threads()
    contract._bound_call.cache_clear()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            OURS[0](x, weight)
    finally:
        torch.set_num_threads(before)
        contract._bound_call.cache_clear()
    assert asked == [1, 3]


def test_tensors_that_are_not_tconvs_go_to_pytorch(monkeypatch):
    from tconv.torch import functional as own

    asked = []
    monkeypatch.setitem(
        own._TORCH_FUNCTIONS, 1, lambda *args: asked.append(args) or THEIRS[0](*args)
    )
    x, weight = torch.ones(1, 2, 3), torch.ones(2, 2, 2)

    class Odd(torch.Tensor):
        pass

    others = [
        [each.to("meta") for each in (x, weight)],
        [each.to(torch.complex64) for each in (x, weight)],
        [each.long() for each in (x, weight)],
        [each.as_subclass(Odd) for each in (x, weight)],
    ]
    for n, pair in enumerate(others):
        y, expected = OURS[0](*pair, stride=2), THEIRS[0](*pair, stride=2)
        assert len(asked) == n + 1
        assert type(y) is type(expected)
        assert y.device == expected.device
        assert y.is_meta or torch.equal(y, expected)
    for pair in ([x.to_sparse(), weight], [x.double(), weight]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            THEIRS[0](*pair)
        with pytest.raises((RuntimeError, NotImplementedError)):
            OURS[0](*pair)
    assert len(asked) == len(others) + 2
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        OURS[0](x, weight)
    assert counter.get_total_flops()


def test_the_functions_of_tconv_take_the_same_way():
    x = torch.arange(6.0).reshape(1, 2, 3).requires_grad_()
    weight = torch.ones(2, 1, 2)
    y = tconv.conv_transpose(x, weight, stride=2)
    assert "_Contraction" in type(y.grad_fn).__name__
    assert torch.equal(y, THEIRS[0](x, weight, stride=2))
    y.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2))
    last = tconv.conv_transpose(x.movedim(1, -1), weight, stride=2, data_format="channels_last")
    assert torch.equal(last.movedim(-1, 1), y)
    wide = tconv.conv_transpose(x, weight, padding=((1, -1),))
    assert torch.equal(wide, torch.nn.functional.pad(THEIRS[0](x, weight), (-1, 1)))


# ---- what does not fit ---------------------------------------------------------------------------

X, W = "torch.ones(1, 2, 3, 3)", "torch.ones(2, 2, 2, 2)"
WRONG = {
    f"{X}, {W}, stride=0": ParameterError,
    f"{X}, {W}, stride=(1, 2, 3)": ParameterError,
    f"{X}, {W}, stride=2**62": MemoryLimitError,
    f"{X}, {W}, stride=2**31": MemoryLimitError,
    f"{X}, {W}, dilation=2**31": MemoryLimitError,
    f"{X}, {W}, dilation=0": ParameterError,
    f"{X}, {W}, padding=-1": ParameterError,
    f"{X}, {W}, padding=2**62": ShapeError,
    f"{X}, {W}, padding=9": ShapeError,
    f"{X}, {W}, output_padding=1": ParameterError,
    f"{X}, {W}, output_padding=-1": ParameterError,
    f"{X}, {W}, stride=2**40, output_padding=2**39": MemoryLimitError,
    f"{X}, {W}, groups=0": ParameterError,
    f"{X}, {W}, groups=-1": ParameterError,
    f"{X}, {W}, groups=3": ShapeError,
    f"{X}, torch.ones(3, 2, 2, 2)": ShapeError,
    f"{X}, torch.ones(2, 0, 2, 2)": ShapeError,
    f"{X}, torch.ones(2, 2, 0, 2)": ShapeError,
    f"{X}, torch.ones(2, 2, 2)": ShapeError,
    f"torch.ones(2), {W}": ShapeError,
    f"torch.ones(1, 2, 0, 3), {W}": ShapeError,
    "torch.ones(1, 0, 3, 3), torch.ones(0, 2, 2, 2)": ShapeError,
    f"{X}, {W}, torch.ones(3)": ShapeError,
    f"{X}, {W}, torch.ones(1)": ShapeError,
    f"{X}, {W}, torch.ones(2, 1)": ShapeError,
    f"{X}.cfloat(), {W}.cfloat(), groups=0": ParameterError,
    f"{X}.cfloat(), {W}.cfloat(), stride=0": ParameterError,
    f"{X}.long(), {W}.long(), groups=0": ParameterError,
}


@pytest.mark.parametrize("call", WRONG)
def test_what_does_not_fit_is_an_error_of_both_kinds(call):
    with pytest.raises(WRONG[call]) as error:
        eval(f"f({call})", {"torch": torch, "f": OURS[1]})
    assert isinstance(error.value, RuntimeError)
    assert isinstance(error.value, TConvError)
    assert not isinstance(error.value, DTypeError)


def test_pytorch_raises_for_the_same_or_does_not_survive():
    """Each in turn in a process that goes on after the one that killed the last."""
    code = (
        "import sys, torch\n"
        "f = torch.nn.functional.conv_transpose2d\n"
        "for call in sys.argv[1:]:\n"
        "    try: eval('f(' + call + ')')\n"
        "    except RuntimeError: print('raised', flush=True)\n"
        "    else: print('fine', flush=True)\n"
    )
    left, outcomes = [*WRONG], []
    while left:
        done = subprocess.run([sys.executable, "-c", code, *left], capture_output=True, text=True)
        outcomes += done.stdout.split()
        if done.returncode:
            outcomes.append("died")
        left = [*WRONG][len(outcomes) :]
    assert len(outcomes) == len(WRONG)
    assert set(outcomes) <= {"raised", "died"}
