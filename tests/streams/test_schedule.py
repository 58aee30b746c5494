"""Schedules: the latency is that of the formula, and no result could be known before."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams.drawn_layers import convolutions, directly, noise
from streams.drawn_networks import networks
from streams.pushes import cuts

import tconv
from strategies import draws
from tconv.errors import ShapeError, UnsupportedError
from tconv.geometry.window import SAME, Window
from tconv.graph import Programs, UnknownOperator
from tconv.streams.network_runner import NetworkRunner
from tconv.streams.schedule import Flow, Schedule


def right_context(layer):
    """Cells beyond its own that each result of a convolution with stride 1 needs."""
    return layer.dilation[0] * (layer.kernel_size[0] - 1) - pair(layer)[0]


def pair(layer):
    (padding,) = layer.padding
    return padding if isinstance(padding, tuple) else (padding, padding)


def lag_of(layer):
    """``p + max(0, s - R + e - output_padding)`` of a transposed layer."""
    (stride,), (extra,), (begin, end) = layer.stride, layer.output_padding, pair(layer)
    reach = layer.dilation[0] * (layer.kernel_size[0] - 1) + 1
    return begin + max(0, stride - reach + end - extra)


# ---- latency -------------------------------------------------------------------------------------


@draws(2)
@given(convolutions("float32"), st.integers(0, 30), st.data())
def test_so_many_results_are_returned(layer, size, data):
    """``E(n) = n*s - p - max(0, s - R + e - output_padding)``, if that is above 0."""
    stream, stride = layer.stream(), layer.stride[0]
    sent = made = 0
    for length in data.draw(cuts(size)):
        y = stream.push(noise((1, layer.in_channels, length), "float32", sent))
        sent, made = sent + length, made + y.shape[2]
        if layer._wanted == "y":
            final = sent * stride - lag_of(layer)
            assert stream.latency == lag_of(layer)
        else:
            reach = layer.dilation[0] * (layer.kernel_size[0] - 1) + 1
            begin, end = pair(layer)
            whole = (sent + begin + end - reach) // stride + 1
            final = min((sent + begin - reach) // stride + 1, whole)
        assert made == (max(final, 0) if sent else 0)
        assert made >= min(sent * stream.ratio - stream.latency, sent * 100)


@st.composite
def stretching(draw):
    """Convolutions with stride 1 and transposed ones without gaps, none ahead of its input."""
    layers, channels = [], 2
    for _ in range(draw(st.integers(1, 5))):
        stride, kernel = draw(st.integers(1, 4)), draw(st.integers(1, 7))
        if draw(st.booleans()):
            begin, end = draw(st.integers(0, kernel - 1)), draw(st.integers(0, kernel - 1))
            layer = tconv.Conv1d(channels, 2, kernel, padding=((begin, end),), rng=len(layers))
        else:
            kernel = max(kernel, stride)
            begin = draw(st.integers(0, kernel - stride))
            crop = begin, draw(st.integers(0, kernel - stride - begin))
            layer = tconv.ConvTranspose1d(
                channels, 2, kernel, stride=stride, padding=(crop,), rng=len(layers)
            )
        layers.append(layer)
    return tconv.Sequential(*layers)


@draws()
@given(stretching())
def test_a_chain_lags_by_the_sum_of_right_contexts_times_later_strides(net):
    total, parts = 0, {}
    for layer in net:
        total *= layer.stride[0]
        parts = {name: cells * layer.stride[0] for name, cells in parts.items()}
        own = right_context(layer) if layer._wanted == "x" else lag_of(layer)
        total += own
        if own:
            parts[str(len([*net][: [*net].index(layer)]))] = own
    stream = net.stream()
    assert stream.latency == total
    assert dict(stream.latency_parts) == parts
    assert stream.ratio == np.prod([each.stride[0] for each in net])


@draws()
@given(networks())
def test_the_parts_of_a_latency_sum_to_it(drawn):
    schedule = NetworkRunner(drawn.graph, drawn.axes, drawn.shapes, 1).schedule
    for name in schedule.outputs:
        parts = schedule.parts_of_latency(name)
        assert sum(cells for _, cells in parts) == schedule.latency(name)
        whole = schedule.parts_of_latency(name, True)
        assert sum(cells for _, cells in whole) == schedule.latency(name, True)
        assert schedule.latency(name, True) <= schedule.latency(name)


def check_it_is_the_least(known, compute, size, x, n):
    """After n cells of x the first result that is not returned depends on later ones.

    Other cells from n on change it, or without them it is another one or does not exist.
    """
    other = x.copy()
    other[..., n:] = -2 * x[..., n:] + 1
    ways = [y for y in (compute(x), compute(other)) if y is not None]
    if len(ways) < 2:
        return
    one, two = ways
    assert np.array_equal(one[..., :known], two[..., :known])
    alone = compute(x[..., :n])
    if alone is not None and alone.shape[2] > known:
        several = [each[..., known] for each in (alone, one, two)]
        assert not all(np.array_equal(several[0], each) for each in several[1:])


@draws(2)
@given(stretching(), st.integers(1, 20), st.integers(1, 20))
def test_what_is_returned_is_all_that_can_be_known(net, n, more):
    """Of chains without gaps."""
    x = noise((1, 2, n + more), "float32", n)

    def compute(x):
        try:
            return directly(net, x)
        except ShapeError:
            return None

    known = net.stream().push(x[:, :, :n]).shape[2]
    check_it_is_the_least(known, compute, n + more, x, n)


@draws()
@given(
    networks(["same Conv", "Slice", "2-D Conv", "Concat", "shuffle", "causal up"]),
    st.integers(1, 20),
)
def test_of_networks_with_branches_as_well(drawn, n):
    runner = NetworkRunner(drawn.graph, drawn.axes, drawn.shapes, 1)
    (x,) = drawn.inputs(n + 30)
    for place, name in enumerate(runner.schedule.outputs):

        def compute(x, place=place):
            try:
                found = Programs(drawn.graph, 1, method="direct")([np.ascontiguousarray(x)])
            except UnknownOperator:
                return None
            return found[place]

        check_it_is_the_least(runner.schedule.known(name, n), compute, n + 30, x, n)


# ---- laws ----------------------------------------------------------------------------------------


@draws()
@given(networks(), st.integers(1, 50))
def test_as_much_is_known_as_was_before_and_no_more_than_there_is(drawn, count):
    schedule = NetworkRunner(drawn.graph, drawn.axes, drawn.shapes, 1).schedule
    later, whole = schedule.ready(count), schedule.sizes(count)
    for name, known in schedule.ready(count - 1).items():
        assert known <= later[name] <= max(whole[name], later[name], 0)
        period = schedule.ready(count - 1 + schedule.period)[name]
        assert period - known == schedule.rates[name] * schedule.period
    ends = schedule.flushed_after(count)
    for name in schedule.outputs:
        value = schedule.values[name]
        assert value.rate * ends - value.lag >= whole[name]


UP = Window(reach=4, stride=2, begin=1, end=1)
DOWN = Window("x", reach=4, stride=2, begin=1, end=1)


def test_branches_of_other_delays_meet():
    flows = [
        Flow("a", (("x", Window("x", reach=5, begin=2, end=2)),), ("a",)),
        Flow("sum", (("x", SAME), ("a", SAME)), ("y",)),
    ]
    schedule = Schedule(["x"], flows, ["y"])
    assert schedule.values["x"].held == 4
    assert schedule.values["a"].held == 0
    assert schedule.latency("y") == 2
    assert schedule.parts_of_latency("y") == [("a", Fraction(2))]


def test_values_that_move_at_other_rates():
    flows = [Flow("up", (("x", UP),), ("u",)), Flow("sum", (("x", SAME), ("u", SAME)), ("y",))]
    message = (
        "node 'sum' joins values that move at different rates, 1 and 2 cells for each of the "
        "input, which fit each other at one length only; compute the network in one call."
    )
    with pytest.raises(UnsupportedError, match=f"^{re.escape(message)}$"):
        Schedule(["x"], flows, ["y"])


def test_values_that_fit_each_other_at_no_length():
    flows = [
        Flow("short", (("x", Window("x", reach=3)),), ("a",)),
        Flow("sum", (("x", SAME), ("a", SAME)), ("y",)),
    ]
    message = (
        "node 'sum' joins values of 65534 and 65536 cells, for 65536 cells of the input; pad the "
        "shorter one."
    )
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        Schedule(["x"], flows, ["y"])


@pytest.mark.parametrize("begin", [0, 1])
def test_values_that_fit_each_other_at_some_lengths(begin):
    """Down and up again, of even or of odd lengths."""
    flows = [
        Flow("down", (("x", DOWN._replace(begin=begin)),), ("a",)),
        Flow("up", (("a", UP._replace(begin=begin)),), ("u",)),
        Flow("sum", (("x", SAME), ("u", SAME)), ("y",)),
    ]
    schedule = Schedule(["x"], flows, ["y"])
    assert schedule.sizes(9 - begin)["u"] == 9 - begin


def test_two_numbers_for_cells_before_the_first():
    flows = [
        Flow("conv", (("x", Window("x", reach=3, begin=1, end=1)),), ("a",)),
        Flow("pool", (("x", Window("x", reach=3, begin=1, end=1)),), ("b",), -np.inf),
    ]
    message = (
        "node 'pool' takes -inf for cells before the first, another one that reads 'x' takes 0; "
        "compute the network in one call."
    )
    with pytest.raises(UnsupportedError, match=f"^{re.escape(message)}$"):
        Schedule(["x"], flows, ["a", "b"])
