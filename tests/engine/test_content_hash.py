"""The content hash: one value from every processor, and another for whatever is changed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from assemblies import TARGETS, inner_loop
from hypothesis import given
from hypothesis import strategies as st

from tconv.engine import content_hash as hashing
from tconv.engine.compile.jit import assembly
from tconv.engine.content_hash import CHUNK_BYTES, content_hash, emit, portable_hash
from tconv.engine.target.target import named_target, target

BLOCK, STRIPE, WORD = 4096, 64, 8
TYPES = {"float16": "u2", "float32": "u4", "float64": "u8"}  # and integers of as many bits


def hash_of(array, threads=1):
    return content_hash(array.ctypes.data, array.nbytes, threads)


def test_there_is_machine_code():
    assert hashing._native() is not None


# ---- one value -----------------------------------------------------------------------------------


@given(
    st.one_of(
        st.integers(0, 3 * STRIPE),
        st.builds(lambda n, d: max(0, n * BLOCK + d), st.integers(0, 35), st.integers(-70, 70)),
    ),
    st.integers(0, 70),
    st.integers(0, 2**32),
)
def test_machine_code_and_numpy_agree_on_every_size_and_place(size, start, seed):
    memory = np.random.default_rng(seed).integers(0, 256, start + size, np.uint8)
    place = memory.ctypes.data + start
    assert content_hash(place, size) == portable_hash(place, size)


@pytest.mark.parametrize("size", [CHUNK_BYTES, 16 * CHUNK_BYTES - 1, 2**21 + 9, 33 * CHUNK_BYTES])
def test_threads_do_not_change_it(size):
    array = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    expected = portable_hash(array.ctypes.data, size)
    assert {hash_of(array, threads) for threads in (1, 2, 3, 7)} == {expected}


def test_threads_may_hash_at_a_time():
    arrays = [np.full(2**18 + n, n, np.float32) for n in range(6)]
    expected = [*map(hash_of, arrays)]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(50):
            assert [*pool.map(lambda array: hash_of(array, 2), arrays)] == expected


def test_it_is_the_same_without_machine_code():
    code = (
        "import numpy as np\n"
        "from tconv.engine import content_hash as h\n"
        "assert (h._native() is not None) == h.target().uses_engine\n"
        "a = np.arange(70000.0)\n"
        "print(h.content_hash(a.ctypes.data, a.nbytes))\n"
    )
    found = set()
    for cpu in ("portable", target().cpu):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "TCONV_CPU": cpu},
        )  # fmt: skip
        found.add(int(done.stdout))
    assert found == {hash_of(np.arange(70000.0))}


def test_nothing_outside_is_read():
    code = (
        "import numpy as np\n"
        "from guarded import guarded\n"
        "from tconv.engine.content_hash import content_hash, portable_hash\n"
        "rng = np.random.default_rng(0)\n"
        "for size in [*range(1, 140), 4095, 4096, 4097, 65535, 65536, 65537, 1048700]:\n"
        "    for at_end in (False, True):\n"
        "        a = guarded(rng.integers(0, 256, size, np.uint8), at_end)\n"
        "        place = a.ctypes.data, a.nbytes\n"
        "        assert content_hash(*place) == portable_hash(*place)\n"
    )
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    run = [sys.executable, "-c", code]
    subprocess.run(run, check=True, env={**os.environ, "PYTHONPATH": path})


# ---- another for whatever is changed -------------------------------------------------------------


def distinct(array, edits, threads=1):
    """Hash an array under edits, each of which is undone; no two hashes may agree."""
    found, contents = {hash_of(array, threads)}, {array.tobytes()}
    for edit in edits:
        changed = array.copy()
        edit(changed)
        content = changed.tobytes()
        if content not in contents:
            contents.add(content)
            found.add(hash_of(changed, threads))
    assert len(found) == len(contents)
    return len(contents)


def small_integers(rng, dtype, shape):
    return rng.integers(-4, 5, shape).astype(dtype)


@pytest.mark.parametrize("size", [8, 100, 5000])
def test_every_bit_counts(size):
    array = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    found = {hash_of(array)}
    for place in range(size):
        for bit in range(8):
            array[place] ^= 1 << bit
            found.add(hash_of(array))
            array[place] ^= 1 << bit
    assert len(found) == 8 * size + 1


def test_the_size_counts():
    zeros = np.zeros(3 * CHUNK_BYTES + 100, np.uint8)
    sizes = [
        *range(300),
        *range(4000, 4200),
        *range(CHUNK_BYTES - 70, CHUNK_BYTES + 70),
        zeros.size,
    ]
    assert len({hash_of(zeros[:size]) for size in sizes}) == len(sizes)


def test_half_a_product_that_is_zero_hides_nothing():
    keys = hashing._keys().reshape(-1)
    halves = np.ones(keys.size, "<u4")
    for place in range(0, keys.size, 37):
        other = place ^ 1
        hidden = halves.copy()
        hidden[place] = ~keys[place] + np.uint32(
            1
        )  # with its key it is zero, and so is the product
        before = hash_of(hidden)
        hidden[other] += 1
        assert hash_of(hidden) != before


def swap(array, a, b):
    array[[a, b]] = array[[b, a]]


def channels(array):
    """A view (in, out, taps) of an array that is edited."""
    return array.reshape(32, 16, -1)


def random_edits(rng, array, count):
    """Edits of every kind that networks and people make, at random places."""
    size, dtype = array.size, array.dtype
    for _ in range(count):
        c, d = rng.integers(0, 32, 2)
        m, n = rng.integers(0, 16, 2)
        taps = size // 512
        k = rng.integers(0, taps)
        i, j = rng.integers(0, size, 2)
        some = rng.random(size) < rng.random()
        constant = dtype.type(rng.integers(1, 9) * (-1) ** int(rng.integers(2)))
        yield from (
            lambda a, c=c, m=m: channels(a)[c, m].fill(0),
            lambda a, c=c: channels(a)[c].fill(0),
            lambda a, m=m: channels(a)[:, m].fill(0),
            lambda a, k=k: channels(a)[:, :, k].fill(0),
            lambda a, c=c, d=d: swap(channels(a), c, d),
            lambda a, m=m, n=n: swap(channels(a).swapaxes(0, 1), m, n),
            lambda a, m=m: np.negative(channels(a)[:, m], out=channels(a)[:, m]),
            lambda a, c=c, v=constant: np.add(channels(a)[c], v, out=channels(a)[c]),
            lambda a, v=constant: np.add(a, v, out=a),
            lambda a, v=constant: np.multiply(a, v, out=a),
            lambda a, i=i: np.negative(a[i : i + 1], out=a[i : i + 1]),  # of a zero, too
            lambda a, i=i, j=j: a.__setitem__([i, j], -a[[i, j]]),
            lambda a, i=i, j=j: swap(a, i, j),
            lambda a, i=i, v=constant: a.__setitem__(i, v),
            lambda a, s=some: a.__setitem__(s, 0),
            lambda a, s=some: a.__setitem__(s, -a[s]),
            lambda a, i=i: a.__setitem__(slice(None), np.roll(a, i)),
            lambda a, i=i: a[i:].sort(),
        )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("taps", [3, 16])
def test_no_two_of_thousands_of_edits_agree(dtype, taps):
    rng = np.random.default_rng(taps)
    array = small_integers(rng, dtype, 512 * taps)
    assert distinct(array, random_edits(rng, array, 150)) > 1500


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("unit", [4, WORD, STRIPE, BLOCK, CHUNK_BYTES])
def test_what_changes_places_is_seen(dtype, unit):
    """Halves of a product, lanes, stripes, blocks and chunks, near each other and far apart."""
    rng = np.random.default_rng(unit)
    count = max(4, min(3 * CHUNK_BYTES, 8 * unit) // unit)
    array = small_integers(rng, dtype, (count, unit // np.dtype(dtype).itemsize or 1))
    steps = [n for n in (1, 2, 8, 16, 64) if n < count]
    pairs = [(n, n + step) for step in steps for n in range(count - step)][:2000]
    distinct(array, [lambda a, p=pair: swap(a, *p) for pair in pairs])


@pytest.mark.parametrize("dtype", TYPES)
def test_signs_of_two_numbers_of_a_lane_do_not_cancel(dtype):
    """What is added or xored alone has lost a bit that is changed twice."""
    rng, bits = np.random.default_rng(0), TYPES[dtype]
    array = small_integers(rng, dtype, (BLOCK // STRIPE, STRIPE // np.dtype(dtype).itemsize))
    top = np.array(1, bits) << np.array(8 * array.itemsize - 1, bits)

    def flip(a, rows, column):
        a.view(bits)[rows, column] ^= top

    rows = [(r, s) for r in range(array.shape[0]) for s in range(r)]
    edits = [
        lambda a, r=list(pair), c=column: flip(a, r, c)
        for pair in rows
        for column in (0, 1, array.shape[1] - 1)
    ]
    assert distinct(array, edits) == len(edits) + 1


def test_no_two_permutations_agree():
    for shape in ((4, 8, 4, 8), (8, 8, 2, 2)):
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        found = [np.ascontiguousarray(array.transpose(p)) for p in permutations(range(4))]
        found += [np.ascontiguousarray(np.flip(array, n)) for n in range(4)]
        assert len(set(map(hash_of, found))) == len({each.tobytes() for each in found})
    row = np.arange(7, dtype=np.float64)
    assert len({hash_of(np.array(each)) for each in permutations(row)}) == 5040


def test_large_arrays_are_read_whole():
    array, rng = np.zeros(2**19 + 5, np.float32), np.random.default_rng(0)
    found = {hash_of(array, 2)}
    places = {0, array.size - 1, *rng.integers(0, array.size, 500).tolist()}
    for place in places:
        array[place] = 1
        found.add(hash_of(array, 2))
        array[place] = 0
    assert len(found) == len(places) + 1


# ---- the code ------------------------------------------------------------------------------------

MULTIPLIES = {  # of 64 bits per lane, for eight stripes of eight lanes
    "haswell": ("vpmuludq", 16),
    "skylake-avx512": ("vpmuludq", 8),
    "x86-64": ("pmuludq", 32),
    "neoverse-v1": ("uml", 32),
    "apple-m1": ("uml", 32),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_inner_loop_multiplies_vectors(name):
    text = assembly("tconv_content_hash", emit, named_target(name))
    loop = inner_loop(text)
    word, count = MULTIPLIES[name]
    found = sum(word in (line.split() or [""])[0] for line in loop)
    assert found == count
    if name != "x86-64":  # which has too few registers for sums and totals
        assert not any("%rsp" in line or "[sp" in line for line in loop)
