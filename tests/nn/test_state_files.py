"""State files round-trip, and a file is complete or absent."""

import builtins
import io
import json
import os
import re
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tconv.errors import MemoryLimitError, ParameterError
from tconv.nn.conv import Conv2d, ConvTranspose2d
from tconv.nn.layer import Sequential
from tconv.nn.state_files import read_state, write_state
from tconv.system import memory

TYPES = ["float16", "bfloat16", "float32", "float64"]
FORMATS = [".npz", ".safetensors"]


def network(dtype="float64", seed=0):
    return Sequential(
        Conv2d(2, 4, 3, groups=2, dtype=dtype, initialiser="torch", rng=seed),
        Sequential(ConvTranspose2d(4, 3, 4, dtype=dtype, initialiser="torch", rng=seed)),
    )


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]) for name in a
    )


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
    message = "Reading and writing .safetensors needs safetensors: pip install safetensors."
    for use in (network().save, network().load):
        with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
            use(tmp_path / "net.safetensors")
    network().save(tmp_path / "net.npz")


@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_pipe_is_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with pytest.raises(OSError, match="is a pipe, must be a regular file; copy what it gives"):
        read_state(tmp_path / f"pipe{suffix}")
    with pytest.raises(ParameterError, match="must name a regular file"):
        write_state(tmp_path / f"pipe{suffix}", {})


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_state_is_weighed_before_it_is_read(tmp_path, suffix, monkeypatch):
    pytest.importorskip("safetensors")
    write_state(tmp_path / f"a{suffix}", {"x": np.zeros(2**22)})
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**22)
    with pytest.raises(MemoryLimitError, match=r"bytes but 3,355,443 may be used"):
        read_state(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_state_that_replaces_a_private_one_is_private(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    network(seed=3).save(path)
    path.chmod(0o600)
    network(seed=4).save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"x": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}},
        {"x": 5},
        [1],
    ],
)
def test_absurd_headers_of_safetensors_are_refused(tmp_path, header):
    pytest.importorskip("safetensors")
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ParameterError, match=r"must be an undamaged \.safetensors file of arrays"):
        read_state(tmp_path / "a.safetensors")
