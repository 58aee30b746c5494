"""Object files: their symbols, and the checks that LLVM's loader leaves out.

llvmlite does not list the symbols of an object, and LLVM ends the process when it loads an object
with an undefined symbol, for another machine, or with parts missing. This module finds all of that
before.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Symbols", "check_object", "symbols"]

# Tables of addresses, which the loader makes itself.
_HARMLESS = frozenset(("_GLOBAL_OFFSET_TABLE_", ".TOC."))


class Symbols(NamedTuple):
    """The external symbols of an object."""

    defined: frozenset[str]
    undefined: frozenset[str]


class _Elf(NamedTuple):
    """The formats of one of the two widths of an ELF file."""

    header: str  # -> offset of the section headers, their size, their number
    section: str  # -> type, offset, size, index of its strings
    symbol: str
    symbol_fields: tuple[int, int, int]  # which of its fields are name, info and section


_ELF = {
    1: _Elf("32xI10xHH", "4xI8xIII", "IIIBBH", (0, 3, 5)),
    2: _Elf("40xQ10xHH", "4xI16xQQI", "IBBHQQ", (0, 1, 3)),
}
_SYMBOL_TABLE = 2  # SHT_SYMTAB, and LC_SYMTAB of Mach-O
_MACH_O_64 = b"\xcf\xfa\xed\xfe"

# Numbers of architectures, and types of relocations that LLVM writes for kernels and can load (the
# supplements of the System V ABI; LLVM, RuntimeDyldELF.cpp).
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243, "powerpc64le": 21, "s390x": 22}
_WRITTEN = {
    "x86_64": frozenset((1, 2, 4, 10, 11, 24)),
    "aarch64": frozenset((257, 260, 261, *range(263, 270), *range(274, 287), 299)),
}
_LONG = frozenset((1, 24, 257, 260))  # of eight bytes
_MACH_O_MACHINES = {"x86_64": 0x01000007, "aarch64": 0x0100000C}
_RELOCATABLE = 1  # ET_REL, and MH_OBJECT of Mach-O
_ALLOCATED, _CONTENT, _RELOCATIONS = 2, 1, 4  # SHF_ALLOC, SHT_PROGBITS, SHT_RELA
_KINDS = frozenset((0, _CONTENT, _SYMBOL_TABLE, 3, _RELOCATIONS, 7, 0x70000001, 0x6FFF4C03))
_SEGMENT, _ZEROS = 0x19, (1, 12, 18)  # LC_SEGMENT_64, and sections that have no bytes in the file
_MOST_ALIGNMENT = 2**12


def symbols(data: bytes) -> Symbols:
    """Return the external symbols of an object.

    COFF is missing because LLVM's loader takes ELF on Windows too.

    Raises
    ------
    ValueError : this is no complete ELF or 64-bit Mach-O object.

    References
    ----------
    System V ABI, chapter 4 (object files); Apple, <mach-o/loader.h> and <mach-o/nlist.h>.
    """
    read = {b"\x7fELF": _elf, _MACH_O_64: _mach_o}.get(data[:4])
    if read is None:
        raise ValueError("not an ELF or Mach-O object")
    try:
        found = list(read(data))
    except (struct.error, IndexError, KeyError, OverflowError, UnicodeError) as error:
        raise ValueError(f"not a complete object: {error}") from None
    return Symbols(
        frozenset(name for name, is_defined in found if is_defined),
        frozenset(name for name, is_defined in found if not is_defined) - _HARMLESS,
    )


def check_object(data: bytes, architecture: str, *, is_apple: bool = False) -> None:
    """Raise for an object over which LLVM would end the process.

    Parameters
    ----------
    data : an object.
    architecture : the first part of the machine's LLVM triple. Relocations are checked for x86-64
        and AArch64.
    is_apple : whether the system is one of Apple's, whose objects are Mach-O.

    Raises
    ------
    ValueError : it is for another machine, or refers to something that is not in it.
    """
    magic, check = (_MACH_O_64, _check_mach_o) if is_apple else (b"\x7fELF", _check_elf)
    if data[:4] != magic:
        raise ValueError("not an object of this system")
    try:
        check(data, architecture)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"not a complete object: {error}") from None


def _check_elf(data: bytes, architecture: str) -> None:
    kind, machine = struct.unpack_from(">HH" if data[5] == 2 else "<HH", data, 16)
    if kind != _RELOCATABLE or machine != _ELF_MACHINES.get(architecture, machine):
        raise ValueError("an object for another machine")
    written = _WRITTEN.get(architecture)
    if written is None:
        return
    if data[4:6] != b"\2\1":
        raise ValueError("an object of another width or order of bytes")
    start, step, count, names = struct.unpack_from("<40xQ10xHHH", data)
    if step != 64 or names >= count:
        raise IndexError("a header of another size")
    sections = [struct.unpack_from("<4xIQ8xQQIIQQ", data, start + i * step) for i in range(count)]
    tables = [section for section in sections if section[0] == _SYMBOL_TABLE]
    if len(tables) != 1 or tables[0][7] != 24:
        raise IndexError("not one table of symbols")
    for kind, _, offset, size, link, info, align, step in sections:
        _part(data, offset, size)
        if kind not in _KINDS or link >= count or align & (align - 1) or align > _MOST_ALIGNMENT:
            raise IndexError("an unknown section")
        if kind == _RELOCATIONS:
            if step != 24 or info >= count or sections[link] is not tables[0]:
                raise IndexError("addresses of no section")
            for place, how, symbol, _ in struct.iter_unpack("<QIIq", data[offset : offset + size]):
                end = place + (8 if how in _LONG else 4)
                if how not in written or end > sections[info][3] or 24 * symbol >= tables[0][3]:
                    raise IndexError("an address that is not in its section")
    for _, _, _, section, value, size in struct.iter_unpack(
        "<IBBHQQ", _part(data, tables[0][2], tables[0][3])
    ):
        is_place = 0 < section < 0xFF00  # others are absolute, or not here
        if is_place and (section >= count or value + size > sections[section][3]):
            raise IndexError("a symbol that is not in its section")


def _check_mach_o(data: bytes, architecture: str) -> None:
    machine, kind, count = struct.unpack_from("<4xI4xII", data)
    if kind != _RELOCATABLE or machine != _MACH_O_MACHINES.get(architecture):
        raise ValueError("an object for another machine")
    at = 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        if size < 8:
            raise IndexError("a load command without end")
        if command == _SEGMENT:
            (sections,) = struct.unpack_from("<64xI", data, at)
            for n in range(sections):
                length, offset, align, first, number, flags = struct.unpack_from(
                    "<40xQIIIII", data, at + 72 + 80 * n
                )
                _part(data, offset, length)
                _part(data, first, 8 * number)
                if flags & 0xFF in _ZEROS or align > 12:
                    raise IndexError("an unknown section")
        at += size


def _elf(data: bytes) -> Iterator[tuple[str, bool]]:
    """Yield the global and weak symbols of an ELF file, and whether it defines them."""
    width, order = _ELF[data[4]], {1: "<", 2: ">"}[data[5]]
    start, step, count = struct.unpack_from(order + width.header, data)
    sections = [
        struct.unpack_from(order + width.section, data, start + i * step) for i in range(count)
    ]
    for kind, offset, size, strings in sections:
        if kind == _SYMBOL_TABLE:
            table = _part(data, offset, size)
            names = _part(data, *sections[strings][1:3])
            for symbol in struct.iter_unpack(order + width.symbol, table):
                name, info, section = (symbol[field] for field in width.symbol_fields)
                if info >> 4:  # STB_LOCAL is 0
                    yield _text(names, name), section != 0


def _mach_o(data: bytes) -> Iterator[tuple[str, bool]]:
    """Yield the external symbols of a 64-bit Mach-O file, and whether it defines them."""
    at = 32
    for _ in range(struct.unpack_from("<16xI", data)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if size < 8:
            raise IndexError("a load command without end")
        if command == _SYMBOL_TABLE:
            first, count, names, length = struct.unpack_from("<8xIIII", data, at)
            strings = _part(data, names, length)
            for name, kind, *_ in struct.iter_unpack("<IBBHQ", _part(data, first, 16 * count)):
                if kind & 0x01 and not kind & 0xE0:  # N_EXT, and no entry for a debugger
                    yield _text(strings, name).removeprefix("_"), kind & 0x0E != 0
        at += size


def _part(data: bytes, offset: int, size: int) -> bytes:
    """Return a part of the file; all of it must exist."""
    if offset + size > len(data):
        raise IndexError("a table ends after the file")
    return data[offset : offset + size]


def _text(strings: bytes, at: int) -> str:
    """Return a string of a table of zero-terminated strings."""
    end = strings.find(b"\0", at)
    if end < 0:
        raise IndexError("a name ends after its table")
    return strings[at:end].decode()
