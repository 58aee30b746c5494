"""Rules for the keywords of a call: each one checked, or refused with a remedy."""

import math
import operator
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from types import NoneType
from typing import TYPE_CHECKING, Any

from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from tconv.messages import show
from tconv.system.fork_lock import importing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "DATA_FORMATS",
    "METHODS",
    "MOST_THREADS",
    "Padding",
    "Pairs",
    "PerAxis",
    "as_array",
    "as_choice",
    "as_flag",
    "as_generator",
    "as_integer",
    "as_mapping",
    "as_number",
    "as_padding",
    "as_pair",
    "as_per_axis",
    "as_size",
    "as_threads",
    "as_word",
    "entries_of",
    "integer_of",
    "is_cache_key",
    "number_of",
]

PerAxis = int | Sequence[int]
"""One integer for all axes, or one per axis."""

Padding = str | int | Sequence[int | tuple[int, int]]
"""One for all axes or one per axis, an integer or a (begin, end) pair; or a name."""

Pairs = tuple[tuple[int, int], ...]
"""(begin, end) of every spatial axis."""

DATA_FORMATS = ("channels_first", "channels_last")
METHODS = ("auto", "direct", "measure", "fft")
MOST_THREADS = 1024
"""Most threads of a call; each needs scratch of its own."""

_NAMED_PADDING = ("valid", "same", "same_upper", "same_lower")

_MOST = 2**128  # the size of a seed; a product over all axes still prints
_MOST_ENTRIES = 1024  # of an array that is an argument, or of a seed
_MOST_OF_OTHERS = 2**20  # elements of sequences other than lists, such as range
_MOST_COMPARED = 32  # characters of a word that are compared with those that are allowed
_MOST_LISTED = 2**28  # elements of nested lists: 8 GiB as objects of Python


def as_integer(value: Any, name: str, least: int | None = None) -> int:
    """Return `value` as a Python int; bools, floats and strings are refused.

    >>> as_integer(2.0, "stride", 1)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: stride=2.0 must be an integer; pass 2.
    """
    number = integer_of(value)
    if number is None:
        whole = isinstance(value, float) and value.is_integer()
        fix = f"pass {int(value)}" if whole else "pass an integer"
        raise ParameterError(f"{name}={show(value)} must be an integer; {fix}.")
    if least is not None and number < least:
        kind = {0: "an integer of 0 or more", 1: "a positive integer"}[least]
        raise ParameterError(f"{name}={show(number)} must be at least {least}; pass {kind}.")
    if not -_MOST < number < _MOST:
        raise ParameterError(
            f"{name}={show(number)} must be between -2**128 and 2**128; pass a smaller integer."
        )
    return number


def as_per_axis(value: Any, name: str, rank: int, least: int | None) -> tuple[int, ...]:
    """Return one integer per spatial axis from one integer, or one per axis.

    >>> as_per_axis(2, "stride", 3, 1), as_per_axis((1, 2), "stride", 2, 1)
    ((2, 2, 2), (1, 2))
    """
    entries = entries_of(value)
    if entries is None:
        return (
            as_integer(value, name if integer_of(value) is None else f"{name}[0]", least),
        ) * rank
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
    entries = entries_of(value)
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
    entries = entries_of(value)
    if entries is None:
        return (as_pair(value, "padding" if integer_of(value) is None else "padding[0]"),) * rank
    if len(entries) not in (1, rank):
        pair = rank == 1 and len(entries) == 2 and None not in map(integer_of, entries)
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

    `leading` holds the other sizes of a full shape: (N, channels), or (channels,) unbatched.

    >>> as_size((2, 4, 9), "output_size", 1, (2, 4), channels_last=False)
    (9,)
    """
    entries = entries_of(value)
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
'channels_last'; pass 'channels_last'.
    """
    if type(value) is str and value in choices:  # as most are
        return value
    text = str.__str__(value) if issubclass(type(value), str) else None  # without a subclass's own
    if text not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        with importing:  # no call that succeeds needs it
            from tconv.foreign_names import meant_by

        meant = None if text is None else meant_by(text[:_MOST_COMPARED], choices)
        remedy = "one of these" if meant is None else repr(meant)
        raise ParameterError(f"{name}={show(value)} must be one of {listed}; pass {remedy}.")
    return text


