"""Streams: states of their own, batches, fixed lengths, and what is refused."""

import copy
import io
import os
import pickle
import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams.pushes import all_of, cuts, in_runs, same_bits
from streams.small_networks import CHANNELS, KINDS, noise, stream_of, whole

import tconv
from slow import mostly_slow
from strategies import draws
from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError, UnsupportedError
from tconv.graph import Graph, Input, Node, Programs
from tconv.streams.network_runner import NetworkRunner
from tconv.streams.stream import Stream

each_kind = pytest.mark.parametrize("kind", KINDS)


def refuses(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


# ---- states --------------------------------------------------------------------------------------


@each_kind
def test_facts(kind):
    stream = stream_of(kind)
    assert (stream.latency, stream.ratio) == (11, 1.5)
    assert sum(cells for _, cells in stream.latency_parts) == stream.latency
    assert stream.positions.tolist() == [0]
    assert repr(stream) == (
        f"Stream(batch=1, float32, ratio 3/2, latency 11, {stream.state_bytes:,} bytes of state)"
    )
    ahead = tconv.ConvTranspose1d(1, 1, 4, stride=2, padding=((-3, 0),), rng=0).stream()
    assert "ratio 2, 3 ahead," in repr(ahead)


@pytest.mark.parametrize("pushes", mostly_slow([10**4, 10**5], 10**4))
def test_the_state_stays_as_small_as_it_is(pushes):
    layer = tconv.ConvTranspose1d(1, 1, 4, stride=2, padding=1, rng=0)
    stream, x = in_runs(layer.stream(), 2), np.ones((1, 1, 2), np.float32)
    before, made = stream.state_bytes, 0
    for n in range(pushes):
        made += stream.push(x[:, :, : n % 3]).shape[2]
    assert stream.state_bytes == before <= 64
    assert stream.positions.tolist() == [x_cells := sum(n % 3 for n in range(pushes))]
    assert made + stream.flush().shape[2] == 2 * x_cells
    (node,) = stream._runner._nodes
    assert len(node.compute.calls) <= 2


@each_kind
@given(st.integers(0, 30), st.data())
@draws()
def test_copies_and_kept_states_go_on_from_where_they_were(kind, size, data):
    x, stream = noise(2, size), stream_of(kind, 2)
    before = data.draw(st.integers(0, size))
    first = stream.push(x[:, :, :before])
    file = io.BytesIO()
    np.savez(file, **stream.state_dict())
    file.seek(0)
    other = stream_of(kind, 2)
    other.push(noise(2, data.draw(st.integers(0, 9)), 5))  # what it had before does not matter
    with np.load(file) as state:
        other.load_state_dict(state)
    copies = [stream.copy(), copy.copy(stream), copy.deepcopy(stream), other, stream]
    expected = None if size < 2 else whole(kind, x)
    for each in copies:
        rest = all_of(each, x[:, :, before:], data.draw(cuts(size - before)))
        if expected is not None:
            assert same_bits(np.concatenate([first, rest], 2), expected)


def test_a_state_is_of_copies():
    stream = stream_of("layers")
    state = stream.state_dict()
    for array in state.values():
        array[...] = 1
    assert not any(array.any() for name, array in stream.state_dict().items() if name != "begins")
    positions = stream.positions
    positions += 1
    assert stream.positions == 0


def test_a_state_of_another_network_is_refused():
    stream, told = stream_of("layers"), "state must hold the arrays of a stream of this network"
    state = stream.state_dict()
    for change, fault in [
        ({"held.x": None}, "'held.x' is missing"),
        ({"more": np.ones(1)}, "'more' is none of them"),
        ({"ended": np.ones(2, bool)}, "'ended' has shape (2,) and type bool, not (1,) and bool"),
        (
            {"positions": np.ones(1, np.int32)},
            "'positions' has shape (1,) and type int32, not (1,) and int64",
        ),
    ]:
        wrong = {name: array for name, array in {**state, **change}.items() if array is not None}
        with pytest.raises(ParameterError, match=re.escape(told)) as caught:
            stream.load_state_dict(wrong)
        assert f"and batch, but {fault}; pass what state_dict()" in str(caught.value)
    for wrong in (None, 3, [1], {1: 2}):
        with pytest.raises(ParameterError, match=r"^state"):
            stream.load_state_dict(wrong)
    for positions, begins in ((9, 0), (-3, 0), (1, 1), (-1, -2)):
        wrong = state | {"positions": np.array([positions]), "begins": np.array([begins])}
        with pytest.raises(ParameterError, match=r"which no stream of this network has together"):
            stream.load_state_dict(wrong)
    with pytest.raises(ParameterError, match="must hold the arrays"):
        stream.load_state_dict(stream_of("layers", 2).state_dict())
    assert not stream.state_dict()["positions"].any()


def test_a_pickle_is_refused():
    with pytest.raises(UnsupportedError, match=r"^a stream cannot be pickled, .* state_dict\(\)"):
        pickle.dumps(stream_of("layers"))


def test_a_stream_has_the_values_that_weights_had():
    net = tconv.Sequential(
        tconv.Conv1d(2, 2, 3, padding=1, rng=0), tconv.Snake(2), tconv.LeakyReLU(0.1)
    )
    x = noise(1, 20)
    expected, stream = net.predict(x), net.stream()
    for parameter in net.parameters():
        parameter.value = parameter.value * 2
    net[2].negative_slope = 0.5
    assert same_bits(all_of(stream, x, [9, 11]), expected)


# ---- batches and threads -------------------------------------------------------------------------


@each_kind
@draws()
@given(st.data())
def test_a_batch_is_as_many_streams(kind, data):
    """Pushed, flushed and reset together or some of them, they are what single ones are."""
    batch = 4
    both, single = stream_of(kind, batch), [stream_of(kind) for _ in range(batch)]
    flags = st.lists(st.booleans(), min_size=batch, max_size=batch).map(np.array)
    for step in range(data.draw(st.integers(1, 8))):
        active = data.draw(st.none() | flags)
        which = np.ones(batch, bool) if active is None else active
        what = data.draw(st.sampled_from(["push", "push", "push", "flush", "reset"]))
        ended = both.state_dict()["ended"] & which
        if what == "reset":
            both.reset(active)
            for b in np.flatnonzero(which):
                single[b].reset()
        elif what == "flush":
            y = both.flush(active)
            parts = [s.flush() if which[b] else None for b, s in enumerate(single)]
        elif ended.any():
            first = int(np.flatnonzero(ended)[0])
            with pytest.raises(TConvError, match=f"^push after flush: stream {first} has ended"):
                both.push(noise(batch, 3), active=active)
            what = "nothing"
        else:
            x = noise(batch, data.draw(st.integers(0, 20)), step)
            y = both.push(x, active=active)
            parts = [s.push(x[b : b + 1]) if which[b] else None for b, s in enumerate(single)]
        if what in ("push", "flush"):
            counts = [0 if part is None else part.shape[2] for part in parts]
            assert both.counts.tolist() == counts
            assert y.shape[2] == max(counts)
            for b, part in enumerate(parts):
                assert part is None or same_bits(y[b : b + 1, :, : counts[b]], part)
                assert not y[b, :, counts[b] :].any()
        assert both.positions.tolist() == [int(each.positions[0]) for each in single]


@each_kind
def test_streams_of_one_network_run_on_threads_of_their_own(kind):
    first, inputs = stream_of(kind), [noise(1, 200, seed) for seed in range(4)]
    streams = [first, *[first.copy() for _ in inputs[1:]]]
    together, found = threading.Barrier(len(streams)), [None] * len(streams)

    def run(n):
        together.wait()
        found[n] = all_of(streams[n], inputs[n], [n + 1] * 20 + [180 - 20 * n])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(streams))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for x, y in zip(inputs, found, strict=True):
        assert same_bits(y, whole(kind, x))


