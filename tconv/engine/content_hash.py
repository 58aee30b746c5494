"""Content hash of memory: 64 bits that tell whether any byte of a weight has changed.

for chunk in chunks of 64 KB:                                   # shared by the threads
    sums = totals = zeros                                       # 8 lanes of 64 bits
    for block in blocks of 4 KB:
        for stripe in stripes of 64 bytes:                      # the last is padded with zeros
            halves = stripe + keys[stripe's place]              # 16 integers of 32 bits
            sums += halves[0::2] * halves[1::2]                 # 32 x 32 -> 64 bits
            totals += halves                                    # as 8 integers of 64 bits
        sums, totals = mixed(sums), mixed(totals)               # (x ^ x >> 32) * odd
    hash = bytes of the chunk
    for word in sums and totals: hash = mixed(hash ^ word)
The hashes of several chunks are hashed in the same way, as content.

The products are those of NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, CRYPTO 1999): for any
two contents that differ, the sums of a block agree for one choice of keys in 2**32. The reasons:

- Every place of a block has a key of its own, so two values that are exchanged change the hash.
- Keys are added before the multiplication: small integers stored as floats end in 23 zero bits, and
  products of such values would carry little information.
- A half whose sum with its key is zero hides the other half in the product. The totals still have
  it; XXH3 adds its input for the same reason (github.com/Cyan4973/xxHash). So a change within 8
  bytes is never lost before the words of a chunk become one.
- Mixing is invertible and does not commute with sums, so two blocks that are exchanged change the
  hash.

Chunks and the order in them are fixed, so the hash does not depend on threads or processor. The
keys are no secret: the hash detects accidental changes, not an adversary's.
"""

import ctypes
from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import (
    I8,
    I32,
    I64,
    PTR,
    VOID,
    Builder,
    Constant,
    Function,
    FunctionType,
    Index,
    Module,
    Value,
    VectorType,
)
from tconv.engine.compile.jit import load
from tconv.engine.runtime.job import run_job
from tconv.engine.target.target import target

__all__ = ["CHUNK_BYTES", "content_hash", "emit", "is_native", "portable_hash"]

CHUNK_BYTES = 2**16
_BLOCK_BYTES, _STRIPE_BYTES, _LANES = 2**12, 64, 8
_STRIPES = _BLOCK_BYTES // _STRIPE_BYTES
_UNROLLED = 8  # stripes; 4 take a tenth longer in the caches, 16 as long (Zen 5)
# Hardware prefetchers stop at a page: without this 32 MB took 1.3 times as long (Zen 5).
_AHEAD_BYTES = 2**13
_ODD = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio
_SHARED_CHUNKS = 16  # fewer are hashed in the time in which another thread begins

_NAME = "tconv_content_hash"
_CHUNKS = Record(pointers=("data", "hashes", "keys"), words=("size", "chunks"))
_COUNTER = 16  # the chunks' counter is this word, in a cache line of its own
_HALVES = VectorType(I32, 2 * _LANES)
_HALF, _LONG = VectorType(I32, _LANES), VectorType(I64, _LANES)
_BYTE = I8


def content_hash(place: int, size: int, threads: int = 1) -> int:
    """Return the hash of so many bytes at an address.

    >>> array = np.arange(3.0)
    >>> before = content_hash(array.ctypes.data, array.nbytes)
    >>> array[1] = -array[1]
    >>> content_hash(array.ctypes.data, array.nbytes) == before
    False
    """
    native = _native()
    if native is None:
        return portable_hash(place, size)
    of_chunk, of_chunks, keys = native
    if size <= CHUNK_BYTES:
        return of_chunk(place, size, keys)
    chunks = -(-size // CHUNK_BYTES)
    hashes = (ctypes.c_int64 * chunks)()
    found = ctypes.addressof(hashes)
    words = (ctypes.c_int64 * (_COUNTER + 16))(
        *_CHUNKS.row(data=place, hashes=found, keys=keys, size=size, chunks=chunks)
    )
    workers = threads if chunks >= _SHARED_CHUNKS else 1
    run_job(of_chunks, ctypes.addressof(words), workers, partial(load, target=target()))
    return content_hash(found, 8 * chunks, threads)


def is_native() -> bool:
    """Return whether machine code computes the hash."""
    return _native() is not None


def portable_hash(place: int, size: int) -> int:
    """Return the same hash, computed by NumPy in hundreds of times the time.

    >>> array = np.arange(1e5)
    >>> place = array.ctypes.data, array.nbytes
    >>> portable_hash(*place) == content_hash(*place)
    True
    """
    data = np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(place)), np.uint8)
    starts = range(0, max(size, 1), CHUNK_BYTES)
    words = np.array([_portable_chunk(data[n : n + CHUNK_BYTES]) for n in starts], np.uint64)
    return int(words[0]) if words.size == 1 else portable_hash(words.ctypes.data, words.nbytes)


