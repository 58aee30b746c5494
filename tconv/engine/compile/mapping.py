"""HOW OBJECT FILES BECOME CALLABLE without LLVM, where they are simple: on Linux, for x86-64.

LLVM takes 1.5 ms to begin and 0.2 for each object, which here takes 0.1 (Zen 3). What LLVM makes
of kernels is code that is in one piece, and constants whose addresses are written into it. What is
anything else, or for another system, is left to LLVM.
"""

import ctypes
import mmap
import os
import struct
import sys
from functools import cache
from typing import Any

__all__ = ["mapped"]

_IS_HERE = sys.platform == "linux" and os.uname().machine == "x86_64" and sys.maxsize > 2**32
_IDENTITY, _KIND = b"\x7fELF\x02\x01\x01", b"\x01\x00\x3e\x00"  # 64 bits, ET_REL, EM_X86_64
_HEADER = struct.Struct("<40xQ10xHH")  # -> offset of the section headers, their size, their number
_SECTION = struct.Struct("<4xIQ8xQQIIQ8x")  # -> type, flags, offset, size, link, info, alignment
_SYMBOL = struct.Struct("<IBBHQQ")  # -> name, binding and type, visibility, section, value, size
_RELOCATION = struct.Struct("<QIIq")  # -> offset, type, symbol, addend
_CONTENT, _SYMBOLS, _RELOCATIONS, _UNWINDING = 1, 2, 4, 0x70000001  # types of sections
_ALLOCATED, _READ_ONLY = 2, 0x10000016  # flags: SHF_ALLOC; those besides that change nothing here
_ADDRESS = 1  # R_X86_64_64, of 8 bytes
_FAILED = 2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1


class _Unknown(Exception):
    """Something that LLVM knows how to treat."""


def mapped(data: bytes) -> dict[str, int] | None:
    """Put code where it can run; return the addresses of what it shows, None if LLVM must do that.

    It stays there until the process ends.

    References
    ----------
    System V ABI, chapter 4, and its AMD64 supplement, section 4.4 (relocations).
    """
    if not _IS_HERE or data[:7] != _IDENTITY or data[16:20] != _KIND:
        return None
    try:
        return _mapped(data)
    except (_Unknown, struct.error, IndexError, OSError, OverflowError, UnicodeError, ValueError):
        return None


def _mapped(data: bytes) -> dict[str, int]:
    start, step, count = _HEADER.unpack_from(data)
    sections = [_SECTION.unpack_from(data, start + n * step) for n in range(count)]
    starts, image = _end_to_end(data, sections)
    (table,) = (section for section in sections if section[0] == _SYMBOLS)
    symbols = [*_SYMBOL.iter_unpack(_part(data, *table[2:4]))]
    names = _part(data, *sections[table[4]][2:4])
    shown = {}
    for name, binding, _, section, value, _ in symbols:
        if binding >> 4:  # STB_LOCAL is 0
            text = names[name : names.index(b"\0", name)].decode()
            shown[text] = _within(image, _start(starts, section) + value)
    words = []  # where there is an address, and of what
    for kind, _, offset, size, _, written, _ in sections:
        if kind == _RELOCATIONS and written in starts:
            for place, how, symbol, addend in _RELOCATION.iter_unpack(_part(data, offset, size)):
                if how != _ADDRESS:
                    raise _Unknown
                _, _, _, section, value, _ = symbols[symbol]
                if place + 8 > sections[written][3]:
                    raise _Unknown
                to = _within(image, _start(starts, section) + value + addend)
                words.append((starts[written] + place, to))
    base = _filled(image, words)
    return {name: base + place for name, place in shown.items()}


def _end_to_end(data: bytes, sections: list[Any]) -> tuple[dict[int, int], bytearray]:
    """Where in memory the parts of a program begin, by number of section, and all of them."""
    starts, image = {}, bytearray()
    for n, (kind, flags, offset, size, _, _, align) in enumerate(sections):
        if flags & _ALLOCATED and kind != _UNWINDING:  # nothing is thrown through a kernel
            if kind != _CONTENT or flags & ~_READ_ONLY or align > mmap.PAGESIZE:
                raise _Unknown
            image += bytes(-len(image) % (align or 1))
            starts[n] = len(image)
            image += _part(data, offset, size)
            if len(image) > len(data) + len(starts) * mmap.PAGESIZE:
                raise _Unknown  # parts that are the same bytes of the file
    return starts, image


def _within(image: bytearray, place: int) -> int:
    """Return a place, which must be in the program."""
    if not 0 <= place < len(image):
        raise _Unknown
    return place


def _start(starts: dict[int, int], section: int) -> int:
    """Where a symbol's section begins; what is not defined here has none."""
    if section not in starts:
        raise _Unknown
    return starts[section]


def _filled(image: bytearray, words: list[tuple[int, int]]) -> int:
    """Map memory, write the image and the addresses in it, and make it executable."""
    system = _system()
    size = -(-len(image) // mmap.PAGESIZE) * mmap.PAGESIZE
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    base = system.mmap(None, size, writable, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if base in (None, _FAILED):
        raise _Unknown
    for place, target in words:
        struct.pack_into("<Q", image, place, base + target)
    ctypes.memmove(base, bytes(image), len(image))
    if system.mprotect(base, size, mmap.PROT_READ | mmap.PROT_EXEC):
        system.munmap(base, size)
        raise _Unknown
    return int(base)


@cache
def _system() -> Any:
    """Functions of the C library; Python's own `mmap` unmaps at exit, when threads still run."""
    system = ctypes.CDLL(None)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    system.mmap.restype = pointer
    system.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_int64)
    system.mprotect.argtypes = (pointer, size, number)
    system.munmap.argtypes = (pointer, size)
    return system


def _part(data: bytes, offset: int, size: int) -> bytes:
    """Return a part of the file, all of which must be there."""
    if offset + size > len(data):
        raise _Unknown
    return data[offset : offset + size]
