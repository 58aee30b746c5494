"""WHAT WAS ASKED: the keywords of a call, each checked by its own rule."""

import operator
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from tconv.errors import ParameterError, ShapeError
from tconv.forks import importing

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "DATA_FORMATS",
    "METHODS",
    "MOST_THREADS",
    "PADDING_MODES",
    "Pairs",
    "PerAxis",
    "as_choice",
    "as_flag",
    "as_generator",
    "as_integer",
    "as_pair",
    "as_padding",
    "as_per_axis",
    "as_size",
    "as_threads",
    "show",
]

PerAxis = int | Sequence[int]
"""One integer for all axes, or one per axis."""

Pairs = tuple[tuple[int, int], ...]
"""(begin, end) of every spatial axis."""

DATA_FORMATS = ("channels_first", "channels_last")
PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
METHODS = ("auto", "direct", "measure")
MOST_THREADS = 1024
"""Of a call: its scratch is that of one thread as many times."""

_NAMED_PADDING = ("valid", "same", "same_upper", "same_lower")


def as_integer(value: Any, name: str, least: int | None = None) -> int:
    """Return `value` as a Python int; bools, floats and strings are refused.

    >>> as_integer(2.0, "stride", 1)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: stride=2.0 must be an integer; pass 2.
    """
    number = _integer(value)
    if number is None:
        whole = isinstance(value, float) and value.is_integer()
        fix = f"pass {int(value)}" if whole else "pass an integer"
        raise ParameterError(f"{name}={show(value)} must be an integer; {fix}.")
    if least is not None and number < least:
        kind = {0: "an integer of 0 or more", 1: "a positive integer"}[least]
        raise ParameterError(f"{name}={number} must be at least {least}; pass {kind}.")
    return number


def as_per_axis(value: Any, name: str, rank: int, least: int | None) -> tuple[int, ...]:
    """Return one integer per spatial axis from one integer, or one per axis.

    >>> as_per_axis(2, "stride", 3, 1), as_per_axis((1, 2), "stride", 2, 1)
    ((2, 2, 2), (1, 2))
    """
    entries = _sequence(value)
    if entries is None:
        return (as_integer(value, name if _integer(value) is None else f"{name}[0]", least),) * rank
    if len(entries) not in (1, rank):
        raise ParameterError(
            f"{name}={show(value)} must be one integer or {_per_axis(rank)}, not {len(entries)}; "
            f"pass {_example(rank, 1)}."
        )
    numbers = tuple(as_integer(v, f"{name}[{axis}]", least) for axis, v in enumerate(entries))
    return numbers if len(numbers) == rank else numbers * rank


def as_pair(value: Any, name: str) -> tuple[int, int]:
    """Return (begin, end) from one integer for both, or a pair.

    >>> as_pair(1, "padding"), as_pair((0, 2), "padding")
    ((1, 1), (0, 2))
    """
    entries = _sequence(value)
    if entries is None:
        number = as_integer(value, name)
        return number, number
    if len(entries) != 2:
        raise ParameterError(
            f"{name}={show(value)} must be an integer or a (begin, end) pair; pass (0, 1) for "
            "example."
        )
    return as_integer(entries[0], f"{name}[0]"), as_integer(entries[1], f"{name}[1]")


def as_padding(value: Any, rank: int) -> Pairs | str:
    """Return a (begin, end) pair per axis, or "same_upper" or "same_lower".

    >>> as_padding(1, 2), as_padding(((0, 1), 2), 2), as_padding("valid", 1), as_padding("same", 1)
    (((1, 1), (1, 1)), ((0, 1), (2, 2)), ((0, 0),), 'same_upper')
    """
    if isinstance(value, str):
        value = as_choice(value, "padding", _NAMED_PADDING)
        if value == "valid":
            return ((0, 0),) * rank
        return "same_upper" if value == "same" else value
    entries = _sequence(value)
    if entries is None:
        return (as_pair(value, "padding" if _integer(value) is None else "padding[0]"),) * rank
    if len(entries) not in (1, rank):
        pair = rank == 1 and len(entries) == 2 and None not in map(_integer, entries)
        hint = f"padding=({show(value)},)" if pair else _example(rank, 1)
        raise ParameterError(
            f"padding={show(value)} must be one integer, or {_per_axis(rank)}, each an integer "
            f"or a (begin, end) pair, not {len(entries)}; pass {hint}."
        )
    pairs = tuple(as_pair(v, f"padding[{axis}]") for axis, v in enumerate(entries))
    return pairs if len(pairs) == rank else pairs * rank


