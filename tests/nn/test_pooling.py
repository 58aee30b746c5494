"""Max pooling by its definition, unpooling as its transpose."""

import copy
import pickle
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    OutputSizeError,
    ParameterError,
    ShapeError,
    TConvError,
)
from tconv.nn import pooling
from tconv.nn.activations import ReLU
from tconv.nn.layer import Sequential
from tconv.nn.pooling import MaxPool, MaxPool1d, MaxPool2d, MaxUnpool, MaxUnpool1d, MaxUnpool2d
from tconv.ops.max_pool import max_pool, max_unpool

TYPES = ["float16", "bfloat16", "float32", "float64", "int8", "uint16", "int64"]
FORMATS = ["channels_first", "channels_last"]
seeds = st.integers(0, 2**32 - 1)


@st.composite
def pools(draw, most_rank=3):
    """Arguments of a max pooling, and a spatial size."""
    rank = draw(st.integers(1, most_rank))
    axes = st.tuples(*[st.integers(1, 4)] * rank)
    kernel = draw(axes)
    arguments = {
        "kernel_size": kernel,
        "stride": draw(st.none() | axes),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "dilation": draw(st.tuples(*[st.integers(1, 3)] * rank)),
        "ceil_mode": draw(st.booleans()),
    }
    return arguments, draw(st.tuples(*[st.integers(1, 8)] * rank))


def pooled(x, arguments, **options):
    """Pool, or give up the example where no window fits."""
    try:
        return max_pool(x, **arguments, **options)
    except ShapeError:
        assume(False)


def integers(shape, seed, low=-9, high=10):
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float64)


