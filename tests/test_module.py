"""What every layer does: gradients add up, predict keeps nothing, state comes back as it was."""

import builtins
import copy
import io
import os
import pickle
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError, UnsupportedError
from tconv.layers import Conv1d, Conv2d, ConvTranspose2d
from tconv.module import Layer, LeakyReLU, Parameter, ReLU, Sequential
from tconv.states import read_state, write_state

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


# ---- parameters ----------------------------------------------------------------------------------


def test_a_parameter_owns_its_value():
    given_value = np.ones(3)
    parameter = Parameter(given_value, "weight")
    given_value[0] = 5
    assert parameter.value.tolist() == [1, 1, 1]
    parameter.value = given_value
    given_value[1] = 7
    assert parameter.value.tolist() == [5, 1, 1]


def test_a_parameter_changes_in_place():
    parameter = Parameter(np.ones(2), "weight")
    value = parameter.value
    parameter.value -= 3.0
    parameter.gradient += 2.0
    parameter.gradient *= 4.0
    assert parameter.value is value
    assert parameter.value.tolist() == [-2, -2]
    assert parameter.gradient.tolist() == [8, 8]
    parameter.zero_gradient()
    assert parameter.gradient.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_parameter_keeps_its_type(dtype):
    parameter = Parameter(integers((2, 2)).astype(dtype), "weight")
    parameter.value = np.full((2, 2), 0.5)
    parameter.gradient = [[1, 2], [3, 4]]
    assert parameter.value.dtype == parameter.gradient.dtype == parameter.dtype == dtype


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda p: setattr(p, "value", np.ones(3)),
            ShapeError,
            "weight has shape (3,), must be (2,); pass such an array.",
        ),
        (
            lambda p: setattr(p, "gradient", np.ones(1)),
            ShapeError,
            "gradient of weight has shape (1,), must be (2,); pass such an array.",
        ),
        (
            lambda p: setattr(p, "value", np.ones(2) * 1j),
            DTypeError,
            "weight has dtype complex128, must be of real numbers; convert it.",
        ),
        (
            lambda _: Parameter(np.ones(2, int), "bias"),
            DTypeError,
            "bias has dtype int64, layers need a floating type; pass "
            'bias.astype("float32") for example.',
        ),
        (
            lambda _: Parameter(None, "bias"),
            ParameterError,
            "bias=None must come with shape and dtype; pass both.",
        ),
        (
            lambda _: Parameter(None, "bias", shape=(None,), dtype="float32").gradient,
            ParameterError,
            "bias has no value yet, in_channels=None is filled at the first forward; call "
            "forward(x) or predict(x) first, or pass in_channels.",
        ),
    ],
)
def test_bad_values_of_a_parameter(change, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        change(Parameter(np.ones(2), "weight"))


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
        ((ReLU,), "layers[0]=<class 'tconv.module.ReLU'> must be a Layer; pass layers only."),
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
            return object()

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


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", TYPES)
def test_state_comes_back_from_a_file(tmp_path, suffix, dtype):
    pytest.importorskip("safetensors")
    net, other = network(dtype, seed=3), network(dtype, seed=4)
    net.save(tmp_path / f"net{suffix}")
    assert os.listdir(tmp_path) == [f"net{suffix}"]
    other.load(str(tmp_path / f"net{suffix}"))
    assert same_state(net, other)


@pytest.mark.parametrize("suffix", FORMATS)
def test_equal_states_make_equal_files(tmp_path, suffix):
    network(seed=3).save(tmp_path / f"a{suffix}")
    network(seed=3).save(tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", ">f4", *TYPES])
def test_arrays_of_any_shape_and_type_come_back(tmp_path, suffix, dtype):
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    arrays = [np.arange(6).reshape(2, 3), np.ones(()), np.ones((0, 2)), np.ones((2, 3)).T]
    state = {f"file{n}/é": array.astype(dtype) for n, array in enumerate(arrays)}
    write_state(tmp_path / f"a{suffix}", state)
    found = read_state(tmp_path / f"a{suffix}")
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert np.array_equal(found[name], value)
        assert found[name].shape == value.shape


def test_names_are_free(tmp_path):
    state = {"file": np.ones(1), "allow_pickle": np.ones(2), "args": np.ones(3)}
    write_state(tmp_path / "a.npz", state)
    assert read_state(tmp_path / "a.npz").keys() == state.keys()


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_programs_read_and_write_the_files(tmp_path, suffix):
    numpy_form = pytest.importorskip("safetensors.numpy")
    net, path = network(seed=3), tmp_path / f"net{suffix}"
    net.save(path)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
        np.savez_compressed(path, **found)
    else:
        found = numpy_form.load_file(path)
        numpy_form.save_file(found, path, metadata={"format": "np"})
    state = net.state_dict()
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[name], state[name]) for name in state)
    other = network(seed=4)
    other.load(path)
    assert same_state(net, other)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failed_save_leaves_the_older_file(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"net{suffix}"
    network(seed=3).save(path)
    before = path.read_bytes()
    monkeypatch.setattr(np.lib.format, "write_array", lambda *_, **__: 1 / 0)
    numpy_form = pytest.importorskip("safetensors.numpy")
    monkeypatch.setattr(numpy_form, "save", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(seed=4).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def damaged(path, kind):
    """Write something that is not what its suffix says."""
    content = path.read_bytes()
    if kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "empty":
        content = b""
    elif kind == "text":
        content = b"not a file of arrays at all, but a sentence that is long enough for a header"
    elif kind == "flipped":
        middle = len(content) // 3
        content = content[:middle] + bytes(255 - b for b in content[middle : middle + 99])
        content += path.read_bytes()[len(content) :]
    elif kind == "single":
        stream = io.BytesIO()
        np.save(stream, np.ones(3))
        content = stream.getvalue()
    elif kind == "pickled":
        stream = io.BytesIO()
        np.savez(stream, a=np.array([{}], object))
        content = stream.getvalue()
    elif kind == "zip":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a.npy", "no array")
        content = stream.getvalue()
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["cut", "empty", "text", "single", "pickled", "zip", "flipped"])
def test_a_damaged_file_is_said_to_be_one(tmp_path, suffix, kind):
    net, path = network(seed=3), tmp_path / f"net{suffix}"
    net.save(path)
    damaged(path, kind)
    if kind == "flipped" and suffix == ".safetensors":
        return  # the format has no check sums; lengths and names are all it can verify
    with pytest.raises(
        ParameterError, match=rf"must be an undamaged \{suffix} file of arrays \(.*\); pass a file"
    ):
        net.load(path)
    assert same_state(net, network(seed=3))


def test_bad_paths(tmp_path):
    net = network()
    with pytest.raises(ParameterError, match=r"must end in \.npz or \.safetensors; rename it\.$"):
        net.save(tmp_path / "net.pt")
    with pytest.raises(ParameterError, match=r"must end in \.npz or \.safetensors; rename it\.$"):
        net.load(tmp_path / "net")
    with pytest.raises(ParameterError, match=r"in a folder that exists; create '.*there' first\.$"):
        net.save(tmp_path / "not" / "there" / "net.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ParameterError, match=r"choose another name\.$"):
        net.save(tmp_path / "folder.npz")
    for suffix in FORMATS:
        with pytest.raises(FileNotFoundError):
            net.load(tmp_path / f"net{suffix}")


def test_safetensors_may_be_missing(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    message = "Reading and writing .safetensors needs safetensors: pip install tconv[safetensors]."
    for use in (network().save, network().load):
        with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
            use(tmp_path / "net.safetensors")
    network().save(tmp_path / "net.npz")


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