def as_size(
    value: Any, name: str, rank: int, leading: tuple[int, ...], channels_last: bool
) -> tuple[int, ...]:
    """Return the spatial size from an int, a spatial tuple or a full shape.

    `leading` is what a full shape must hold besides: (N, channels), or (channels,) unbatched.

    >>> as_size((2, 4, 9), "output_size", 1, (2, 4), channels_last=False)
    (9,)
    """
    entries = _sequence(value)
    if entries is None:
        return as_per_axis(value, name, rank, 1)
    if len(entries) == rank + len(leading):
        numbers = tuple(as_integer(v, f"{name}[{n}]") for n, v in enumerate(entries))
        batch = len(leading) - 1
        if channels_last:
            spatial, found = numbers[batch:-1], (*numbers[:batch], numbers[-1])
        else:
            spatial, found = numbers[batch + 1 :], numbers[: batch + 1]
        if found != leading:
            what = "batch and channels" if batch else "channels"
            raise ShapeError(
                f"{name}={numbers} must have {what} {leading}, not {found}; "
                f"pass these or only the spatial size {spatial}."
            )
        entries = list(spatial)
    if len(entries) != rank:
        raise ParameterError(
            f"{name}={show(value)} must be one integer, {_per_axis(rank)}, or a full shape of "
            f"{rank + len(leading)}, not {len(entries)} integers; pass {_example(rank, 8)} for "
            "example."
        )
    return tuple(as_integer(v, f"{name}[{n}]", 1) for n, v in enumerate(entries))


def as_choice(value: Any, name: str, choices: Collection[str]) -> Any:  # a Literal, for callers
    """Return `value` as a Python str if it is one of `choices`.

    >>> as_choice("nhwc", "data_format", DATA_FORMATS)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: data_format='nhwc' must be one of 'channels_first', \
'channels_last'; pass one of these.
    """
    if type(value) is str and value in choices:  # as most are
        return value
    text = str.__str__(value) if issubclass(type(value), str) else None  # not a subclass's words
    if text not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ParameterError(f"{name}={show(value)} must be one of {listed}; pass one of these.")
    return text


def as_threads(value: Any) -> int | None:
    """Return a number of threads as a Python int; None leaves it to whoever computes.

    >>> as_threads(5000)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: threads=5000 must be at most 1,024; pass fewer, or None for as \
many as there are cores.
    """
    if value is None or (type(value) is int and 1 <= value <= MOST_THREADS):  # as most are
        return value
    threads = as_integer(value, "threads", 1)
    if threads > MOST_THREADS:
        raise ParameterError(
            f"threads={show(threads)} must be at most {MOST_THREADS:,}; pass fewer, or None for as "
            "many as there are cores."
        )
    return threads


def as_generator(rng: Any, default: int | None = None) -> "np.random.Generator":
    """Return a NumPy generator from a generator or a seed; for None from `default`.

    Without a default, None gives a different generator every time.
    """
    with importing:  # the random part takes a while to load, so only where it is used
        import numpy.random as random

    try:
        return random.default_rng(default if rng is None else rng)
    except (TypeError, ValueError):
        raise ParameterError(
            f"rng={show(rng)} must be a numpy.random.Generator or a seed; pass an integer of 0 or "
            "more."
        ) from None


def as_flag(value: Any, name: str) -> bool:
    """Return `value` if it is True or False (Python's or NumPy's)."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise ParameterError(f"{name}={show(value)} must be True or False; pass one of these.")
    return bool(value)


def _integer(value: Any) -> int | None:
    if isinstance(value, bool) or type(value).__name__ == "bool_" or getattr(value, "ndim", None):
        return None
    if "bool" in str(getattr(value, "dtype", "")):
        return None
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return number if type(number) is int else int.__int__(number)  # not as a subclass has it


def _sequence(value: Any) -> list[Any] | None:
    """The entries of a tuple, list, torch.Size or array with axes; None for anything else."""
    if isinstance(value, (tuple, list)):
        return list(value)
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        return list(value.tolist())
    return None


def _per_axis(rank: int) -> str:
    return "one per spatial axis (1)" if rank == 1 else f"{rank}, one per spatial axis"


def _example(rank: int, value: int) -> str:
    return f"{value} or ({', '.join([str(value)] * rank)}{',' if rank == 1 else ''})"


def show(value: Any) -> str:
    """Return `value` as an error message shows it: its repr, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
