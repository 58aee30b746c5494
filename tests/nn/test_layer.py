"""Layers: gradients add up, predict keeps nothing, states round-trip."""

import copy
import gc
import os
import pickle
import re
import threading
import weakref
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ParameterError,
    ShapeError,
    TConvError,
    UnsupportedError,
)
from tconv.nn.activations import LeakyReLU, ReLU
from tconv.nn.conv import Conv1d, Conv2d, ConvTranspose2d
from tconv.nn.layer import Layer, Sequential
from tconv.nn.parameter import Parameter
from tconv.system.allocator import drop_idle, empty

TYPES = ["float16", "bfloat16", "float32", "float64"]
FORMATS = [".npz", ".safetensors"]


def integers(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def network(dtype="float64", seed=0):
    """A nested network with integers for values, so that sums are exact."""
    net = Sequential(
        Conv2d(2, 4, 3, padding=1, groups=2, dtype=dtype),
        ReLU(),
        Sequential(ConvTranspose2d(4, 3, 4, stride=2, dtype=dtype), LeakyReLU(0.25)),
        Conv2d(3, 1, 1, bias=False, dtype=dtype),
    )
    for n, parameter in enumerate(net.parameters()):
        parameter.value = integers(parameter.shape, dtype, seed + n)
    return net


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]) for name in a
    )


# ---- layers --------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_a_sequence_is_the_composition(seed):
    net, x = network(seed=seed), integers((2, 2, 5, 4), seed=seed)
    first, rectify, (up, leaky), last = net
    steps = [first, rectify, up, leaky, last]
    y = x
    for layer in steps:
        y = layer(y)
    assert np.array_equal(net(x), y)
    assert np.array_equal(net.predict(x), y)
    dy = integers(y.shape, seed=seed + 1)
    gradients = []
    dx = dy
    for layer in reversed(steps):
        dx = layer.backward(dx)
    gradients = [parameter.gradient.copy() for parameter in net.parameters()]
    net.zero_gradients()
    assert np.array_equal(net.backward(dy), dx)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert np.array_equal(parameter.gradient, gradient)


def test_gradients_are_central_differences():
    rng = np.random.default_rng(5)
    net = Sequential(
        Conv2d(1, 3, 3, stride=2, padding=1, dtype="float64", rng=rng),
        LeakyReLU(0.1),
        ConvTranspose2d(3, 2, 3, stride=2, dtype="float64", rng=rng),
    )
    x = rng.normal(size=(2, 1, 5, 6))
    y = net(x)
    dy = rng.normal(size=y.shape)
    dx = net.backward(dy)
    arrays = [(x, dx), *((each.value, each.gradient) for each in net.parameters())]
    for array, gradient in arrays:
        for place in rng.choice(array.size, min(array.size, 12), replace=False):
            before, values = array.flat[place], []
            for step in (1e-6, -1e-6):
                array.flat[place] = before + step
                values.append(np.sum(net.predict(x) * dy))
            array.flat[place] = before
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient.flat[place], abs=1e-7)


def test_gradients_add_up_until_they_are_zeroed():
    net, x = network(), integers((1, 2, 3, 3))
    y = net(x)
    dy = integers(y.shape, seed=9)
    net.backward(dy)
    once = [parameter.gradient.copy() for parameter in net.parameters()]
    net.backward(dy)
    for parameter, gradient in zip(net.parameters(), once, strict=True):
        assert np.array_equal(parameter.gradient, 2 * gradient)
    net.zero_gradients()
    assert all(not parameter.gradient.any() for parameter in net.parameters())
    assert all(parameter.gradient.dtype == parameter.value.dtype for parameter in net.parameters())


@pytest.mark.parametrize("layer", [ReLU(), Conv1d(1, 1, 1), Sequential(ReLU())])
def test_backward_needs_a_forward(layer):
    message = (
        f"{type(layer).__name__}.backward needs what forward keeps; call forward(x) first "
        "(predict(x) keeps nothing)."
    )
    x = np.ones((1, 1, 2), np.float32)
    for _ in range(2):
        with pytest.raises(TConvError, match=f"^{re.escape(message)}$"):
            layer.backward(x)
        layer.predict(x)


