"""Scene: one small transposed convolution with all its numbers.

A scene has two axes. Operands of one axis become a single row, with a trivial first axis.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from math import isfinite
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.explainer.picture import landscape
from tconv.geometry.arguments import as_array
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry
from tconv.system.fork_lock import cached_property

__all__ = ["LIMITS", "MOST_CHANNELS", "MOST_OUTPUTS", "Rows", "Scene", "plain_rows"]

LIMITS = {"input": 8, "kernel": 7, "stride": 5, "dilation": 4, "padding": 6}
"""Greatest values along an axis; every cell of a drawing has room for its number then."""

MOST_OUTPUTS, MOST_CHANNELS = 32, 3
_MOST_PIXELS = 400  # along an axis of the output, if the input is the picture
_MOST_COPIED = 2**20  # numbers

_X = ((37.0, 47.0), (67.0, 77.0))
_W = ((1.0, 2.0), (3.0, 4.0))
_ONES = ((1.0, 1.0, 1.0),) * 3
_TRIVIAL = Axis(1, 1, 1)

Rows = tuple[tuple[float, ...], ...]
Channels = tuple[Rows, ...]


@dataclass(frozen=True)
class Scene:
    """One image, one input channel, one output channel: rows of x and of w, and both axes.

    Numbers are exact: float64 holds each of them, in Python and in JavaScript. The lens "channels"
    adds `channels`, the numbers of input and output channels, to which x and w are the first;
    `more_x` holds the others, and `more_w` the others in the order of w[0, 0], w[0, 1], ….

    >>> Scene.of().axes[1]
    Axis(input=2, kernel=2, output=3, stride=1, dilation=1, begin=0, end=0, extra=0)
    >>> Scene.of([1, 2, 3], [1, 1], stride=2).url_state
    '#x=1,2,3&w=1,1&s=2'
    """

    x: Rows
    w: Rows
    axes: tuple[Axis, Axis]
    channels: tuple[int, int] = (2, 2)
    more_x: Channels | None = None
    more_w: Channels | None = None
    is_picture: bool = False

    @classmethod
    def of(cls, x: ArrayLike | None = None, w: ArrayLike | None = None, **settings: Any) -> "Scene":
        """Check x, w and the settings by the rules of `conv_transpose` and by `LIMITS`."""
        a = _numbers(_X if x is None else x, "x", 3)
        b = None if w is None else _numbers(w, "w", 4)
        if a.ndim == 3 or (b is not None and b.ndim > 2):
            return cls._of_channels(None if x is None else a, b, settings)
        rank = a.ndim
        if b is None:
            b = np.array(_W if rank == 2 else _W[0])
        if b.ndim != rank:
            raise ShapeError(
                f"x.ndim={rank} and w.ndim={b.ndim} must be equal; "
                "of a layer's weight pass one kernel, weight[c, m]."
            )
        axes = Geometry.of((1, 1, *a.shape), (1, 1, *b.shape), **settings).axes
        _check_limits(axes)
        first, second = axes if rank == 2 else (_TRIVIAL, *axes)
        return cls(_rows(np.atleast_2d(a)), _rows(np.atleast_2d(b)), (first, second))

    @classmethod
    def of_picture(cls, w: ArrayLike | None = None, **settings: Any) -> "Scene":
        """Check w and the settings for the picture; without them it shows a checkerboard."""
        kernel = _numbers(_ONES if w is None else w, "w", 2)
        if kernel.ndim != 2:
            raise ShapeError(
                f"w.shape={kernel.shape} must have two axes, as the picture has; pass w[None]."
            )
        settings = {"stride": 2, **settings}
        image = landscape()
        axes = Geometry.of((1, 1, *image.shape), (1, 1, *kernel.shape), **settings).axes
        _check_limits(axes, len(image), _MOST_PIXELS)
        return cls(_rows(image), _rows(kernel), (axes[0], axes[1]), is_picture=True)

    @classmethod
    def _of_channels(
        cls, a: NDArray[np.float64] | None, b: NDArray[np.float64] | None, settings: dict[str, Any]
    ) -> "Scene":
        """Check x of shape (C, *I) and w of (C, M, *K); either one may be missing."""
        given_x, given_w = a is not None, b is not None
        if b is None:
            b = np.array([[_W, _W]] * (1 if a is None else len(a)))
        if a is None:
            a = np.array([_X if b.ndim == 4 else _X[0]] * len(b))
        if b.ndim != a.ndim + 1 or len(a) != len(b):
            raise ShapeError(
                f"x.shape={a.shape} and w.shape={b.shape} must be (C, *I) and (C, M, *K), with one "
                "C and as many axes in I as in K; of one channel pass x[c] and w[c, m]."
            )
        channels = b.shape[0], b.shape[1]
        if max(channels) > MOST_CHANNELS:
            raise ParameterError(
                f"{channels[0]} input and {channels[1]} output channels must be at most "
                f"{MOST_CHANNELS} each to be drawn; pass x[:{MOST_CHANNELS}] and "
                f"w[:{MOST_CHANNELS}, :{MOST_CHANNELS}]."
            )
        scene = cls.of(a[0], b[0, 0], **settings)
        xs = tuple(_rows(np.atleast_2d(each)) for each in a)
        ws = tuple(_rows(np.atleast_2d(each)) for of_c in b for each in of_c)
        return replace(
            scene,
            channels=channels,
            more_x=xs[1:] if given_x else None,
            more_w=ws[1:] if given_w else None,
        )

    @property
    def has_channels(self) -> bool:
        """Whether x or w was given with channels."""
        return self.more_x is not None or self.more_w is not None

    @cached_property
    def channel_x(self) -> Channels:
        """Rows of x[c]; where none were given, small whole numbers in a pattern."""
        if self.more_x is not None:
            return (self.x, *self.more_x)
        others = range(1, self.channels[0])
        return (self.x, *(_pattern(self.x, step=c + 1, start=c, period=10) for c in others))

    @cached_property
    def channel_w(self) -> tuple[Channels, ...]:
        """Rows of w[c][m]; where none were given, small whole numbers in a pattern."""
        ins, outs = self.channels
        others = self.more_w
        if others is None:
            pairs = list(product(range(ins), range(outs)))[1:]
            others = tuple(
                _pattern(self.w, start=2 * c + 3 * m, period=5, least=-1) for c, m in pairs
            )
        kernels = (self.w, *others)
        return tuple(kernels[c * outs : (c + 1) * outs] for c in range(ins))

    @property
    def rank(self) -> int:
        """Number of axes: 1 if the first axis is trivial, else 2."""
        return 1 if self.axes[0] == _TRIVIAL else 2

    @cached_property
    def geometry(self) -> Geometry:
        """Geometry of a call with two axes."""
        return Geometry(1, 1, 1, 1, self.axes)

    @property
    def middle(self) -> int:
        """Flat index of the middle output cell, which is highlighted first."""
        rows, columns = (axis.output for axis in self.axes)
        return (rows - 1) // 2 * columns + (columns - 1) // 2

    @property
    def state(self) -> dict[str, Any]:
        """Initial state of the page, by the keys of its address; JSON holds it exactly."""
        state: dict[str, Any] = {} if self.is_picture else {"x": plain_rows(self.x)}
        state |= {
            "w": plain_rows(self.w),
            "s": [axis.stride for axis in self.axes],
            "p": [[axis.begin, axis.end] for axis in self.axes],
            "d": [axis.dilation for axis in self.axes],
            "op": [axis.extra for axis in self.axes],
        }
        if self.channels != Scene.channels:
            state["c"] = list(self.channels)
        if self.more_x is not None:
            state["xc"] = list(map(plain_rows, self.more_x))
        if self.more_w is not None:
            outs = self.channels[1]
            kernels = [[], *map(plain_rows, self.more_w)]
            state["wc"] = [kernels[n : n + outs] for n in range(0, len(kernels), outs)]
        return state

    @property
    def url_state(self) -> str:
        """Fragment that makes the address of the example's page show this scene.

        It leaves out what equals the example. One number stands for both axes, or for the columns
        alone if x and w have a single row.
        """
        parts = self._url_parts()
        return "#" * bool(parts) + "&".join(f"{key}={value}" for key, value in parts.items())

    def _url_parts(self) -> dict[str, str]:
        parts = {}
        if not (self.is_picture or self.x == _X):
            parts["x"] = _matrix_text(self.x)
        if self.w != (_ONES if self.is_picture else _W):
            parts["w"] = _matrix_text(self.w)
        plain = len(self.x) == len(self.w) == 1
        for key, field, default in (
            ("s", "stride", "1"),
            ("p", "padding", "0"),
            ("d", "dilation", "1"),
            ("op", "extra", "0"),
        ):
            first, second = (_setting(axis, field) for axis in self.axes)
            alike = first == default if plain else first == second
            text = second if alike else f"{first}x{second}"
            if text != ("2" if key == "s" and self.is_picture else default):
                parts[key] = text
        if self.channels != Scene.channels:
            parts["c"] = "x".join(map(str, self.channels))
        pattern = replace(self, more_x=None, more_w=None)
        for key, given, made in (
            ("xc", self.channel_x[1:], pattern.channel_x[1:]),
            ("wc", sum(self.channel_w, ())[1:], sum(pattern.channel_w, ())[1:]),
        ):
            texts = ["|".join(map(_matrix_text, each)) for each in (given, made)]
            if texts[0] != texts[1]:
                parts[key] = texts[0]
        return parts


def _setting(axis: Axis, field: str) -> str:
    if field == "padding":
        return str(axis.begin) if axis.begin == axis.end else f"{axis.begin}-{axis.end}"
    return str(getattr(axis, field))


def number_text(value: float) -> str:
    """Write a number: all digits of a whole one, else as few as tell it from other numbers.

    The page writes numbers in the same way.

    >>> number_text(500.0), number_text(0.1), number_text(-0.0), number_text(5e-324)
    ('500', '0.1', '0', '5e-324')
    """
    if not isfinite(value):
        return repr(value)
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f")
    return repr(value).replace("e-0", "e-")


def short_text(value: float, whole: int = 8, rounded: int = 8) -> str:
    """Write all digits if they fit `whole` characters, else rounded to fit `rounded` ones.

    >>> short_text(12345678.0), short_text(123456789.0), short_text(-1 / 3, 5, 5)
    ('12345678', '1.2346e8', '-0.33')
    """
    text = number_text(value)
    if len(text) <= whole:
        return text
    digits = 5
    while len(text) > rounded and digits:
        text = _rounded(value, digits)
        digits -= 1
    return text


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits - 1}e}"
    mantissa, _, power = text.partition("e")
    if -4 < int(power) < digits:
        return number_text(float(text))
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}"


def plain_number(value: float) -> int | float:
    """Return a whole number as an int, which JSON writes without a point, if it is short."""
    is_short = value.is_integer() and abs(value) < 1e16 and str(value) != "-0.0"
    return int(value) if is_short else value


def _pattern(rows: Rows, *, start: int, period: int, step: int = 1, least: int = 0) -> Rows:
    """Return rows of the same sizes that count on by `step` in each column, modulo a period.

    A part of larger rows has the same numbers.
    """
    return tuple(
        tuple(float(((2 * r + c) * step + start) % period + least) for c in range(len(row)))
        for r, row in enumerate(rows)
    )


def plain_rows(rows: Iterable[Iterable[float]]) -> list[list[int | float]]:
    """Return rows of numbers, the whole ones without a point."""
    return [list(map(plain_number, row)) for row in rows]


def _matrix_text(rows: Rows) -> str:
    def exact(value: float) -> str:
        return "-0" if str(value) == "-0.0" else number_text(value)

    return ";".join(",".join(map(exact, row)) for row in rows)


def _rows(array: NDArray[np.float64]) -> Rows:
    return tuple(tuple(map(float, row)) for row in array)


def _numbers(value: ArrayLike, name: str, most_axes: int) -> NDArray[np.float64]:
    array = as_array(value, name)
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise DTypeError(f"{name}.dtype={array.dtype} must be a type of real numbers; convert it.")
    if not 1 <= array.ndim <= most_axes or not array.size:
        fix = 'pass x[n, c] and weight[c, m], or for the lens "channels" x[n] and weight'
        raise ShapeError(f"{name}.shape={array.shape} must have one or two axes with cells; {fix}.")
    if array.size > _MOST_COPIED:  # refuse before copying
        limit = LIMITS["input" if name == "x" else "kernel"]
        raise ParameterError(
            f"{name}.shape={array.shape} must have at most {limit} along an axis to be drawn; "
            "explain a smaller example of the same kind."
        )
    if not np.isfinite(array).all():
        raise ParameterError(f"{name} must be finite, but holds NaN or infinity; replace them.")
    with np.errstate(over="ignore", under="ignore"):  # a long double may become an infinity
        numbers = array.astype(np.float64)
    if (
        numbers.size <= MOST_CHANNELS**2 * LIMITS["input"] ** 2
    ):  # `_check_limits` refuses larger ones
        _check_held(numbers, np.asarray(value, object), name)
    return numbers


def _check_held(numbers: NDArray[np.float64], given: NDArray[Any], name: str) -> None:
    """Check that float64 holds the given numbers, as they were before NumPy chose one type."""
    for number, each in zip(map(float, numbers.flat), given.flat, strict=True):
        if number != (int(each) if isinstance(each, Integral) else each):
            raise ParameterError(
                f"{name} holds {each}, must hold numbers of float64, of which "
                f"{number_text(number)} is the nearest; "
                + (f"pass numpy.asarray({name}, 'float64')." if isfinite(number) else "scale it.")
            )


def _check_limits(
    axes: tuple[Axis, ...],
    most_inputs: int = LIMITS["input"],
    most_outputs: int = MOST_OUTPUTS,
) -> None:
    limits = {**LIMITS, "input": most_inputs}
    for n, axis in enumerate(axes):
        for name, value, least in (
            ("input", axis.input, 1),
            ("kernel", axis.kernel, 1),
            ("stride", axis.stride, 1),
            ("dilation", axis.dilation, 1),
            ("padding", axis.begin, 0),
            ("padding", axis.end, 0),
        ):
            if not least <= value <= limits[name]:
                what = f"{name} size" if name in ("input", "kernel") else name
                raise ParameterError(
                    f"{what} {value} on axis {n} must be {least} to {limits[name]} to be drawn; "
                    "explain a smaller example of the same kind."
                )
        if axis.output > most_outputs:
            raise ParameterError(
                f"output size {axis.output} on axis {n} must be at most {most_outputs} to be "
                "drawn; explain a smaller example of the same kind."
            )
