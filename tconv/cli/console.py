"""Console output: answers on standard output, messages on standard error, places of errors."""

import codecs
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TextIO

from tconv import __version__
from tconv.errors import TConvError
from tconv.tables import Table

if TYPE_CHECKING:
    import rich.console

__all__ = [
    "Answer",
    "at",
    "at_named_argument",
    "in_typed_words",
    "place_of",
    "print_answer",
    "print_lines",
    "replace_unencodable",
]

_SCHEMA = 1
_PLACE = "at: "
# What messages of tconv's functions say to callers in Python, and how it is typed.
_TYPED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\bforce=True", "--every-node"),
    (r"\boverwrite=True", "-f"),
    (r"\bsee_layers\b", "--list"),
    (r"(?<![\w.])(dtype|memory|method|rule)=(['\"])(\w+)\2", r"--\1 \3"),
    (r"(?<![\w.])dtype=(\w+)", r"--dtype \1"),
    (r'\bpadding="(\w+)"', r"-p \1"),
    (r"\bsize=\((\d+),(?: (\d+))?\)", lambda m: f"--size {'x'.join(filter(None, m.groups()))}"),
    (r"(\d+) or \(\1,\)", r"\1"),
    (r"\bor None\b", "or leave it out"),
    (r"\bmust be None\b", "must be left out"),
    # A volume and its weight have one layout.
    (r' \(weight_format="[^"]+"\)', ""),
    (r'\(weight_format="[^"]+", groups=', "(--groups "),
    (r', or weight_format="[^"]+" if [\w ]+', ", or save a weight of axes (C, M, *kernel)"),
    (r', or data_format="\w+" if [\w ]+', ", or save an array of axes (N, C, *cells)"),
    # Arrays of `explain` are typed by rows and channels.
    (r"pass x\[n, c\] and weight\[c, m\], or .*", "write one channel, and with --rank 1 one row"),
    (r"of one channel pass x\[c\] and w\[c, m\]", "write as many rows as --rank 1 or 2 says"),
    (r"pass x\[:(\d+)\] and w\[:\d+, :\d+\]", r"write at most \1 channels of each"),
    (r"pass w\[None\]", "leave --rank 1 out"),
)
# Replacements for terminals and files whose encoding lacks these signs.
_PLAINER = {"×": "x", "–": "-", "→": "->", "≡": "=", "·": "-", "…": "..."}


@dataclass(frozen=True)
class Answer:
    """Answer of a verb: parts for people, the result for JSON, and the exit code.

    ``result`` may hold tuples, NumPy numbers and non-finite floats; `print_answer` converts them.
    If standard output took a file's place, the parts are printed `beside` it, on standard error.
    """

    parts: tuple[str | Table, ...]
    result: Mapping[str, Any]
    code: int = 0
    beside: bool = False


def print_answer(answer: Answer, verb: str, *, as_json: bool, color: str = "auto") -> None:
    """Print an answer on standard output, or beside it.

    On a terminal, and with ``color="always"``, rich prints it if that is installed; without colours
    (``color="never"``, NO_COLOR) it writes no escape sequence. Otherwise it is plain text of its
    natural width, or of that in the environment variable COLUMNS.
    """
    has_table = any(isinstance(part, Table) for part in answer.parts)
    stream = sys.stderr if answer.beside else sys.stdout
    with at("standard error" if answer.beside else "standard output"):
        if as_json:
            whole = {"tconv": __version__, "schema": _SCHEMA, "verb": verb}
            print(json.dumps({**whole, "result": _plain(answer.result)}, allow_nan=False))
        elif has_table and stream is not None and (terminal := _terminal(stream, color)):
            from rich.text import Text

            for n, part in enumerate(answer.parts):
                if n:
                    terminal.print()
                shown = Text(part) if isinstance(part, str) else part
                terminal.print(shown, crop=False, soft_wrap=isinstance(part, str))
        else:
            width = shutil.get_terminal_size(fallback=(0, 0)).columns or None
            parts = (p.plain(width) if isinstance(p, Table) else p for p in answer.parts)
            print("\n\n".join(parts), file=stream)
        if stream is not None:
            stream.flush()


def print_lines(*lines: str) -> None:
    """Print lines on standard error."""
    if sys.stderr is not None:
        print(*lines, sep="\n", file=sys.stderr, flush=True)


@contextmanager
def at(place: str) -> Iterator[None]:
    """Add a place to an error raised within; the innermost place counts.

    >>> try:
    ...     with at("file 'x.npy'"), at("array 'x'"):
    ...         raise ValueError
    ... except ValueError as error:
    ...     print(place_of(error))
    array 'x'
    """
    try:
        yield
    except Exception as error:
        if place_of(error) is None:
            error.add_note(_PLACE + place)
        raise


@contextmanager
def at_named_argument(places: Mapping[str, str]) -> Iterator[None]:
    """Add the place of the argument whose name begins the message of a tconv error.

    >>> try:
    ...     with at_named_argument({"size": "option --size"}):
    ...         raise TConvError("size=0 must be positive")
    ... except TConvError as error:
    ...     print(place_of(error))
    option --size
    """
    try:
        yield
    except TConvError as error:
        word = re.split(r"\W", str(error), maxsplit=1)[0]
        if word not in places:
            raise
        with at(places[word]):
            raise


def in_typed_words(text: str, *, is_advice: bool = False) -> str:
    """A message of a function of tconv for those who typed a command: options, not arguments.

    >>> in_typed_words("use rule='gradient', or a layer below it (see_layers shows which)")
    'use --rule gradient, or a layer below it (--list shows which)'
    >>> in_typed_words("pass 1 or (1, 1, 1)", is_advice=True)
    'pass 1 or 1,1,1'
    """
    for pattern, typed in _TYPED:
        text = re.sub(pattern, typed, text)
    if is_advice:
        text = re.sub(r"\((-?\d+(?:, -?\d+)+)\)", lambda m: m[1].replace(" ", ""), text)
    return text


def place_of(error: BaseException) -> str | None:
    """Return the place that `at` has added to an error, or None."""
    notes = getattr(error, "__notes__", [])
    return next((note[len(_PLACE) :] for note in notes if note.startswith(_PLACE)), None)


def replace_unencodable(stream: TextIO | None) -> None:
    """Let a stream replace signs that its encoding lacks, and not fail."""
    codecs.register_error("tconv", _replace)
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors="tconv")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAINER.get(sign, "?") for sign in signs), error.end


def _terminal(stream: TextIO, color: str) -> "rich.console.Console | None":
    """Return a console of rich, or None if rich is missing or the output is plain text."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    # None lets rich decide by the stream, NO_COLOR and FORCE_COLOR.
    forced = {"always": True, "never": getattr(stream, "isatty", bool)()}.get(color)
    no_color = {"always": False, "never": True}.get(color)
    console = Console(file=stream, force_terminal=forced, no_color=no_color, highlight=False)
    if console.no_color:  # without a colour system rich leaves out bold as well
        console = Console(file=stream, force_terminal=forced, color_system=None, highlight=False)
    return console if console.is_terminal else None


def _plain(value: Any) -> Any:
    """Convert to JSON's types: NaN becomes null, infinities become strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not isfinite(value):
        return None if value != value else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