def by_definition(plane, kernel_size, stride, padding, dilation, ceil_mode):
    """Pool one plane window by window, cell by cell."""
    stride = stride or kernel_size
    starts = []
    for n, k, s, p, d in zip(plane.shape, kernel_size, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        if ceil_mode:  # it begins on x, and those before have left something over
            starts.append([i for i in range(-p, n, s) if i == -p or i - s + reach < n + p])
        else:
            starts.append(range(-p, n + p - reach + 1, s))
    flat = np.arange(plane.size).reshape(plane.shape)
    values, switches = [], []
    for corner in product(*starts):
        cells = [
            tuple(i + k * d for i, k, d in zip(corner, tap, dilation, strict=True))
            for tap in product(*map(range, kernel_size))
        ]
        cells = [c for c in cells if all(0 <= i < n for i, n in zip(c, plane.shape, strict=True))]
        best = max(plane[c] for c in cells)
        values.append(best)
        switches.append(min(flat[c] for c in cells if plane[c] == best))
    shape = [len(each) for each in starts]
    return np.reshape(values, shape), np.reshape(switches, shape)


@given(pools(), seeds)
def test_the_largest_of_every_window_and_where_it_is(case, seed):
    arguments, size = case
    x = integers((2, *size), seed, 0, 3)
    y, switches = pooled(x, arguments)
    for n in range(2):
        expected = by_definition(x[n], **arguments)
        assert np.array_equal(y[n], expected[0])
        assert np.array_equal(switches[n], expected[1])


@given(pools(), seeds, st.sampled_from(FORMATS))
def test_switches_say_where_the_values_are(case, seed, data_format):
    arguments, size = case
    rank = len(size)
    x = np.random.default_rng(seed).normal(size=(2, 3, *size))
    if data_format == "channels_last":
        x = np.moveaxis(x, 1, -1)
    y, switches = pooled(x, arguments, data_format=data_format)
    if data_format == "channels_last":
        x, y, switches = (np.moveaxis(each, -1, 1) for each in (x, y, switches))
    flat = switches.reshape(2, 3, -1)
    assert np.array_equal(np.take_along_axis(x.reshape(2, 3, -1), flat, -1), y.reshape(2, 3, -1))
    assert y.ndim == rank + 2


@given(pools(), seeds, st.sampled_from(FORMATS), st.sampled_from([(), (2,), (0,)]))
def test_backward_is_the_adjoint_at_fixed_switches(case, seed, data_format, batch):
    arguments, size = case
    x = integers((*batch, 3, *size), seed)
    if data_format == "channels_last":
        x = np.moveaxis(x, len(batch), -1)
    pool = MaxPool(**arguments, data_format=data_format)
    try:
        y = pool(x)
    except ShapeError:
        assume(False)
    dy = integers(y.shape, seed + 1)
    dx = pool.backward(dy)
    assert dx.shape == x.shape
    # Where the largest is, y is x; so the linear map that takes x there to y gives the same sum.
    assert np.sum(y * dy) == np.sum(x * dx)
    assert np.sum(dx) == np.sum(dy)


def test_gradients_are_central_differences():
    rng = np.random.default_rng(0)
    pool = MaxPool2d(3, 2, 1, ceil_mode=True)
    x = rng.permutation(2 * 6 * 7).reshape(1, 2, 6, 7).astype(np.float64)  # far from ties
    dy = rng.integers(-4, 5, pool(x).shape).astype(np.float64)
    dx = pool.backward(dy)
    for place in range(x.size):
        sums = []
        for step in (0.25, -0.25):
            moved = x.copy()
            moved.flat[place] += step
            sums.append(np.sum(pool.predict(moved) * dy))
        assert sums[0] - sums[1] == 0.5 * dx.flat[place]


@given(pools(), seeds, st.sampled_from(FORMATS))
def test_unpooling_is_the_transpose_of_taking(case, seed, data_format):
    arguments, size = case
    arguments |= {"dilation": (1,) * len(size), "stride": arguments["kernel_size"]}
    x = integers((2, 3, *size), seed)
    x = np.moveaxis(x, 1, -1) if data_format == "channels_last" else x
    y, switches = pooled(x, arguments, data_format=data_format)
    unpool = MaxUnpool(
        arguments["kernel_size"], padding=arguments["padding"], data_format=data_format
    )
    up = unpool(y, switches, output_size=size)
    assert up.shape == x.shape
    dup = integers(up.shape, seed + 1)
    dy = unpool.backward(dup)
    assert np.sum(up * dup) == np.sum(y * dy)
    assert np.sum(up) == np.sum(y)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_stays_what_it_is(dtype):
    x = np.array([[[3, 1, 2, 5, 4, 0]]]).astype(dtype)
    pool = MaxPool1d(3, 1, 1)
    y = pool(x)
    assert y.dtype == dtype
    assert y.tolist() == [[[3, 3, 5, 5, 5, 4]]]
    assert pool.switches.dtype == np.int64
    if np.dtype(dtype).kind in "iu":
        return
    dx = pool.backward(y)
    assert dx.dtype == dtype
    assert dx.tolist() == [[[6, 0, 0, 15, 4, 0]]]


def test_the_halves_are_summed_in_float32():
    x = np.full((1, 1, 4096), 1.0, np.float16)
    x[0, 0, 0] = 2.0
    summed = max_unpool(np.ones_like(x), np.zeros(x.shape, np.int64), (3,))
    assert summed[0, 0, 0] == 4096  # adding in float16 stops at 2048


def test_the_lowest_numbers_are_found_too():
    for value, dtype in ((-128, "int8"), (-np.inf, "float32"), (0, "uint8")):
        y, switches = max_pool(np.full((1, 1, 4), value, dtype), (3,), 1, 1)
        assert np.all(y == value)
        assert switches.tolist() == [[[0, 0, 1, 2]]]


def test_not_a_number_stays():
    x = np.array([[[1.0, np.nan, 2.0, 3.0, np.nan, np.nan]]])
    y, switches = max_pool(x, (2,), 1)
    assert np.isnan(y).tolist() == [[[True, True, False, True, True]]]
    assert switches.tolist() == [[[1, 1, 3, 4, 5]]]  # among NaN the last, as PyTorch has it


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "floor", "ceil"),
    [
        (6, 3, 2, 0, 2, 3),
        (7, 3, 2, 0, 3, 3),
        (5, 2, 3, 0, 2, 2),
        (4, 2, 3, 0, 1, 2),  # the last window begins on the last cell
        (4, 1, 5, 0, 1, 1),  # another one would begin past the end
        (3, 2, 4, 1, 1, 1),  # … or on the padding behind it
        (2, 3, 2, 0, None, 1),
    ],
)
def test_how_many_windows(size, kernel, stride, padding, floor, ceil):
    for ceil_mode, expected in ((False, floor), (True, ceil)):
        pool = MaxPool1d(kernel, stride, padding, ceil_mode=ceil_mode)
        x = np.ones((1, 1, size))
        if expected is None:
            with pytest.raises(ShapeError, match="too small for a window"):
                pool(x)
        else:
            assert pool(x).shape == (1, 1, expected)


