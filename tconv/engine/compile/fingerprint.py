"""Fingerprint of the sources that plans and kernels follow from.

It is part of every key of the disk cache, so that no process reads what other sources wrote.
It covers all modules below FOLDERS, and FILES beside them: a test follows the imports of
everything in engine/ and geometry/ and finds each of them here. Sources are read as they lie: in
folders, `.py` or, where these were removed, `.pyc`; in a zip; and in a program that PyInstaller or
its like has frozen, which has neither, as code objects.
"""

import marshal
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib import import_module
from types import CodeType
from typing import Any

from tconv.system.fork_lock import importing

__all__ = ["FILES", "FOLDERS", "fingerprint", "of_archive", "of_code", "of_folder"]

FOLDERS = ("engine", "geometry", "arrays", "system")
FILES = ("errors", "foreign_names", "messages", "signatures")
_STARTS = "tconv.engine", "tconv.engine.content_hash"  # which the engine itself does not import
_SUFFIXES = (".py", ".pyc")
_READ_BYTES = 2**16  # at a time: more than a file has, and less than the C library maps anew


@cache
def fingerprint() -> str:
    """Return the fingerprint of this program's sources."""
    package: Any = import_module("tconv")
    folder = package.__path__[0]
    if os.path.isdir(f"{folder}/{FOLDERS[0]}"):
        return of_folder(folder)
    archive = getattr(package.__spec__.loader, "archive", None)
    if archive is not None:
        return of_archive(archive, os.path.relpath(folder, archive).replace(os.sep, "/"))
    return of_code(*_STARTS) or _of_program(package.__version__)


def of_folder(folder: str) -> str:
    """Return the fingerprint of a package whose modules are files."""
    found = sha256()
    for name in sorted(_files(folder)):
        file = os.open(f"{folder}/{name}", os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            parts: list[bytes] = []
            while not parts or len(parts[-1]) == _READ_BYTES:
                parts.append(os.read(file, _READ_BYTES))
        finally:
            os.close(file)
        _add(found, name, b"".join(parts))
    return found.hexdigest()


def _files(folder: str) -> Iterator[str]:
    """Names, below a package's folder, of the files that are covered."""
    yield from (name + end for name in FILES for end in _SUFFIXES if _exists(folder, name + end))
    folders = [*FOLDERS]
    for below in folders:  # which grows meanwhile
        with os.scandir(f"{folder}/{below}") as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(_SUFFIXES):
                    yield f"{below}/{name}"
                elif "." not in name and name != "__pycache__" and entry.is_dir():
                    folders.append(f"{below}/{name}")


def _exists(folder: str, name: str) -> bool:
    return os.path.exists(f"{folder}/{name}")


def of_archive(archive: str, folder: str) -> str:
    """Return the fingerprint of a package in a folder of a zip."""
    with importing:  # few need it
        from zipfile import ZipFile

    found = sha256()
    with ZipFile(archive) as opened:
        for path in sorted(opened.namelist()):
            name = path.removeprefix(f"{folder}/")
            top, is_below, _ = name.partition("/")
            if name.endswith(_SUFFIXES) and (
                top in FOLDERS if is_below else os.path.splitext(name)[0] in FILES
            ):
                _add(found, name, opened.read(path))
    return found.hexdigest()


def of_code(*starts: str) -> str:
    """Return the fingerprint of modules' code, and of all that they import of their package.

    Modules are found by their names in the code, those that a function imports among them: a
    frozen program has no list of its modules. Returns "" if the code of one is not to be had.
    """
    root = starts[0].partition(".")[0]
    found, seen, waiting = sha256(), {root}, [*starts]
    while waiting:
        module = waiting.pop()
        spec = None if module in seen else _spec_of(module)
        seen.add(module)
        if spec is None:
            continue
        try:
            code = spec.loader.get_code(module)
        except (ImportError, AttributeError):
            code = None
        if code is None:
            return ""
        _add(found, module, b"")
        names = sorted(set(_add_code(found, code)))
        for name in names:
            if name.startswith(f"{root}."):
                waiting.append(name)
                of_name = _spec_of(name)
                if of_name is not None and of_name.submodule_search_locations is not None:
                    waiting += [f"{name}.{each}" for each in names if each.islower()]
    return found.hexdigest()


@cache
def _spec_of(module: str) -> Any:
    """How a module is found; None if it is none, but a name in one."""
    with importing:
        from importlib.util import find_spec

        try:
            return find_spec(module)
        except (ImportError, ValueError):
            return None


def _add(found: Any, name: str, data: bytes) -> None:
    """Add a file; the lengths keep it apart from the next one."""
    found.update(f"{name} {len(data)}\n".encode())
    found.update(data)


def _add_code(found: Any, code: CodeType) -> Iterator[str]:
    """Add a code object, without the paths that a loader may write into it; yield its names."""
    yield from code.co_names
    constants = [each for each in code.co_consts if not isinstance(each, CodeType)]
    facts = code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    sizes = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    # Version 2 of the format says the same for equal constants, whoever else refers to them.
    data = marshal.dumps((facts, sizes, constants, code.co_exceptiontable), 2)
    _add(found, "", data + code.co_code)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _add_code(found, inner)


def _of_program(version: str) -> str:
    """Return the fingerprint of a program that shows no code: its version, and its file's state."""
    facts: list[Any] = [version, sys.executable]
    with suppress(OSError, TypeError):  # one that is embedded in another may have no file
        status = os.stat(sys.executable)
        facts += [status.st_size, status.st_mtime_ns]
    return sha256(repr(facts).encode()).hexdigest()