@each_kind
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_process_goes_on_with_a_stream(kind):
    stream, x = stream_of(kind), noise(1, 40)
    first, expected = stream.push(x[:, :, :13]), whole(kind, x)
    child = os.fork()
    if child == 0:
        try:
            y = np.concatenate([first, stream.push(x[:, :, 13:]), stream.flush()], 2)
            os._exit(0 if same_bits(y, expected) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    rest = np.concatenate([first, stream.push(x[:, :, 13:]), stream.flush()], 2)
    assert same_bits(rest, expected)


# ---- lengths -------------------------------------------------------------------------------------


@each_kind
@draws(0.5)
@given(st.integers(1, 12), st.integers(1, 6))
def test_fixed_lengths_delay_the_results_by_zeros(kind, frames, pushes):
    frames *= 2
    stream, x = stream_of(kind, 2, frames=frames), noise(2, frames * pushes)
    parts = [stream.push(x[:, :, n : n + frames]) for n in range(0, x.shape[2], frames)]
    assert {part.shape for part in parts} == {(2, 2, frames * 3 // 2)}
    latency, expected = stream.latency, whole(kind, x)
    found = np.concatenate([*parts, stream.flush()], 2)
    if found.shape[2] - latency >= expected.shape[2]:
        assert not found[:, :, :latency].any()
        assert same_bits(np.ascontiguousarray(found[:, :, latency:]), expected)


def test_fixed_lengths_of_causal_layers_are_the_whole():
    net = tconv.Sequential(
        tconv.Conv1d(2, 4, 7, padding=((6, 0),), rng=0),
        tconv.ConvTranspose1d(4, 2, 6, stride=3, padding=((0, 3),), rng=1),
        tconv.Residual(tconv.Tanh(), tconv.Conv1d(2, 2, 3, dilation=3, padding=((6, 0),), rng=2)),
    )
    stream, x = net.stream(frames=4), noise(1, 20)
    assert stream.latency == 0
    y = np.concatenate([stream.push(x[:, :, n : n + 4]) for n in range(0, 20, 4)], 2)
    assert stream.flush().shape == (1, 2, 0)
    assert same_bits(y, net.predict(x))


def test_fixed_lengths_wait_for_no_whole_cell():
    layer = tconv.Conv1d(2, 1, 4, stride=2, padding=((2, 0),), rng=0)
    stream, x = layer.stream(frames=2), noise(1, 12)
    assert (layer.stream().latency, stream.latency) == (1, 0)
    assert layer.stream().latency_parts == [("whole cells", 1)]
    assert stream.latency_parts == []
    y = np.concatenate([stream.push(x[:, :, n : n + 2]) for n in range(0, 12, 2)], 2)
    assert same_bits(y, layer.predict(x))


def test_every_output_is_filled_up_by_what_it_lacks():
    """Two outputs, of other rates and delays."""
    nodes = (
        Node("Conv", ("x", "w"), ("y",), {"pads": [1, 1]}),
        Node("ConvTranspose", ("x", "u"), ("z",), {"strides": [2], "pads": [3, 3]}),
    )
    constants = {"w": noise(2, 3), "u": noise(2, 8)}
    graph = Graph((Input("x", "float32"),), ("y", "z"), nodes, constants)
    stream = Stream(NetworkRunner(graph, {"x": 2}, {"x": (1, 2, None)}, 1), 4)
    x = noise(1, 12)
    parts = [stream.push(x[:, :, n : n + 4]) for n in range(0, 12, 4)]
    whole = Programs(graph, 1, method="direct")([x])
    for found, expected, lag in zip(zip(*parts, strict=True), whole, (1, 3), strict=True):
        joined = np.concatenate(found, 2)
        assert joined.shape[2] == 12 * (1 if lag == 1 else 2)
        assert not joined[:, :, :lag].any()
        assert same_bits(joined[:, :, lag:], expected[:, :, : joined.shape[2] - lag])


def test_streams_of_a_batch_that_differ_are_filled_up_on_the_left():
    net = tconv.Conv1d(1, 1, 3, padding=1, rng=0)
    stream, x = net.stream(2, frames=2), np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    both = np.concatenate([x, x])
    stream.push(both[:, :, :2], active=np.array([True, False]))
    y, expected = stream.push(both[:, :, 2:4]), net.predict(x)
    assert stream.counts.tolist() == [2, 1]
    assert same_bits(y[0], expected[0, :, 1:3])
    assert y[1, 0, 0] == 0


@pytest.mark.parametrize("frames", [1, 2, 3, 64, 131])
@pytest.mark.parametrize("most", [1, 2, 16])
@pytest.mark.parametrize("kind", [*KINDS, "ahead"])
def test_after_a_warm_up_nothing_is_made(kind, frames, most, monkeypatch):
    """Of pushes of one length, however many, and a flush."""
    if kind == "ahead":  # with cells before the first, as a Pad makes them
        pad = Node("Pad", ("x", "p"), ("a",), {})
        conv = Node("Conv", ("a", "w"), ("y",), {"strides": [3]})
        constants = {"p": np.array([0, 0, 9, 0, 0, 0]), "w": noise(2, 5)}
        graph = Graph((Input("x", "float32"),), ("y",), (pad, conv), constants)
        stream = Stream(NetworkRunner(graph, {"x": 2}, {"x": (1, 2, None)}, 1))
        assert stream._schedule.lead > 0
    else:
        stream = stream_of(kind)
    x = noise(1, 9 * frames)
    in_runs(stream, most).warm(frames)

    def refuse(*_, **__):
        raise AssertionError("made after the warm-up")

    monkeypatch.setattr("tconv.streams.layer_runner.PlannedCall", refuse)
    monkeypatch.setattr("tconv.streams.network_runner.Programs", refuse)
    for pushes in range(10):
        stream.reset()
        all_of(stream, x[:, :, : frames * pushes], [frames] * pushes)


@each_kind
@draws(0.5)
@given(st.lists(st.integers(0, 300), max_size=30))
def test_any_lengths_of_pushes_make_few_programs(kind, lengths):
    stream = stream_of(kind)
    all_of(stream, noise(1, sum(lengths)), lengths)
    runner = stream._runner
    assert len(runner.lengths.all) <= 8
    if kind == "network":
        assert {count for count, _ in runner._programs} <= {*runner.lengths.all}
    else:
        for node in runner._nodes:
            calls = getattr(node.compute, "calls", ())
            assert len(calls) <= len(runner.lengths.all)


# ---- what is refused -----------------------------------------------------------------------------


def test_a_push_after_the_end():
    stream = stream_of("layers")
    stream.push(noise(1, 5))
    stream.flush()
    assert stream.flush().shape == (1, 2, 0)
    with refuses(TConvError, "push after flush: stream 0 has ended; call reset() for a new one."):
        stream.push(noise(1, 5))
    stream.reset()
    assert stream.push(noise(1, 30)).shape[2] > 0


SHAPE = "must have shape (1, 2, n) with any n; pass such an array."


@each_kind
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            np.ones((1, 2, 3)),
            DTypeError,
            "x has dtype float64, must be float32; convert it by astype('float32').",
        ),
        (np.ones((1, 3, 3), "f4"), ShapeError, f"x has shape (1, 3, 3), {SHAPE}"),
        (np.ones((2, 3), "f4"), ShapeError, f"x has shape (2, 3), {SHAPE}"),
        (np.ones((2, 2, 3), "f4"), ShapeError, f"x has shape (2, 2, 3), {SHAPE}"),
        (
            [[1], [1, 2]],
            DTypeError,
            "x=[[1], [1, 2]] is not rectangular; pass nested lists of equal lengths.",
        ),
    ],
)
def test_other_arrays(kind, x, error, message):
    stream = stream_of(kind)
    with refuses(error, message):
        stream.push(x)
    assert stream.positions == 0


