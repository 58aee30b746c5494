"""Standard input and output in place of files, written as ``-``."""

import sys
from argparse import Namespace
from collections.abc import Iterable
from io import BytesIO
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tconv.cli.console import at
from tconv.cli.options import FILES, UsageError
from tconv.system.files import regular_file
from tconv.system.memory import check_room

__all__ = ["DASH", "check_dashes", "opened", "place_of_file", "write_bytes", "write_npy"]

DASH = "-"
_MAGIC = b"\x93NUMPY"
_PIECE_BYTES = 2**22

_INPUTS = {"run": ("inputs", "weight", "bias")}  # by verb, as parsed options name them
_OUTPUTS = {"run": ("output",), "explain": ("output",)}


def check_dashes(verb: str, options: Namespace) -> None:
    """Refuse ``-`` where a file is needed, and where two would share a stream.

    >>> check_dashes("see", Namespace(model="m.onnx", images=["-"]))
    Traceback (most recent call last):
    ...
    tconv.cli.parser.UsageError: ('IMAGE cannot be standard input', 'tconv see', 'name a file')
    """
    is_volume = getattr(options, "volume", None) is not None
    read = 0
    for name, typed in FILES.items():
        count = _dashes(getattr(options, name, None))
        fits = name in (*_INPUTS.get(verb, ()), *_OUTPUTS.get(verb, ()))
        if name == "output" and is_volume:
            fits = False
        if count and not fits:
            stream = "output" if name == "output" else "input"
            raise UsageError(f"{typed} cannot be standard {stream}", f"tconv {verb}", "name a file")
        read += count if name != "output" else 0
    if read > 1:
        raise UsageError(
            f"standard input is given {read} times, and can be read once",
            f"tconv {verb}",
            "name files for the others",
        )
    if _dashes(getattr(options, "output", None)):
        if options.json:
            raise UsageError(
                "-o - and --json both write to standard output",
                "option -o/--output",
                "name a file, or leave --json out",
            )
        if sys.stdout is not None and sys.stdout.isatty():
            raise UsageError(
                "standard output is a terminal",
                "option -o/--output",
                "send it on by | or >, or name a file",
            )


def _dashes(value: Any) -> int:
    words: Iterable[Any] = value if isinstance(value, list) else (value,)
    return sum(isinstance(word, str) and (word == DASH or word.endswith("=-")) for word in words)


def place_of_file(path: str) -> str:
    """Name a file for a message.

    >>> place_of_file("-"), place_of_file("x.npy")
    ('standard input', "file 'x.npy'")
    """
    return "standard input" if path == DASH else f"file {path!r}"


def opened(path: str) -> BinaryIO:
    """Open a regular file, or read an .npy from standard input into memory.

    Raises
    ------
    OSError : the file cannot be opened, or standard input gives no .npy
    MemoryLimitError : standard input gives more than there is memory for
    """
    if path != DASH:
        return regular_file(path)
    stream = None if sys.stdin is None else sys.stdin.buffer
    if stream is None or stream.isatty():
        raise OSError("standard input is a terminal; send an .npy into it, as in < x.npy.")
    found = BytesIO()
    while piece := stream.read(_PIECE_BYTES):
        if not found.tell() and not piece.startswith(_MAGIC):
            raise OSError(
                "standard input gives no .npy; name a file, which may be of another kind."
            )
        found.write(piece)
        check_room("standard input", 2 * found.tell())  # once more as an array
    if not found.tell():
        raise OSError("standard input is empty; send an .npy into it, as in < x.npy.")
    found.seek(0)
    return found


def write_npy(array: NDArray[Any]) -> None:
    """Write an array to standard output as an .npy file."""
    # To NumPy this is no file: it would ask a pipe for its position.
    stream: Any = SimpleNamespace(write=write_bytes)
    np.lib.format.write_array(stream, array, allow_pickle=False)


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output."""
    with at("standard output"):
        if sys.stdout is None:
            raise OSError("standard output is closed; name a file.")
        sys.stdout.buffer.write(data)