def _portable_chunk(data: NDArray[np.uint8]) -> int:
    """Return the hash of a chunk."""
    blocks = data.size // _BLOCK_BYTES + 1  # the last has fewer stripes, or none, and is mixed too
    padded = np.zeros(blocks * _BLOCK_BYTES, np.uint8)
    padded[: data.size] = data
    halves = padded.view("<u4").reshape(blocks, _STRIPES, 2 * _LANES) + _keys()
    halves.reshape(-1, 2 * _LANES)[-(-data.size // _STRIPE_BYTES) :] = 0
    low, high = halves[..., ::2].astype(np.uint64), halves[..., 1::2].astype(np.uint64)
    added = np.stack([low * high, low + (high << np.uint64(32))], 1).sum(2, np.uint64)
    state = np.zeros((2, _LANES), np.uint64)
    for block in added:
        state = _mixed(state + block)
    found = np.array([data.size], np.uint64)
    for word in (*state.ravel(), 0):
        found = _mixed(found ^ np.uint64(word))
    return int(found[0])


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (words ^ (words >> np.uint64(32))) * np.uint64(_ODD)


@cache
def _keys() -> NDArray[np.uint32]:
    """Return a key for each half of a block: pseudorandom integers, by SplitMix64."""
    words = np.arange(1, _BLOCK_BYTES // 8 + 1, dtype=np.uint64) * np.uint64(_ODD)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    room = np.empty(_BLOCK_BYTES + _STRIPE_BYTES, np.uint8)
    start = -room.ctypes.data % _STRIPE_BYTES  # no stripe of keys lies in two cache lines
    keys = room[start : start + _BLOCK_BYTES].view("<u4")
    keys[...] = words.astype("<u8").view("<u4")
    return keys.reshape(_STRIPES, 2 * _LANES)


@cache
def _native() -> tuple[Callable[[int, int, int], int], int, int] | None:
    """Return the hash of a chunk, and the addresses of the job for many and of the keys.

    None where no code can be had; both ways give the same hash, so that may change later.
    """
    here = target()
    if not here.uses_engine:
        return None
    try:
        found = load(_NAME, emit, here)
    except Exception:  # of LLVM, or a warning that is an error
        return None
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(found)
    # PYFUNCTYPE keeps the interpreter's lock: to release it takes a tenth of a small weight's time.
    kind = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    return kind(entry(0)), entry(1), _keys().ctypes.data


# ---- generated code ------------------------------------------------------------------------------


def emit(module: Module) -> None:
    """Emit ``tconv_content_hash(n)``: the address of the hash of one chunk, or of many."""
    of_chunk = _chunk(module)
    of_chunks = _chunks(module, of_chunk)
    function = Function(module, FunctionType(I64, [I64]), _NAME)
    code = Code(Builder(function.append_basic_block("entry")))
    places = [code.builder.ptrtoint(each, I64) for each in (of_chunk, of_chunks)]
    code.builder.ret(code.pick(code.is_equal(function.args[0], 0), *places))


def _chunk(module: Module) -> Function:
    """Emit ``chunk(data, size, keys)``: the hash of so many bytes, at most a chunk."""
    function = Function(module, FunctionType(I64, [PTR, I64, PTR]), "chunk")
    function.linkage = "internal"
    data, size, keys = function.args
    code = Code(Builder(function.append_basic_block("entry")))
    last = code.room(_BYTE, _STRIPE_BYTES)
    zeros = Constant(_LONG, None)
    code.builder.store(zeros, last, align=1)
    blocks, rest = code.divmod(size, _BLOCK_BYTES)
    with code.loop_carrying(blocks, [data, zeros, zeros]) as ((place, *state), following):
        state = _stripes(code, place, keys, _STRIPES, state)
        following += [code.at(place, _BLOCK_BYTES, _BYTE), *(_mix(code, each) for each in state)]
    place, *state = following
    stripes, rest = code.divmod(rest, _STRIPE_BYTES)
    state = _stripes(code, place, keys, stripes, state)
    whole = code.mul(stripes, _STRIPE_BYTES)
    place, key = code.at(place, whole, _BYTE), code.at(keys, whole, _BYTE)
    with code.loop(rest) as n:
        code.store(code.load(place, n, _BYTE), last, n)
    state = _stripes(code, last, key, code.least(rest, 1), state)
    words = code.room(I64, 2 * _LANES)
    for v, each in enumerate(state):
        code.builder.store(_mix(code, each), code.at(words, v * _LANES, I64), align=8)
    with code.loop_carrying(2 * _LANES, [words, size]) as ((word, found), following):
        found = _mix(code, code.builder.xor(found, code.load(word, kind=I64)))
        following += [code.at(word, 1, I64), found]
    _, found = following
    code.builder.ret(_mix(code, found))
    return function


def _stripes(code: Code, data: Value, keys: Value, count: Index, state: list[Value]) -> list[Value]:
    """Add stripes to sums and totals; return these."""
    unrolled = _UNROLLED if isinstance(count, int) else 1
    turns = count // unrolled if isinstance(count, int) else count
    with code.loop_carrying(turns, [data, keys, *state]) as (carried, following):
        place, key, sums, totals = carried
        for first in range(0, unrolled * _STRIPE_BYTES, _STRIPE_BYTES):
            if unrolled > 1:
                code.prefetch(code.at(place, _AHEAD_BYTES + first, _BYTE))
            sums, totals = _stripe(code, place, key, first, sums, totals)
        step = unrolled * _STRIPE_BYTES
        following += [code.at(each, step, _BYTE) for each in (place, key)] + [sums, totals]
    return following[2:]


def _stripe(
    code: Code, data: Value, keys: Value, first: int, sums: Value, totals: Value
) -> tuple[Value, Value]:
    """Add a stripe to sums and totals."""
    b = code.builder
    halves = [b.load(code.at(each, first, _BYTE), align=1, typ=_HALVES) for each in (data, keys)]
    words = b.bitcast(b.add(*halves), _LONG)
    shift = Constant(_LONG, [32] * _LANES)
    low, high = (b.zext(b.trunc(each, _HALF), _LONG) for each in (words, b.lshr(words, shift)))
    return b.add(sums, b.mul(low, high)), b.add(totals, words)


def _mix(code: Code, words: Value) -> Value:
    """``(x ^ x >> 32) * odd`` of a word or of a vector of them."""
    b, kind = code.builder, words.type
    many = [_LANES] if kind == _LONG else []
    shift, odd = (Constant(kind, [n] * many[0] if many else n) for n in (32, _ODD))
    return b.mul(b.xor(words, b.lshr(words, shift)), odd)


def _chunks(module: Module, of_chunk: Function) -> Function:
    """Emit ``chunks(words, thread)``: the hashes of chunks, which threads take one by one."""
    function = Function(module, FunctionType(VOID, [PTR, I64]), "chunks")
    function.linkage = "internal"
    code = Code(Builder(function.append_basic_block("entry")))
    words = function.args[0]
    f = _CHUNKS.load(code, words)
    with code.tasks(code.at(words, _COUNTER, I64), f["chunks"]) as n:
        first = code.mul(n, CHUNK_BYTES)
        size = code.least(CHUNK_BYTES, code.sub(f["size"], first))
        values = [code.at(f["data"], first, _BYTE), size, f["keys"]]
        code.store(code.builder.call(of_chunk, values), f["hashes"], n)
    code.end()
    return function