def test_predict_leaves_what_forward_has_kept():
    layer, x = ReLU(), np.array([-1.0, 1.0])
    layer(x)
    layer.predict(-x)
    assert layer.backward(np.ones(2)).tolist() == [0, 1]


def test_a_failed_forward_leaves_nothing_to_go_backward_from():
    layer = ReLU()
    layer(np.ones(2))
    with pytest.raises(DTypeError):
        layer(np.ones(2) * 1j)
    with pytest.raises(TConvError, match="needs what forward keeps"):
        layer.backward(np.ones(2))


def test_predict_keeps_no_array_alive():
    class Watch(Layer):
        alive = 0

        def compute(self, x):
            return x + 1, Kept()

    class Kept:
        def __init__(self):
            Watch.alive += 1

        def __del__(self):
            Watch.alive -= 1

    net = Sequential(*(Watch() for _ in range(3)))
    net.predict(np.ones(2))
    assert Watch.alive == 0
    net(np.ones(2))
    assert Watch.alive == 3


def test_a_shared_layer_has_both_gradients():
    layer = Conv1d(1, 1, 1, bias=False, dtype="float64")
    layer.weight.value = [[[3.0]]]
    net = Sequential(layer, layer)
    assert net(np.full((1, 1, 1), 2.0)).item() == 18
    assert net.backward(np.ones((1, 1, 1))).item() == 9
    assert layer.weight.gradient.item() == 12  # of 2*w**2
    assert len(net.parameters()) == 1
    assert list(net.state_dict()) == ["0.weight", "1.weight"]


def test_an_own_layer_names_its_members():
    class Twin(Layer):
        def __init__(self):
            self.left, self.right = Conv1d(1, 1, 1), Sequential(ReLU(), Conv1d(1, 1, 1, bias=False))
            self.mix = Parameter(np.ones(1), "mix")

        def compute(self, x):
            return self.left.predict(x) + self.right.predict(x), None

    names = ["left.weight", "left.bias", "right.1.weight", "mix"]
    assert list(Twin().state_dict()) == names
    twin = Twin()
    y = twin(np.ones((1, 1, 1), np.float32))
    with pytest.raises(NotImplementedError, match=r"^Twin must implement pull_back\.$"):
        twin.backward(y)


def test_a_sequence_is_a_sequence():
    net = network()
    assert len(net) == 4
    assert net[-1] is net[3]
    assert list(net[1:]) == list(net)[1:]
    assert isinstance(net[1:3], Sequential)
    assert list(net[2:].state_dict()) == ["2.0.weight", "2.0.bias", "3.weight"]
    with pytest.raises(IndexError):
        net[4]
    x = np.ones(3)
    assert Sequential()(x) is x
    assert repr(Sequential()) == "Sequential()"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            (ReLU,),
            "layers[0]=<class 'tconv.nn.activations.ReLU'> must be a Layer; pass layers only.",
        ),
        (({"a.b": ReLU()},), "layers['a.b'] must be named by a string without dots; rename it."),
        (({1: ReLU()},), "layers[1] must be named by a string without dots; rename it."),
    ],
)
def test_bad_members_of_a_sequence(layers, message):
    with pytest.raises(ParameterError, match=f"^{re.escape(message)}$"):
        Sequential(*layers)


# ---- rectifiers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("slope", [0, 0.25, 1, 2, -1])
def test_rectifiers(dtype, slope):
    x = np.array([-4, -1, 0, 1, 8], dtype)
    dy = np.array([1, 2, 3, 4, 5], dtype)
    for layer, low in ((LeakyReLU(slope), slope), (ReLU(), 0)):
        y, dx = layer(x), layer.backward(dy)
        assert y.dtype == dx.dtype == dtype
        assert y.tolist() == [-4 * low, -low, 0, 1, 8]
        assert dx.tolist() == [low, 2 * low, 3 * low, 4, 5]