def test_overlapping_windows_add():
    pool, unpool = MaxPool2d(3, 1), MaxUnpool2d(3, 1)
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 1.0
    up = unpool(pool(x), pool.switches)
    assert up[0, 0, 2, 2] == 9
    assert up.sum() == 9
    assert np.array_equal(pool.backward(pool(x)), up)


def test_a_wide_kernel_costs_what_x_does():
    y, switches = max_pool(np.arange(4.0).reshape(1, 1, 4), (10**12,), 1, 5 * 10**11)
    assert y.tolist() == [[[3.0] * 5]]
    assert switches.tolist() == [[[3] * 5]]


def test_switches_of_a_sequence_are_the_networks():
    net = Sequential(ReLU(), MaxPool1d(2))
    y = net(np.array([[[1.0, 3.0, 2.0, 0.0]]]))
    assert net.backward(y).tolist() == [[[0, 3, 2, 0]]]
    with pytest.raises(TConvError, match=r"^MaxPool1d\.switches are kept by forward"):
        _ = net[1].switches


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copies(copied):
    for layer in (MaxPool2d(2, ceil_mode=True), MaxUnpool2d(3, 2, 1)):
        assert repr(copied(layer)) == repr(layer)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_rank_of_a_class_is_that_of_its_name(rank):
    x = np.ones((1, 1, *[4] * rank))
    pool, unpool = (getattr(pooling, f"{name}{rank}d")(2) for name in ("MaxPool", "MaxUnpool"))
    y = pool(x)
    assert y.shape == (1, 1, *[2] * rank)
    assert unpool(y, pool.switches).shape == x.shape
    with pytest.raises(ShapeError, match=rf"^x\.ndim={rank + 3} must be {rank + 2} \(batched\)"):
        pool(x[None])