def as_threads(value: Any) -> int | None:
    """Return a number of threads as a Python int; None leaves it to the library that computes.

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


def as_word(value: Any, name: str) -> str:
    """Return `value` if it is a string."""
    if not isinstance(value, str):
        raise ParameterError(f"{name}={show(value)} must be a string; pass one.")
    return str(value)


def as_mapping(value: Any, name: str) -> dict[str, Any]:
    """Return a mapping of strings as a dict.

    >>> as_mapping([("x", 1)], "state")
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: state=[('x', 1)] must be a mapping of names, such as a dict; pass \
one.
    """
    if type(value) is not dict and not isinstance(value, Mapping):
        raise ParameterError(
            f"{name}={show(value)} must be a mapping of names, such as a dict; pass one."
        )
    found = dict(value)
    for key in found:
        if not isinstance(key, str):
            raise ParameterError(
                f"{name} has {show(key)} for a name, must have strings; rename it."
            )
    return found


def as_number(value: Any, name: str, low: float = -math.inf, below: float = math.inf) -> float:
    """Return a finite Python float of at least `low` and below `below`.

    >>> as_number(-1, "lr", 0)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: lr=-1 must be a finite number of at least 0; pass one.
    """
    number = number_of(value)
    if not (math.isfinite(number) and low <= number < below):
        rule = "" if low == -math.inf else f" of at least {low:g}"
        rule += "" if below == math.inf else f" and below {below:g}"
        raise ParameterError(f"{name}={show(value)} must be a finite number{rule}; pass one.")
    return number


def number_of(value: Any) -> float:
    """Return a real number of any type as a Python float; NaN for anything else, bools included.

    >>> number_of(2), number_of("2"), number_of(True)
    (2.0, nan, nan)
    """
    kind = type(value)
    if kind is not float and kind is not int:
        is_number = hasattr(kind, "__float__") or hasattr(kind, "__index__")
        if not is_number or kind is bool or getattr(value, "ndim", 0) != 0:
            return math.nan
        if getattr(getattr(value, "dtype", None), "kind", "f") not in "iufV":  # V: bfloat16
            return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


def as_array(value: Any, name: str) -> "NDArray[Any]":
    """Return a NumPy array from an array, nested lists or a number.

    >>> as_array([[1, 2], [3]], "x")
    Traceback (most recent call last):
    ...
    tconv.errors.DTypeError: x=[[1, 2], [3]] is not rectangular; pass nested lists of equal lengths.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray:  # as most are
        return value  # type: ignore[no-any-return]
    with importing:
        import numpy as np

    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(
            f"{name} is a masked array, whose mask would be ignored; pass {name}.filled(0) to let "
            "masked samples contribute nothing."
        )
    kind, is_listed = type(value), isinstance(value, (list, tuple))
    if not is_listed and not hasattr(kind, "__array__") and hasattr(kind, "__getitem__"):
        if isinstance(value, Sequence) and not isinstance(value, str | bytes | memoryview):
            value = list(islice(value, _MOST_OF_OTHERS + 1))  # it may be infinite
            if len(value) > _MOST_OF_OTHERS:
                raise MemoryLimitError(
                    f"{name} is a {kind.__name__} of more than {_MOST_OF_OTHERS:,} numbers; pass "
                    "an array or a list."
                )
        elif not isinstance(value, str) and not _is_buffer(value):
            raise DTypeError(f"{name}={show(value)} must be an array; pass one of NumPy.")
    if _listed(value) > _MOST_LISTED:
        raise MemoryLimitError(
            f"{name}={show(value)} must hold at most {_MOST_LISTED:,} numbers in nested lists; "
            "pass an array."
        )
    try:
        return np.asarray(value)
    except MemoryError:
        raise MemoryLimitError(
            f"{name}={show(value)} is larger than the memory that is available; pass a smaller one."
        ) from None
    except Exception as error:  # raised by a method of the object
        if is_listed and isinstance(error, ValueError):
            raise DTypeError(
                f"{name}={show(value)} is not rectangular; pass nested lists of equal lengths."
            ) from None
        raise DTypeError(
            f"{name}={show(value)} must be an array, NumPy makes none of it; pass one."
        ) from error


