"""Command line: `main` runs a verb, prints its answer or an error, and returns the exit code.

Exit codes: 0 success; 1 success with a negative result: no settings fit, or a difference is above
its limit; 2 an error of usage, files or models; 101 a bug in tconv; 130 interrupted.
"""

import errno
import os
import shlex
import sys
import traceback
import warnings
from argparse import ArgumentParser
from contextlib import suppress
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from platform import python_version
from shutil import get_terminal_size
from textwrap import wrap
from typing import TextIO

from tconv import __version__
from tconv.cli.console import (
    in_typed_words,
    place_of,
    print_answer,
    print_lines,
    replace_unencodable,
)
from tconv.cli.options import VERBS, UsageError, closest, parser_of
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ModelError,
    OutputSizeError,
    ParameterError,
    RuleError,
    ShapeError,
    TConvError,
    UnsupportedError,
)
from tconv.system.files import check_regular

__all__ = ["main"]

_CODES: tuple[tuple[type[Exception], str], ...] = (  # the first match counts
    (UsageError, "usage"),
    (OutputSizeError, "output-size"),
    (ShapeError, "shape"),
    (ParameterError, "parameter"),
    (DTypeError, "dtype"),
    (MemoryLimitError, "memory"),
    (RuleError, "rule-activation"),
    (UnsupportedError, "unsupported"),
    (ModelError, "model"),
    (TConvError, "parameter"),
    (MemoryError, "memory"),
    (ImportError, "missing-extra"),
    (OSError, "file"),
)
_BUG = 101
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the verb that the arguments name and return the exit code.

    Parameters
    ----------
    arguments : list of str, the words after ``tconv``; None takes them from `sys.argv`

    >>> main(["shape", "64", "--to", "128", "--limit", "2"])
    k  s  p  op  taps/phase  overlap  note
    2  2  0   0  1           even     no overlap (≡ 1×1 conv + pixel shuffle)
    4  2  1   0  2           even     common choice; bilinear fits
    0
    """
    words = sys.argv[1:] if arguments is None else arguments
    replace_unencodable(sys.stdout)
    replace_unencodable(sys.stderr)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = _answer(words)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except BrokenPipeError:
        _drop_standard_output()
        return 0
    except KeyboardInterrupt as error:
        print_lines(str(error) or "interrupted")
        return _INTERRUPTED
    except SystemExit as end:  # from argparse, after --help
        return end.code if isinstance(end.code, int) else 0
    except Exception as error:
        code, lines = _message(error, shlex.join(["tconv", *words]))
        with suppress(OSError):
            if "--debug" in words:
                print_lines(traceback.format_exc().rstrip())
            print_lines(*lines)
        return code


def _answer(words: list[str]) -> int:
    verb, *rest = words or [""]
    if verb in ("-h", "--help", "help"):
        _print_help(rest if verb == "help" else [])
        return 0
    if verb in ("-V", "--version"):
        print(f"tconv {__version__}")
        return 0
    if not verb:
        print_lines(_help())
        return 2
    options = _parser(verb, words).parse_args(rest)
    model = getattr(options, "model", None)
    if model and os.path.exists(model):  # the verb itself reports a missing file
        check_regular(model)
    if any(word.endswith("-") for word in words):  # standard input or output
        import_module("tconv.cli.standard_streams").check_dashes(verb, options)
    answer = import_module(f"tconv.cli.{verb}").answer(options)
    print_answer(answer, verb, as_json=options.json, color=options.color)
    code: int = answer.code
    return code


def _parser(verb: str, words: list[str]) -> ArgumentParser:
    """Return the parser of a verb that was typed in `words`."""
    if verb in VERBS:
        return parser_of(verb)
    close = closest(verb, [*VERBS, "help"])
    fix = f"did you mean tconv {close}?" if close else "tconv --help lists the verbs"
    if verb.startswith("-"):
        fix = "write the verb first, as in tconv shape 64 -k 4 -s 2"
    raise UsageError(f"there is no verb {verb!r}", shlex.join(["tconv", *words]), fix)


def _print_help(rest: list[str]) -> None:
    """Print the help of all verbs, or of the one that follows ``tconv help``."""
    verb, *more = [word for word in rest if word not in ("-h", "--help")] or ["help"]
    if more:
        raise UsageError(
            f"{more[0]!r} is one argument too many", "tconv help", "name one verb, or none"
        )
    words = ["help", *rest]
    print(_help() if verb == "help" else _parser(verb, words).format_help().rstrip("\n"))


def _help() -> str:
    width = get_terminal_size().columns
    rows = [(name, verb.summary) for name, verb in VERBS.items()]
    rows.append(("help VERB", "show the options of a verb, as does tconv VERB --help"))
    options = [("-h, --help", "show this help"), ("-V, --version", "show the version")]
    parts = (
        "usage: tconv VERB ...",
        "\n".join(wrap("Transposed convolution: what fits, and what a model does with it.", width)),
        "\n".join(["verbs:", *(_entry(*row, width) for row in rows)]),
        "\n".join(["options:", *(_entry(*row, width) for row in options)]),
    )
    return "\n\n".join(parts)


def _entry(name: str, text: str, width: int) -> str:
    """One entry of a list in the help, in lines of at most `width`."""
    lines = wrap(text, max(width - 18, 16), break_long_words=False)
    return "\n".join(
        f"  {head:<15} {line}" for head, line in zip_longest([name], lines, fillvalue="")
    )


# ---- errors --------------------------------------------------------------------------------------


def _message(error: Exception, typed: str) -> tuple[int, tuple[str, str, str]]:
    """Return the exit code and three lines: what is wrong, where, and what to do."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "")
    if isinstance(error, UsageError):
        what, place, fix = error.message, error.at, error.fix
    elif not code:
        what = f"{type(error).__name__}: {error} (tconv {__version__}, Python {python_version()})"
        place = typed
        fix = "this is a bug in tconv; run again with --debug and file an issue with the output"
    else:
        place = place_of(error) or _file_of(error) or typed
        what, fix = _split(error)
        what, fix = in_typed_words(what), in_typed_words(fix, is_advice=True)
    first = f"error[{code or 'internal'}]: {_one_line(what)}"
    lines = (first, f"  at: {_one_line(place)}", f"  help: {_one_line(fix)}")
    return 2 if code else _BUG, lines