def unpool(switches, output_size=None, x=((1.0, 2.0),)):
    return MaxUnpool1d(2)(np.array(x), switches, output_size)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (
            lambda: MaxPool1d(3, padding=2),
            ParameterError,
            "padding[0]=2 must be at most half of kernel_size[0]=3; pass 1 or less.",
        ),
        (
            lambda: MaxPool2d(2, 0),
            ParameterError,
            "stride[0]=0 must be at least 1; pass a positive integer.",
        ),
        (
            lambda: MaxPool2d(2, padding=-1),
            ParameterError,
            "padding[0]=-1 must be at least 0; pass an integer of 0 or more.",
        ),
        (
            lambda: MaxPool2d(2, dilation=0.5),
            ParameterError,
            "dilation=0.5 must be an integer; pass an integer.",
        ),
        (
            lambda: MaxPool2d(2, ceil_mode="yes"),
            ParameterError,
            "ceil_mode='yes' must be True or False; pass one of these.",
        ),
        (
            lambda: MaxPool(2),
            ParameterError,
            "kernel_size=2 must be a tuple, whose length is the number of spatial axes; pass "
            "(3, 3) for two of them.",
        ),
        (
            lambda: max_pool(np.ones((1, 1, 2)), (3,)),
            ShapeError,
            "x has size 2 on spatial axis 0, too small for a window of kernel 3, dilation 1, "
            "padding 0; pass a larger x.",
        ),
        (
            lambda: max_pool(np.ones((1, 1, 0)), (1,)),
            ShapeError,
            "x has size 0 on spatial axis 0, too small for a window of kernel 1, dilation 1, "
            "padding 0; pass a larger x.",
        ),
        (
            lambda: max_pool(np.ones((1, 1, 1)), (2,), 1, 1, 2),
            ShapeError,
            "window 0 on spatial axis 0 must hold a cell of x, whose size is 1, but holds padding "
            "only; lower dilation[0]=2 or padding[0]=1.",
        ),
        (
            lambda: max_pool(np.ones((1, 1, 4), complex), (2,)),
            DTypeError,
            'x has dtype complex128, layers need a real type; pass x.astype("float32") for '
            "example.",
        ),
        (
            lambda: unpool([[0.0, 1.0]]),
            DTypeError,
            "switches have dtype float64, must be integers; pass those of max_pool.",
        ),
        (
            lambda: unpool([[0, 1, 2]]),
            ShapeError,
            "switches have shape (1, 3), must be x's (1, 2); pass those of max_pool.",
        ),
        (
            lambda: unpool([[0, 4]]),
            ParameterError,
            "switches hold 0 to 4, must lie in 0 to 3 for output_size=(4,); pass the size of what "
            "was pooled.",
        ),
        (
            lambda: unpool([[-1, 3]]),
            ParameterError,
            "switches hold -1 to 3, must lie in 0 to 3 for output_size=(4,); pass the size of what "
            "was pooled.",
        ),
        (
            lambda: unpool([[0, 1]], 6),
            OutputSizeError,
            "output_size[0]=6 cannot be what 2 windows of kernel 2, stride 2 and padding 0 came "
            "from: possible are 3 to 5; pass the size of what was pooled.",
        ),
        (
            lambda: unpool([[0, 1]], (2, 4)),
            ShapeError,
            "output_size=(2, 4) must have channels (1,), not (2,); pass these or only the spatial "
            "size (4,).",
        ),
    ],
)
def test_exact_messages(use, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        use()


def test_what_there_is_no_memory_for_is_refused_before():
    huge = np.broadcast_to(np.float32(0), (1, 1, 2**50))
    with pytest.raises(MemoryLimitError, match=r"^max_pool needs [\d,]+ bytes but "):
        max_pool(huge, (2,))
    with pytest.raises(MemoryLimitError, match=r"^max_pool needs"):
        max_pool(huge[:0], (2,))
    with pytest.raises(MemoryLimitError, match=r"^max_unpool needs [\d,]+ bytes but "):
        max_unpool(np.ones((1, 1, 1)), [[[0]]], (2**55,))


@pytest.mark.parametrize("ceil_mode", ["no", 1, None])
def test_ceil_mode_is_true_or_false(ceil_mode):
    with pytest.raises(ParameterError, match=r"^ceil_mode=.* must be True or False"):
        MaxPool1d(2, ceil_mode=ceil_mode)


@pytest.mark.parametrize("kernel_size", [3, None, "22", (), {2: 2}, [2] * 100, np.ones((2, 2))])
def test_a_kernel_size_without_a_rank_is_a_tuple(kernel_size):
    with pytest.raises(ParameterError, match=r"^kernel_size"):
        max_pool(np.ones((1, 1, 4, 4)), kernel_size)


def test_a_step_may_be_larger_than_64_bits():
    y, switches = max_pool(np.ones((1, 1, 4)), (2,), stride=2**63)
    assert (y.tolist(), switches.tolist()) == ([[[1.0]]], [[[0]]])