def _is_buffer(value: Any) -> bool:
    """Whether NumPy reads the memory of an object instead of iterating over it without end."""
    try:
        memoryview(value)
    except TypeError:
        return hasattr(type(value), "__array_interface__")
    return True


def _listed(value: Any) -> int:
    """Number of elements of nested lists, if they are rectangular."""
    count = 1
    for _ in range(64):
        if not isinstance(value, (list, tuple)) or not value:
            break
        count *= len(value)
        value = value[0]
    return count


def as_generator(rng: Any, default: int | None = None) -> "np.random.Generator":
    """Return a NumPy generator from a generator or a seed; for None from `default`.

    Without a default, None gives a different generator every time.
    """
    with importing:  # numpy.random loads slowly, so only where it is used
        import numpy.random as random

    of_numpy = random.Generator, random.BitGenerator, random.SeedSequence
    if rng is None:
        return random.default_rng(default)
    # Only these: NumPy reads addresses from any object that has some of their attributes.
    if isinstance(rng, (*of_numpy, random.RandomState)):
        return random.default_rng(rng)
    entries = entries_of(rng)
    given = [rng] if entries is None else entries
    seeds = [integer_of(seed) for seed in islice(given, _MOST_ENTRIES)]
    if len(given) > _MOST_ENTRIES or any(s is None or not 0 <= s < _MOST for s in seeds):
        raise ParameterError(
            f"rng={show(rng)} must be a numpy.random.Generator or a seed; pass an integer of 0 or "
            "more."
        )
    seed: Any = seeds[0] if entries is None else seeds
    return random.default_rng(seed)


def as_flag(value: Any, name: str) -> bool:
    """Return `value` if it is True or False (Python's or NumPy's)."""
    if value is True or value is False:
        return bool(value)
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.bool_):
        raise ParameterError(f"{name}={show(value)} must be True or False; pass one of these.")
    return bool(value)


def integer_of(value: Any) -> int | None:
    """Return an integer of any type as a Python int; None for all else, such as True or 2.0."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or type(value).__name__ == "bool_" or getattr(value, "ndim", None):
        return None
    dtype = getattr(value, "dtype", None)
    is_timedelta = getattr(dtype, "kind", "") == "m"  # an integer to Python
    if is_timedelta or "bool" in str(dtype):
        return None
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return number if type(number) is int else int.__int__(number)  # without a subclass's own


def entries_of(value: Any) -> Sequence[Any] | None:
    """The entries of a tuple, list, torch.Size, range or array with axes; None for anything else.

    From a longer sequence than any argument may be it takes just enough for it to be refused.

    >>> entries_of((1, 2)), entries_of(3)
    ((1, 2), None)
    """
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, range):
        return list(islice(value, _MOST_ENTRIES + 1))
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(value, "tolist"):
        if math.prod(shape) > _MOST_ENTRIES:
            return range(max(*shape, _MOST_ENTRIES + 1))
        try:
            listed: list[Any] = value.tolist()
        except Exception:  # a tensor that has a shape but no elements
            return None
        return listed
    return None


def _per_axis(rank: int) -> str:
    return "one per spatial axis (1)" if rank == 1 else f"{rank}, one per spatial axis"


def _example(rank: int, value: int) -> str:
    return f"{value} or ({', '.join([str(value)] * rank)}{',' if rank == 1 else ''})"


def is_cache_key(value: Any) -> bool:
    """Whether value and type of a keyword tell it from all that mean something else.

    Then it may be part of a key of a cache. 1, 1.0 and True are equal, and so are tuples of them,
    so a tuple may hold integers and tuples of integers only; what is mutable may change later.

    >>> is_cache_key(((1, 2), 3)), is_cache_key((True,)), is_cache_key([1])
    (True, False, False)
    """
    kind = type(value)
    if kind is tuple:
        return all(
            type(each) is int or (type(each) is tuple and is_cache_key(each)) for each in value
        )
    return kind in (int, str, bool, NoneType)
