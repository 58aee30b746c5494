"""Serialisation of plans: tuples, dicts, arrays, numbers, texts; a reader need not trust it.

Python's own formats are no help here: `marshal` and `pickle` may end the process, or take all of
its memory, over bytes that they did not write; `json` takes longer to import than to read a plan.
"""

import struct
import sys
from functools import cache
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_bytes", "of_bytes", "record_of"]

_Record = TypeVar("_Record", bound=tuple[Any, ...])

_COUNT, _INTEGER, _FLOAT = struct.Struct("<I"), struct.Struct("<q"), struct.Struct("<d")
_ARRAY = struct.Struct("<3sB")  # its type, and how many axes it has
_MOST_DEPTH = 32  # of tuples in each other; a dict counts as three
_TYPES = {np.dtype(each).str.encode(): np.dtype(each) for each in "bBhHiIqQefd"}
_CONSTANTS = {b"N": None, b"T": True, b"F": False}


def as_bytes(value: Any) -> bytes:
    """Tuples of any kind, dicts, arrays, numbers and texts, as `of_bytes` reads them again.

    >>> of_bytes(as_bytes((1, 2.5, None, True, {"a": (3, 4)})))
    (1, 2.5, None, True, {'a': (3, 4)})
    """
    parts: list[bytes] = []
    _append(value, parts.append)
    return b"".join(parts)


def of_bytes(data: bytes) -> Any:
    """The value that `as_bytes` wrote; tuples are plain ones, arrays are read-only.

    Raises
    ------
    ValueError : it wrote something else.
    """
    try:
        value, end = _read(data, 0, 0)
    except (struct.error, IndexError, TypeError, OverflowError) as error:
        raise ValueError(f"not a value: {error}") from None
    if end != len(data):
        raise ValueError("more than one value")
    return value


def record_of(kind: type[_Record], values: Any) -> _Record:
    """A named tuple of what was read, if the types are those of its fields.

    Raises
    ------
    ValueError : it is something else.
    """
    wanted = _types_of(kind)
    if type(values) is not tuple or tuple(map(type, values)) != wanted[0]:
        raise ValueError(f"no {kind.__name__}")
    if wanted[1]:
        values = [
            each if inner is None else record_of(inner, each)
            for each, inner in zip(values, wanted[1], strict=True)
        ]
    made: _Record = kind._make(values)  # type: ignore[attr-defined]
    return made


@cache
def _types_of(kind: Any) -> tuple[tuple[type, ...], list[Any]]:
    """The types of a named tuple's fields, and which of them are named tuples, if any is."""
    names = vars(sys.modules[kind.__module__])
    hints = [
        names.get(getattr(hint, "__forward_arg__", ""), _class_of(hint))
        for hint in kind.__annotations__.values()
    ]
    inner = [hint if hasattr(hint, "_fields") else None for hint in hints]
    found = tuple(tuple if each else hint for hint, each in zip(hints, inner, strict=True))
    return found, inner if any(inner) else []


def _class_of(hint: Any) -> Any:
    """The class behind a hint: from NumPy 2.5 with Python 3.12 on, NDArray is the name of one."""
    origin = getattr(hint, "__origin__", hint)
    named = getattr(origin, "__value__", origin)
    return getattr(named, "__origin__", named)


def _append(value: Any, add: Any) -> None:
    if value is None or value is True or value is False:
        add(b"N" if value is None else b"T" if value else b"F")
    elif isinstance(value, int):
        add(b"i" + _INTEGER.pack(value))
    elif isinstance(value, float):
        add(b"d" + _FLOAT.pack(value))
    elif isinstance(value, str):
        text = value.encode()
        add(b"s" + _COUNT.pack(len(text)) + text)
    elif isinstance(value, np.ndarray):
        name, shape = value.dtype.str.encode(), value.shape
        _TYPES[name]  # what cannot be read is not written
        add(b"a" + _ARRAY.pack(name, len(shape)) + struct.pack(f"<{len(shape)}q", *shape))
        add(value.tobytes())
    elif isinstance(value, dict):
        add(b"m")
        _append(tuple(value.items()), add)
    elif value and all(type(each) is int for each in value):
        add(b"n" + _COUNT.pack(len(value)) + struct.pack(f"<{len(value)}q", *value))
    elif value and all(type(each) is str and "\0" not in each for each in value):
        text = "\0".join(value).encode()
        add(b"l" + _COUNT.pack(len(text)) + text)
    else:
        add(b"t" + _COUNT.pack(len(value)))
        for each in value:
            _append(each, add)


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """A value that begins at some byte, and where it ends."""
    kind, at = data[at : at + 1], at + 1
    if kind == b"n":
        (count,) = _COUNT.unpack_from(data, at)
        at += 4
        if count > len(data) // 8:
            raise ValueError("more numbers than bytes")
        return struct.unpack_from(f"<{count}q", data, at), at + 8 * count
    if kind == b"i":
        return _INTEGER.unpack_from(data, at)[0], at + 8
    if kind in (b"s", b"l"):
        end = at + 4 + _COUNT.unpack_from(data, at)[0]
        if end > len(data):
            raise ValueError("a text ends after the bytes")
        text = data[at + 4 : end].decode()
        return text if kind == b"s" else tuple(text.split("\0")), end
    if kind == b"a":
        return _array(data, at)
    if kind == b"d":
        return _FLOAT.unpack_from(data, at)[0], at + 8
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    if kind not in (b"t", b"m") or depth == _MOST_DEPTH:
        raise ValueError("an unknown kind, or too deep")
    if kind == b"m":
        value, at = _read(data, at, depth + 1)
        return dict(value), at
    (count,) = _COUNT.unpack_from(data, at)
    at, found = at + 4, []
    for _ in range(count):  # each takes a byte at least, so that no count takes long
        value, at = _read(data, at, depth + 1)
        found.append(value)
    return tuple(found), at


def _array(data: bytes, at: int) -> tuple[NDArray[Any], int]:
    """An array whose type begins at some byte, and where it ends."""
    name, axes = _ARRAY.unpack_from(data, at)
    shape = struct.unpack_from(f"<{axes}q", data, at + 4)
    at += 4 + 8 * axes
    dtype = _TYPES.get(name)
    if dtype is None or (axes and min(shape) < 0):
        raise ValueError("an array of another type")
    size = prod(shape)
    end = at + size * dtype.itemsize
    if end > len(data):
        raise ValueError("an array ends after the bytes")
    found = np.frombuffer(data, dtype, size, at).reshape(shape)
    if not found.flags.aligned:  # as machine code reads it
        found = found.copy()
        found.flags.writeable = False
    return found, end