def test_not_a_number_stays():
    x = np.array([np.nan, np.inf, -np.inf])
    assert np.array_equal(ReLU()(x), [np.nan, np.inf, 0], equal_nan=True)
    assert np.array_equal(LeakyReLU(0.5)(x), [np.nan, np.inf, -np.inf], equal_nan=True)
    assert np.array_equal(LeakyReLU(0)(x), [np.nan, np.inf, 0], equal_nan=True)


def test_integers_can_be_rectified():
    assert ReLU()([-1, 2]).tolist() == [0, 2]


def test_halves_round_once():
    x = np.array([-0.1, -3.3], np.float16)
    exact = (x.astype(np.float64) * 0.01).astype(np.float16)
    assert np.array_equal(LeakyReLU(0.01)(x), exact)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (
            lambda: LeakyReLU("0.1"),
            ParameterError,
            "negative_slope='0.1' must be a finite number; pass one.",
        ),
        (
            lambda: LeakyReLU(np.nan),
            ParameterError,
            "negative_slope=nan must be a finite number; pass one.",
        ),
        (
            lambda: ReLU()(np.ones(2, bool)),
            DTypeError,
            'x has dtype bool, layers need a real type; pass x.astype("float32") for example.',
        ),
        (
            lambda: ReLU()("abc"),
            DTypeError,
            "x='abc' must be an array, not str; pass a NumPy array or one of another array "
            "library.",
        ),
    ],
)
def test_bad_arguments_of_rectifiers(use, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        use()


def test_a_gradient_must_be_like_the_output():
    layer = ReLU()
    layer(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"^dy has shape \(3,\), must be that of y, \(2, 3\); "):
        layer.backward(np.ones(3))
    with pytest.raises(DTypeError, match=r"^dy has dtype float32, must be that of y, float64; "):
        layer.backward(np.ones((2, 3), np.float32))


def test_layers_take_arrays_of_numpy():
    class Foreign:
        dtype, shape, ndim = np.dtype("float64"), (1,), 1

        def __array_namespace__(self, api_version=None):
            return SimpleNamespace(__name__="foreign")

    with pytest.raises(UnsupportedError, match="layers compute on NumPy"):
        ReLU()(Foreign())


# ---- state ---------------------------------------------------------------------------------------


def test_state_is_a_copy():
    net = network()
    state = net.state_dict()
    state["3.weight"] += 1
    assert not np.array_equal(state["3.weight"], net[3].weight.value)
    net.load_state_dict(state)
    state["3.weight"] += 1
    assert not np.array_equal(state["3.weight"], net[3].weight.value)


def test_the_names_are_torchs():
    assert list(network().state_dict()) == [
        "0.weight",
        "0.bias",
        "2.0.weight",
        "2.0.bias",
        "3.weight",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"3.weight": None}, "missing is 3.weight"),
        ({"3.weight": None, "0.bias": None}, "missing are 0.bias, 3.weight"),
        ({"extra": 1}, "unexpected is extra"),
        (
            {str(n): 1 for n in range(8)},
            "unexpected are 0, 1, 2, 3, 4 and 3 more",
        ),
        (
            {"0.bias": np.ones((1, 4)), "3.weight": None, "3.bias": 1},
            "missing is 3.weight; unexpected is 3.bias; 0.bias has shape (1, 4), must be (4,)",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    net = network(seed=1)
    changed = network(seed=7).state_dict() | change
    state = {name: value for name, value in changed.items() if value is not None}
    whole = (
        f"state must hold exactly the parameters of Sequential, but {message}; pass the state of a "
        "layer made with the same arguments."
    )
    with pytest.raises(ParameterError, match=f"^{re.escape(whole)}$"):
        net.load_state_dict(state)
    assert same_state(net, network(seed=1))
    state = network(seed=7).state_dict() | {"3.weight": np.ones((1, 3, 1, 1), complex)}
    with pytest.raises(DTypeError, match=r"^3\.weight has dtype complex128"):
        net.load_state_dict(state)
    assert same_state(net, network(seed=1))


# ---- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copies_are_equal_and_apart(copied):
    net, x = network(), integers((1, 2, 3, 3))
    y = net(x)
    net.backward(y)
    other = copied(net)
    assert same_state(net, other)
    assert repr(net) == repr(other)
    assert np.array_equal(other.predict(x), y)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert np.array_equal(ours.gradient, theirs.gradient)
        assert not np.shares_memory(ours.value, theirs.value)
    with pytest.raises(TConvError, match="needs what forward keeps"):
        other.backward(y)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads, which BLAS keeps
def test_layers_survive_a_fork():
    net, x = network(), integers((1, 2, 3, 3))
    y = net(x)
    child = os.fork()
    if child == 0:
        try:
            net.backward(y)
            os._exit(0 if np.array_equal(net(x), y) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- memory that a sequence keeps ----------------------------------------------------------------


def deep(seed=0):
    """A network whose every array is large enough for its memory."""
    net = Sequential(
        Conv2d(2, 6, 3, padding=1, rng=0),
        ReLU(),
        Sequential(ConvTranspose2d(6, 3, 4, stride=2, padding=1, rng=0), LeakyReLU(0.25)),
        Conv2d(3, 2, 1, bias=False, rng=0),
    )
    for n, parameter in enumerate(net.parameters()):
        parameter.value = integers(parameter.shape, "float32", seed + n)
    return net


def memory_free(net):
    """The same function with nothing kept from step to step, layer by layer."""

    def steps(layers, x, dy):
        kept = []
        for layer in layers:
            x, each = layer.compute(x)
            kept.append(each)
        y, dy = x, y_like(x) if dy is None else dy
        for layer, each in zip(reversed(layers), reversed(kept), strict=True):
            dy = layer.pull_back(each, dy)
        return y, dy

    def y_like(y):
        return np.sign(y)

    flat = [net[0], net[1], *net[2], net[3]]
    return lambda x: steps(flat, x, None)


def one_step(net, x):
    y = net(x)
    return y, net.backward(np.sign(y))


def images(seed, size=128):
    return integers((2, 2, size, size), "float32", seed)


def test_results_stay_as_they_are_however_many_steps_follow():
    net = deep()
    expected = memory_free(copy.deepcopy(net))
    held = [(n, *one_step(net, images(n))) for n in range(6)]
    held += [(n, net.predict(images(n)), None) for n in range(6)]
    views = [y[0, :, ::2] for _, y, _ in held]
    for (n, y, dx), view in zip(held, views, strict=True):
        exact_y, exact_dx = expected(images(n))
        assert np.array_equal(y, exact_y)
        assert dx is None or np.array_equal(dx, exact_dx)
        assert np.array_equal(view, exact_y[0, :, ::2])
    del held
    one_step(net, images(9))
    for n, view in enumerate(views[:6]):
        assert np.array_equal(view, expected(images(n))[0][0, :, ::2])


def test_no_two_arrays_share_memory():
    net = deep()
    found = [each for n in range(5) for each in one_step(net, images(n))]
    spans = sorted((each.ctypes.data, each.ctypes.data + each.nbytes) for each in found)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_memory_is_used_again_from_step_to_step():
    net = deep()
    for n in range(3):
        one_step(net, images(n))
    places = []
    for n in range(4):
        y, dx = one_step(net, images(n))
        places.append({y.ctypes.data, dx.ctypes.data})
        del y, dx
    known = set.union(*places[:2])
    assert places[2] <= known
    assert places[3] <= known
    idle = net._arena.idle_bytes
    one_step(net, images(1))
    assert net._arena.idle_bytes == idle > 0


def test_it_is_its_own_alone():
    net, other = deep(), deep()
    one_step(net, images(0))
    assert other._arena.idle_bytes == 0
    assert net[2]._arena.idle_bytes == 0  # within another sequence that one's memory serves
    held = weakref.ref(net._arena)
    y = net.predict(images(1))
    exact = y.copy()
    del net
    gc.collect()
    assert held() is not None  # y lies in it
    assert np.array_equal(y, exact)
    del y
    gc.collect()
    assert held() is None


def test_it_is_given_up_where_memory_is_short():
    net = deep()
    one_step(net, images(0))
    net._kept = None
    idle = net._arena.idle_bytes
    assert drop_idle() >= idle > 0
    assert net._arena.idle_bytes == 0


def test_errors_leave_nothing_lent():
    class Broken(Layer):
        def compute(self, x):
            raise RuntimeError("broken")

    net = Sequential(deep()[0], Broken())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            net(images(0))
        outside = empty((2**18,), "u1")
        idle = net._arena.idle_bytes
        del outside
        assert net._arena.idle_bytes == idle


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_have_memory_of_their_own(copied):
    net = deep()
    y, _ = one_step(net, images(0))
    twin = copied(net)
    assert twin._arena is not net._arena
    assert np.array_equal(twin(images(0)), y)


@pytest.mark.parametrize("is_shared", [True, False])
def test_threads_do_not_mix_their_memory(is_shared):
    nets = [deep(), deep()]
    nets = [nets[0]] * 2 if is_shared else nets
    exact = [memory_free(deep())(images(n))[0] for n in range(4)]
    wrong = []

    def work(net, first):
        for n in range(first, first + 40):
            held = [net.predict(images(n % 4)) for _ in range(2)]
            wrong.extend(n for y in held if not np.array_equal(y, exact[n % 4]))
            if not is_shared:
                y, _ = one_step(net, images(n % 4))
                wrong.extend([n] * (not np.array_equal(y, exact[n % 4])))

    threads = [threading.Thread(target=work, args=(net, n)) for n, net in enumerate(nets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_uses_its_copy_of_the_memory_again():
    net = Sequential(ReLU())
    y = net.predict(images(0))
    exact = y.copy()
    with net._arena._lock:  # as if another thread held it
        child = os.fork()
        if child == 0:
            place = y.ctypes.data
            del y
            again = net.predict(images(1))
            os._exit(0 if again.ctypes.data == place else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(y, exact)


@pytest.mark.parametrize("state", [None, 3, [], "weight", [("weight", 1)], {1: 2}])
def test_a_state_is_a_mapping_of_names(state):
    with pytest.raises(ParameterError, match=r"^state"):
        Conv1d(1, 1, 1).load_state_dict(state)


@pytest.mark.parametrize("value", [None, "words", {}, [[1], [1, 2]], object()])
def test_a_value_of_a_state_is_an_array(value):
    layer = Conv1d(1, 1, 1, bias=False)
    with pytest.raises((ParameterError, DTypeError), match="weight"):
        layer.load_state_dict({"weight": value})


@pytest.mark.parametrize("value", [1e300, -1e39])
def test_a_state_of_numbers_that_a_layer_has_not_is_not_loaded(value):
    layer = Conv1d(1, 1, 1, rng=0)
    before = layer.state_dict()
    with pytest.raises(DTypeError, match=r"^bias holds .*, which float32 cannot; "):
        layer.load_state_dict({"weight": np.ones((1, 1, 1)), "bias": [value]})
    assert layer.state_dict() == before


@pytest.mark.parametrize("index", [None, 1.0, "0", [0], slice("a", None)])
def test_an_index_is_an_integer(index):
    with pytest.raises(ParameterError, match=r"^index=.* must be"):
        Sequential(ReLU())[index]


def test_a_rectifier_of_what_there_is_no_memory_for_is_refused():
    huge = np.broadcast_to(np.float32(0), (1, 1, 2**50))
    for layer in (ReLU(), LeakyReLU()):
        with pytest.raises(MemoryLimitError, match=r"^y needs [\d,]+ bytes but "):
            layer(huge)


@pytest.mark.parametrize("layer", [ReLU(), LeakyReLU(), LeakyReLU(0)])
def test_a_number_without_axes_is_an_array(layer):
    for dtype in (np.float64, np.float16):
        assert layer(np.array(2, dtype)) == 2
        assert layer.backward(np.array(3, dtype)) == 3