def _split(error: Exception) -> tuple[str, str]:
    """Split a message into what is wrong and what to do."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, _file_fix(error)
    if isinstance(error, ImportError) and ": pip install " in text:
        what, _, fix = text.partition(": pip install ")
        return what, f"pip install {fix.removesuffix('.')}"
    what, semicolon, fix = text.rpartition("; ")
    if semicolon:
        return what, fix.removesuffix(".")
    fixes: dict[type[Exception], str] = {
        MemoryError: "free some memory, or ask for less at a time",
        ImportError: "install that package again; tconv info lists what is there",
        OSError: "check that file; it may be damaged or incomplete",
    }
    fix = next((fix for kind, fix in fixes.items() if isinstance(error, kind)), "")
    what = text.removesuffix(".") or "there is not enough memory"
    return what, fix or "run again with --debug to see where this arose"


def _file_of(error: Exception) -> str | None:
    name = getattr(error, "filename", None)
    return f"file {os.fspath(name)!r}" if isinstance(name, str | os.PathLike) else None


def _file_fix(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "make room there, or choose another place"
    if isinstance(error, PermissionError):
        return "change its permissions, or choose another file"
    if isinstance(error, IsADirectoryError):
        return "name a file, not a folder"
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter name"
    if error.errno == errno.EROFS:
        return "choose another folder"
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        path = Path(error.filename)
        with suppress(OSError):
            close = closest(path.name, os.listdir(path.parent), 0.8)
            if close:
                return f"did you mean {str(path.with_name(close))!r}?"
        return "check the path"
    return "check that file and the disk it is on"


def _one_line(text: str) -> str:
    """Join lines, and escape control characters, which names in files may contain."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print_lines(f"warning: {_one_line(str(message))}")


def _drop_standard_output() -> None:
    """Redirect standard output, so that Python's final flush to a closed pipe does not fail."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
