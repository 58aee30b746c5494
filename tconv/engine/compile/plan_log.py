"""Append-only logs of plans on disk: 256 files, each of which drops its older half when it is full.

Every size of a layer has plans of its own, so a program may ask for many thousands. A file for each
would take a block of the disk, and would have to be removed one by one; a full log is rewritten
with its newest half instead.

A record is a magic word, its key, its length, a checksum of all that, and the plan. The last record
with a key counts. A broken record, as two processes may leave it, is made again.
"""

import os
import struct
from hashlib import sha256

from tconv.engine.compile.disk_cache import (
    Place,
    Unsafe,
    damaged,
    made_place,
    read_entry,
    read_file,
    write_entry,
)

__all__ = ["read_plan", "write_plan"]

_MAGIC = b"tconv plan 1\r\n"
_LENGTH = struct.Struct("<I")
_KEY_AT, _LENGTH_AT, _SUM_AT = len(_MAGIC), len(_MAGIC) + 32, len(_MAGIC) + 36
_DATA_AT = _SUM_AT + 16
_MOST_BYTES = 2**18  # of a file, which takes 30 us to read (Zen 5)
_MOST_PLAN_BYTES = 2**15  # a plan has 4 KB; a larger one has a file of its own


def read_plan(key: str) -> tuple[bytes | None, str]:
    """Return a key's plan, or None and what is wrong with it ("" if there is none)."""
    data, fault = read_file(f"{key[:2]}.plans", 2 * _MOST_BYTES)
    if fault:
        return None, fault
    found = data or b""
    start = found.rfind(_MAGIC + bytes.fromhex(key))
    if start < 0:
        return read_entry(key)
    if start + _DATA_AT > len(found):
        return None, ""
    (length,) = _LENGTH.unpack_from(found, start + _LENGTH_AT)
    record = found[start : start + _DATA_AT + length]
    if len(record) < _DATA_AT + length:  # another process is writing it, or ended while it was
        return None, ""
    if record != _record(key, record[_DATA_AT:]):
        return None, damaged(f"{key[:2]}.plans")
    return record[_DATA_AT:], ""


def write_plan(key: str, data: bytes) -> None:
    """Store a plan under a key; if that fails, do nothing."""
    if len(data) > _MOST_PLAN_BYTES:
        write_entry(key, data)
        return
    try:
        place = made_place()
        if place is not None:
            with place:
                _append(place, f"{key[:2]}.plans", _record(key, data))
    except OSError:  # a full disk, or one that cannot be written
        pass


def _record(key: str, data: bytes) -> bytes:
    start = _MAGIC + bytes.fromhex(key) + _LENGTH.pack(len(data))
    return start + sha256(start + data).digest()[:16] + data


def _append(place: Place, name: str, record: bytes) -> None:
    """Append to a file, in one piece; rewrite it if it is full or unsafe."""
    try:
        file, status = place.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except Unsafe:
        place.replace(name, record)
        return
    try:
        if status.st_size + len(record) <= _MOST_BYTES:
            os.write(file, record)
            return
    finally:
        os.close(file)
    try:
        older = place.read(name, 2 * _MOST_BYTES)[-_MOST_BYTES // 2 :]
    except OSError:  # far too large, or gone
        older = b""
    start = older.find(_MAGIC)  # the first complete one
    place.replace(name, (older[start:] if start >= 0 else b"") + record)
