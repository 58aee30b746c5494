"""Arrays of .npy and .npz files, whose headers are checked before anything else is read."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tconv.arrays.npy import HoldsObjectsError, read_npy, read_npz
from tconv.errors import MemoryLimitError
from tconv.system import memory

TYPES = ["float16", "float32", ">f8", "int8", "uint64", "bool", "complex64", "<U3", "S2"]
MOST_BYTES = 4_000_000  # that a file of a few KB may make Python allocate


def npy(value, version=None):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(value), version)
    return stream.getvalue()


def header(text, version=(1, 0)):
    """The head of an .npy file that says what it likes."""
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text.encode("latin1")


def archive(compression=zipfile.ZIP_DEFLATED, **members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return io.BytesIO(stream.getvalue())


def described(shape, dtype="<f4"):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"


@given(
    st.sampled_from(TYPES).flatmap(lambda t: arrays.arrays(t, arrays.array_shapes(min_dims=0))),
    st.sampled_from([(1, 0), (2, 0)]),
    st.booleans(),
)
def test_arrays_come_back(value, version, fortran):
    value = np.asfortranarray(value) if fortran else value
    one = read_npy(io.BytesIO(npy(value, version)))
    (other,) = read_npz(archive(x=npy(value, version))).values()
    for found in (one, other):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes()


HUGE = [
    described((2**40,)),
    described((2**32, 2**32)),  # whose product is 0 in 64 bits
    described((2**62, 2**62, 2**62)),
    described((-1,)),
    described((3,), "<U1000000000"),
    described((1.5,)),
    "{'descr': '<f4'}\n",
    "(" * 5000,
    "[" * 9000,
]


@pytest.mark.parametrize("text", HUGE)
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_absurd_headers_are_refused_unread(text, version):
    data = header(text, version) + bytes(12)
    for read, file in [(read_npy, io.BytesIO(data)), (read_npz, archive(x=data))]:
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"header|bytes"):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        tracemalloc.stop()


def test_a_header_of_any_length_is_not_read():
    """Deflate makes 16 KB of 16 MB of blanks, and 4 MB of 4 GB."""
    data = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**24) + b" " * 2**24
    tracemalloc.start()
    file = archive(x=data)
    tracemalloc.reset_peak()
    with pytest.raises(ValueError, match="its header is said to have 16,777,216 bytes"):
        read_npz(file)
    assert tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0] < MOST_BYTES
    tracemalloc.stop()


def test_a_bomb_is_weighed_before_it_is_unpacked(monkeypatch):
    size = 2**25
    data = header(described((size,), "|i1")) + bytes(size)
    files = [archive(x=data), archive(x=data, y=data)]
    assert len(files[0].getvalue()) < size / 500
    for available, file, fits in [
        (2**26, files[0], True),
        (2**26, files[1], False),
        (2**25, files[0], False),
    ]:
        monkeypatch.setattr(memory, "available_bytes", lambda available=available: available)
        if fits:
            assert read_npz(file)["x"].nbytes == size
            continue
        tracemalloc.start()
        with pytest.raises(MemoryLimitError, match=r"needs [\d,]+ bytes but [\d,]+ may be used"):
            read_npz(file)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        tracemalloc.stop()


def test_a_size_that_is_a_lie_is_found():
    data = npy(np.ones(3, np.float32))
    for wrong in (data[:-1], data + b"\0", data + bytes(2**20)):
        with pytest.raises(ValueError, match=r"'x' has [\d,]+ bytes, its header speaks of"):
            read_npz(archive(x=wrong))
    with pytest.raises(ValueError, match=r"it has [\d,]+ bytes, its header speaks of"):
        read_npy(io.BytesIO(data[:-1]))
    assert read_npy(io.BytesIO(data + data)).shape == (3,)  # as numpy.save appends them


def test_nothing_is_unpickled():
    data = io.BytesIO()
    np.save(data, np.array([{}], object), allow_pickle=True)
    for read, file in [(read_npy, data), (read_npz, archive(x=data.getvalue()))]:
        with pytest.raises(HoldsObjectsError):
            read(file)


def test_what_is_not_accepted_is_not_read():
    class StopError(Exception):
        pass

    def accept(headers):
        seen.append({name: (each.shape, each.dtype.name) for name, each in headers.items()})
        raise StopError

    seen = []
    broken = bytearray(npy(np.ones((2, 3))))
    with pytest.raises(StopError):
        read_npy(io.BytesIO(bytes(broken)), accept)
    with pytest.raises(StopError):
        read_npz(archive(a=npy(np.ones(2)), b=npy(np.ones(3, "int8"))), accept)
    assert seen == [{"": ((2, 3), "float64")}, {"a": ((2,), "float64"), "b": ((3,), "int8")}]


def test_two_arrays_of_one_name_are_refused():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("x.npy", npy(np.ones(1)))
        file.writestr("x", npy(np.ones(2)))
    with pytest.raises(ValueError, match="it holds two arrays 'x'"):
        read_npz(stream)


@given(st.integers(0, 400), st.binary(max_size=6))
def test_damage_never_reads_as_something_else_than_an_error_or_an_array(at, noise):
    data = npy(np.arange(6.0).reshape(2, 3))
    data = data[:at] + noise + data[at + len(noise) :]
    try:
        found = read_npy(io.BytesIO(data))
    except ValueError:
        return
    assert found.nbytes <= len(data)