def test_as_many_arrays_as_inputs():
    with refuses(ParameterError, "push takes 1 arrays, for 'x', not 2; pass one for each input."):
        stream_of("layers").push(noise(1, 3), noise(1, 3))


@pytest.mark.parametrize("active", [True, [1, 0], [True], np.ones((2, 1), bool), "no", [True] * 3])
@pytest.mark.parametrize("call", ["push", "flush", "reset"])
def test_flags_of_another_batch(active, call):
    stream = stream_of("layers", 2)
    with pytest.raises(
        ParameterError,
        match=r"(?s)^active=.* must be 2 flags, one for each stream of the batch; pass",
    ):
        stream.push(noise(2, 3), active=active) if call == "push" else getattr(stream, call)(active)


def test_frames():
    with refuses(
        ParameterError,
        "frames=3 must be a multiple of 2, since fewer cells make no whole cell of some value; "
        "pass one.",
    ):
        stream_of("layers", frames=3)
    for wrong in (0, -2, 1.5, "2"):
        with pytest.raises(ParameterError, match=r"^frames="):
            stream_of("layers", frames=wrong)
        with pytest.raises(ParameterError, match=r"^frames="):
            stream_of("layers").warm(wrong)
    stream = stream_of("layers", frames=2)
    with refuses(
        ShapeError,
        "x has 4 cells along time, the stream was made with frames=2; push so many, or make it "
        "without frames.",
    ):
        stream.push(noise(1, 4))
    ahead = tconv.ConvTranspose1d(1, 1, 4, stride=2, padding=((-3, 0),), rng=0)
    with refuses(
        ParameterError,
        "frames=2 needs results that do not come before their input, but these are ahead of it, by "
        "padding before the first cell; leave frames out.",
    ):
        ahead.stream(frames=2)


def test_channels_are_of_the_input():
    stream = stream_of("layers")
    assert stream.push(np.zeros((1, CHANNELS, 0), np.float32)).shape == (1, 2, 0)
