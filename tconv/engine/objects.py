"""WHAT AN OBJECT FILE NAMES: the functions it defines, and those it expects from elsewhere.

llvmlite does not list the symbols of an object, and LLVM ends the process when it is asked to load
one that needs a symbol nobody has. So they are read here, before.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Symbols", "symbols", "undefined_symbols"]

# Tables of addresses, which the loader itself makes where it is told to use them.
_HARMLESS = frozenset(("_GLOBAL_OFFSET_TABLE_", ".TOC."))


class Symbols(NamedTuple):
    """The names that an object shows to other objects."""

    defined: frozenset[str]
    undefined: frozenset[str]


class _Elf(NamedTuple):
    """Where the fields stand in one of the two widths of an ELF file."""

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


def undefined_symbols(data: bytes) -> frozenset[str]:
    """Return what an object expects from elsewhere: calls that nothing could answer.

    Raises
    ------
    ValueError : this is no complete ELF or 64-bit Mach-O object.
    """
    return symbols(data).undefined


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
    """Return a part of the file, all of which must be there."""
    if offset + size > len(data):
        raise IndexError("a table ends after the file")
    return data[offset : offset + size]


def _text(strings: bytes, at: int) -> str:
    """Return one string of a table of strings that end with a zero."""
    end = strings.find(b"\0", at)
    if end < 0:
        raise IndexError("a name ends after its table")
    return strings[at:end].decode()
