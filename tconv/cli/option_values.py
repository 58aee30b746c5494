"""Readers of option values: sizes, paddings, counts, numbers, and words of a list."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from tconv.cli.parser import closest

__all__ = [
    "Choice",
    "Sizes",
    "auto_or_sizes",
    "count",
    "index",
    "number",
    "numbers",
    "one_of",
    "paddings",
    "places",
    "sizes",
    "sizes_or_numbers",
]

Sizes = tuple[int, ...]
"""One number for all axes, or one per axis."""

Paddings = str | tuple[int | tuple[int, int], ...]


@dataclass(frozen=True)
class Choice:
    """The reader of an option that takes one of some words.

    >>> Choice(("bash", "zsh"))("zsh")
    'zsh'
    """

    names: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """Return the word that was typed, if it is one of them."""
        if text not in self.names:
            close = closest(text, list(self.names))
            fix = f"did you mean {close}?" if close else "write one of these"
            raise ArgumentTypeError(f"must be one of {', '.join(self.names)}, not {text!r}; {fix}")
        return text


def sizes(text: str) -> Sizes:
    """Read one size, or one per axis.

    >>> sizes("64"), sizes("64x48"), sizes("4,3")
    ((64,), (64, 48), (4, 3))
    """
    try:
        return tuple(map(int, re.split("[x,×]", text)))
    except ValueError:
        raise ArgumentTypeError(
            f"must be a whole number or one per axis, not {text!r}; write it as 4 or 4x3"
        ) from None


def auto_or_sizes(text: str) -> str | Sizes:
    """Read "auto", one size or one per axis.

    >>> auto_or_sizes("auto"), auto_or_sizes("64x32")
    ('auto', (64, 32))
    """
    return text if text == "auto" else sizes(text)


def paddings(text: str) -> Paddings:
    """Read a padding: per axis a number or a pair (begin, end), or one of tconv's words.

    >>> paddings("1"), paddings("1:2"), paddings("0x1:2"), paddings("same")
    ((1,), ((1, 2),), (0, (1, 2)), 'same')
    """
    if text in ("valid", "same", "same_upper", "same_lower"):
        return text
    try:
        parts = [tuple(map(int, part.split(":"))) for part in re.split("[x,×]", text)]
        return tuple(
            part[0] if len(part) == 1 else (part[0], part[1]) for part in map(_pair, parts)
        )
    except ValueError:
        raise ArgumentTypeError(
            f"must be a whole number, a pair begin:end, one of these per axis, or same or valid, "
            f"not {text!r}; write it as 1, 1:2 or 1x0:1"
        ) from None


def _pair(part: Sizes) -> Sizes:
    if len(part) > 2:
        raise ValueError
    return part


def count(text: str) -> int:
    """Read a whole number of 1 or more.

    >>> count("8")
    8
    """
    if not text.isdecimal() or not text.strip("0"):
        raise ArgumentTypeError(f"must be a whole number of 1 or more, not {text!r}; write 2, say")
    return int(text)


def index(text: str) -> int:
    """Read a whole number of 0 or more.

    >>> index("0")
    0
    """
    if not text.isdecimal():
        raise ArgumentTypeError(f"must be a whole number of 0 or more, not {text!r}; write 0, say")
    return int(text)


def number(text: str) -> float:
    """Read a number or a fraction.

    >>> number("0.5"), number("1/4")
    (0.5, 0.25)
    """
    above, slash, below = text.partition("/")
    try:
        value = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if not isfinite(value):
        raise ArgumentTypeError(
            f"must be a number or a fraction, not {text!r}; write it as 0.5 or 1/255"
        )
    return value


def numbers(text: str) -> tuple[float, ...]:
    """Read one number for all channels, or one per channel.

    >>> numbers("0.5"), numbers("0.25,0.5,1/2")
    ((0.5,), (0.25, 0.5, 0.5))
    """
    return tuple(map(number, text.split(",")))


Array = tuple[tuple[tuple[float, ...], ...], ...]


def sizes_or_numbers(text: str) -> Sizes | Array:
    """Read one size, or one per axis; or numbers: spaces, ";" and "|" end them, rows and channels.

    >>> sizes_or_numbers("3x4")
    (3, 4)
    >>> sizes_or_numbers("1 -2; 1/2 3.5")
    (((1.0, -2.0), (0.5, 3.5)),)
    """
    text = " ".join(text.translate(_SIGNS).split())
    shown = repr(text.replace("; ", ";"))  # "; " begins the advice of a message
    if re.fullmatch(r"\d+([x×]\d+)*", text):
        return sizes(text)
    rule = "write a size as 3 or 3x4, and numbers as '1 2; 3 4': spaces part them, ; parts rows"
    if "," in text:
        raise ArgumentTypeError(
            f"must have no comma, which could end a number or begin its fraction, not {shown}; "
            f"{rule}, | channels, and a fraction is 1.5 or 3/2"
        )
    if not re.search(r"[\s;|]", text) and not re.fullmatch(r"[-+]?[\d./]+", text):
        raise ArgumentTypeError(f"must be a size or numbers, not {shown}; {rule}")
    channels = tuple(
        tuple(tuple(map(number, row.split())) for row in channel.strip(" ;").split(";"))
        for channel in text.split("|")
    )
    shapes = {tuple(map(len, channel)) for channel in channels}
    (first, *others) = shapes
    if others or len(set(first)) > 1 or not first[0]:
        raise ArgumentTypeError(
            f"must have as many numbers in every row, and rows in every channel, not {shown}; "
            f"{rule}, | channels"
        )
    return channels


_SIGNS = str.maketrans("−–", "--")  # the minus of typography, and what is taken for it


def places(text: str) -> Sizes:
    """Read whole numbers from 0 with a comma or x between them.

    >>> places("0,2"), places("1x0")
    ((0, 2), (1, 0))
    """
    if not re.fullmatch(r"\d+([,x]\d+)*", text):
        raise ArgumentTypeError(
            f"must be row and column, counted from 0, not {text!r}; write it as 1,2"
        )
    return tuple(map(int, re.split("[,x]", text)))


def one_of(*names: str) -> Callable[[str], str]:
    """Make the reader of an option that takes one of some words."""
    return Choice(names)
