"""`Geometry`: every size and layout of one call, in one frozen record."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import repeat
from math import prod
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from tconv.errors import ShapeError
from tconv.geometry.arguments import (
    DATA_FORMATS,
    PerAxis,
    as_choice,
    as_integer,
    as_per_axis,
    entries_of,
    is_cache_key,
)
from tconv.geometry.axis import Axis
from tconv.geometry.axis_order import bare_sample
from tconv.geometry.keywords import SizeKeywords
from tconv.geometry.shape_rules import MOST_AXES, ShapeRules, as_shape
from tconv.geometry.weight_formats import WEIGHT_FORMATS, WeightLayout
from tconv.messages import show
from tconv.signatures import readable
from tconv.system.fork_lock import cached_property, importing
from tconv.system.memory import check_room

__all__ = ["OPERANDS", "Geometry", "Letter", "resized"]

Letter = Literal["x", "w", "y"]
"""What a contraction wants, or one of its operands."""
OPERANDS: dict[Letter, tuple[Letter, Letter]] = {"y": ("x", "w"), "x": ("y", "w"), "w": ("x", "y")}
"""The operands (a, b) of a contraction, by the letter that it wants."""


@dataclass(frozen=True)
class Geometry:
    """Every size and layout of ``F(x, w, y)``, the same record whichever letter is unknown.

    ``axes`` hold input, kernel and output size, stride, dilation and crop of each spatial axis.
    `of` makes it from x and weight, `of_conv` from y and weight, `of_weight_gradient` from x and y.
    They raise every error about sizes, so code that gets a Geometry checks nothing again.

    >>> g = Geometry.of((1, 8, 5), (8, 4, 3), stride=2, padding=1, output_padding=1)
    >>> g.y_shape, g.weight_shape
    ((1, 4, 10), (8, 4, 3))
    >>> g.axes[0]
    Axis(input=5, kernel=3, output=10, stride=2, dilation=1, begin=1, end=1, extra=1)
    """

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    axes: tuple[Axis, ...]
    data_format: str = "channels_first"
    weight_format: str = "IO*"
    flip_kernel: bool = False
    batched: bool = True

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        with importing:  # no call needs it
            from tconv.system.public_pickles import reduce_by_public_name

        return reduce_by_public_name(self, protocol)

    def __getstate__(self) -> dict[str, Any]:
        # The fields as plain values: a pickle names no class but this one.
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        return state | {"axes": tuple(map(tuple, self.axes))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, axes=tuple(map(Axis._make, state["axes"])))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once: a Geometry is a key of several caches."""
        return hash((self.batch, self.in_channels, self.out_channels, self.groups, self.axes))

    @classmethod
    @readable
    def of(
        cls,
        x_shape: "Sequence[int]",
        weight_shape: "Sequence[int]",
        *,
        output_size: "PerAxis | None" = None,
        **keywords: "Unpack[SizeKeywords]",
    ) -> "Geometry":
        """Sizes of ``conv_transpose(x, weight)``."""
        return _of(cls._from_input, x_shape, weight_shape, output_size, keywords)

    @classmethod
    def _from_input(
        cls,
        x_shape: Sequence[int],
        weight_shape: Sequence[int],
        output_size: Any,
        keywords: Mapping[str, Any],
    ) -> "Geometry":
        rules = ShapeRules(
            keywords, as_shape(weight_shape, "weight_shape"), "x", as_shape(x_shape, "x_shape")
        )
        wanted = rules.wanted_size(output_size, "output_size") or (None,) * rules.rank
        names = repeat("output_size")
        return cls._from(rules, map(rules.axis_from_input, range(rules.rank), wanted, names))

    @classmethod
    @readable
    def of_conv(
        cls,
        y_shape: "Sequence[int]",
        weight_shape: "Sequence[int]",
        *,
        input_size: "PerAxis | None" = None,
        **keywords: "Unpack[SizeKeywords]",
    ) -> "Geometry":
        """Sizes of ``conv(y, weight)``, whose result has the shape of x.

        >>> Geometry.of_conv((1, 1, 6), (1, 1, 3), stride=2).x_shape  # one cell of y left over
        (1, 1, 2)
        """
        return _of(cls._from_output, y_shape, weight_shape, input_size, keywords)

    @classmethod
    def _from_output(
        cls,
        y_shape: Sequence[int],
        weight_shape: Sequence[int],
        input_size: Any,
        keywords: Mapping[str, Any],
    ) -> "Geometry":
        rules = ShapeRules(
            keywords, as_shape(weight_shape, "weight_shape"), "y", as_shape(y_shape, "y_shape")
        )
        wanted = rules.wanted_size(input_size, "input_size") or (None,) * rules.rank
        return cls._from(rules, map(rules.axis_from_output, range(rules.rank), wanted))

    @classmethod
    @readable
    def of_weight_gradient(
        cls,
        x_shape: "Sequence[int]",
        y_shape: "Sequence[int]",
        kernel_size: "PerAxis",
        **keywords: "Unpack[SizeKeywords]",
    ) -> "Geometry":
        """Sizes of ``conv_weight_gradient(x, y, kernel_size)``, which has the shape of weight.

        >>> Geometry.of_weight_gradient((2, 8, 5), (2, 4, 11), 3, stride=2).weight_shape
        (8, 4, 3)
        """
        return _of(cls._from_both, x_shape, y_shape, kernel_size, keywords)

    @classmethod
    def _from_both(
        cls,
        x_shape: Sequence[int],
        y_shape: Sequence[int],
        kernel_size: Any,
        keywords: Mapping[str, Any],
    ) -> "Geometry":
        x, y = as_shape(x_shape, "x_shape"), as_shape(y_shape, "y_shape")
        entries = entries_of(kernel_size)
        rank = max(len(x) - 2 if entries is None else min(len(entries), MOST_AXES), 1)
        kernel = as_per_axis(kernel_size, "kernel_size", rank, 1)
        data_format = as_choice(
            keywords.get("data_format", DATA_FORMATS[0]), "data_format", DATA_FORMATS
        )
        if len(x) != len(y) or len(x) - rank not in (1, 2):
            remedy = "reshape x or y"
            if len(x) == len(y) == rank:
                samples = " and ".join(bare_sample(name, data_format) for name in "xy")
                remedy = f"for one sample without channels pass {samples}"
            raise ShapeError(
                f"x.ndim={len(x)} and y.ndim={len(y)} must both be {rank + 2} (batched) or both "
                f"{rank + 1} (unbatched) with kernel_size={kernel}; {remedy}."
            )
        groups = as_integer(keywords.get("groups", 1), "groups", 1)
        weight_format = as_choice(
            keywords.get("weight_format", "IO*"), "weight_format", WEIGHT_FORMATS
        )
        batch = len(x) - rank - 1
        last = data_format == "channels_last"
        channels = (x[-1], y[-1]) if last else (x[batch], y[batch])
        if 0 in channels:
            raise ShapeError(
                f"x has {channels[0]} channels and y has {channels[1]}, both must have at least 1; "
                "pass arrays with channels."
            )
        if channels[0] % groups or channels[1] % groups:
            raise ShapeError(
                f"groups={groups} must divide the {channels[0]} channels of x and the "
                f"{channels[1]} of y; pass a number that divides both."
            )
        weight = WeightLayout.of(weight_format, rank).shape(*channels, groups, kernel)
        rules = ShapeRules(keywords, weight, "x", x)
        size = y[batch:-1] if last else y[batch + 1 :]
        wanted = (None,) * rank if any(rules.extra) else size
        geometry = cls._from(rules, map(rules.axis_from_input, range(rank), wanted, repeat("y")))
        if geometry.y_shape != y:
            raise ShapeError(
                f"y has shape {y} but x of shape {x} gives {geometry.y_shape}; pass x and y of one "
                "and the same transposed convolution."
            )
        return geometry

    @classmethod
    def _from(cls, rules: ShapeRules, axes: Iterable[Axis]) -> "Geometry":
        return cls(
            rules.batch,
            rules.in_channels,
            rules.out_channels,
            rules.groups,
            tuple(axes),
            rules.data_format,
            rules.weight_format,
            rules.flip_kernel,
            rules.batched,
        )

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.axes)

    @property
    def input_size(self) -> tuple[int, ...]:
        """Spatial size of x."""
        return tuple(axis.input for axis in self.axes)

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Spatial size of the weight."""
        return tuple(axis.kernel for axis in self.axes)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial size of y."""
        return tuple(axis.output for axis in self.axes)

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x in the caller's layout."""
        return self._data_shape(self.in_channels, self.input_size)

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of y in the caller's layout."""
        return self._data_shape(self.out_channels, self.output_size)

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight in the caller's layout."""
        layout = WeightLayout.of(self.weight_format, self.rank)
        return layout.shape(self.in_channels, self.out_channels, self.groups, self.kernel_size)

    def shape_of(self, letter: Letter) -> tuple[int, ...]:
        """Shape of x, w or y."""
        shapes = {"x": self.x_shape, "w": self.weight_shape, "y": self.y_shape}
        try:
            return shapes[letter]
        except (KeyError, TypeError, ValueError):
            return shapes[as_choice(letter, "letter", shapes)]

    def terms(self, want: Letter) -> int:
        """Most products that are summed to one element of the wanted letter."""
        want = as_choice(want, "want", ("x", "w", "y"))
        if want == "w":
            return self.batch * prod(self.input_size)
        if want == "x":
            return prod(self.kernel_size) * (self.out_channels // self.groups)
        taps = prod(min(axis.taps_per_phase[1], axis.input) for axis in self.axes)
        return taps * (self.in_channels // self.groups)

    @property
    def flops(self) -> int:
        """Multiplications and additions: two per input cell, tap and channel pair."""
        pairs = self.in_channels * (self.out_channels // self.groups)
        return 2 * self.batch * pairs * prod(self.input_size) * prod(self.kernel_size)

    def unrolled_indices(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Flat spatial indices (i, k, o) of every non-zero of W*: entry (row i, column o) is tap k.

        Sorted by row, then by column; the pattern is the same for every pair of channels.

        >>> i, k, o = Geometry.of((1, 1, 2, 2), (1, 1, 2, 2)).unrolled_indices()
        >>> i
        array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])
        >>> o
        array([0, 1, 3, 4, 1, 2, 4, 5, 3, 4, 6, 7, 4, 5, 7, 8])
        """
        cells, exist = self.unrolled_cells()
        i, k = np.divmod(np.flatnonzero(exist), prod(self.kernel_size))
        return i, k, cells[exist]

    def unrolled_cells(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The flat cell of y under each tap of each cell of x, and whether it exists.

        >>> Geometry.of((1, 1, 2), (1, 1, 3), padding=1).unrolled_cells()
        (array([[-1,  0,  1],
               [ 0,  1,  2]]), array([[False,  True,  True],
               [ True,  True, False]]))
        """
        shape = self.input_size + self.kernel_size
        check_room("unrolled_indices", 4 * 8 * prod(shape))
        if prod(self.output_size) > np.iinfo(np.int64).max:
            raise ShapeError(
                f"output size {show(self.output_size)} has more cells than 64 bits count; lower "
                "it, or raise padding."
            )
        outputs, exist = np.zeros(shape, np.int64), np.ones(shape, np.bool_)
        for n, axis in enumerate(self.axes):
            o, exists = axis.joins()
            spread = [1] * (2 * self.rank)
            spread[n], spread[self.rank + n] = o.shape
            outputs = outputs * axis.output + o.reshape(spread)
            exist &= exists.reshape(spread)
        flat = prod(self.input_size), prod(self.kernel_size)
        return outputs.reshape(flat), exist.reshape(flat)

    def _data_shape(self, channels: int, spatial: tuple[int, ...]) -> tuple[int, ...]:
        batch = (self.batch,) if self.batched else ()
        if self.data_format == "channels_last":
            return (*batch, *spatial, channels)
        return (*batch, channels, *spatial)


def _of(
    make: Callable[..., Geometry], a: Any, b: Any, size: Any, keywords: Mapping[str, Any]
) -> Geometry:
    """Return what `make` returns, from a cache where the arguments can be its key."""
    given = (a, b, size, *keywords, *keywords.values())
    if all(map(is_cache_key, given)):
        types = tuple(map(type, given))  # because True equals 1
        return _cached(make, a, b, size, tuple(keywords.items()), types)
    return make(a, b, size, keywords)


@lru_cache(maxsize=4096)
def _cached(
    make: Callable[..., Geometry],
    a: tuple[int, ...],
    b: tuple[int, ...],
    size: Any,
    keywords: tuple[tuple[str, Any], ...],
    types: tuple[type, ...],
) -> Geometry:
    return make(a, b, size, dict(keywords))


@lru_cache(maxsize=4096)
def resized(geometry: Geometry, letter: Letter, shape: tuple[int, ...]) -> Geometry | None:
    """Sizes of the same layer for another shape of x or y, by the law of sizes alone.

    The padding is as it was, so a caller that had it from a rule such as "same" must ask again.
    None if the shape does not fit: the constructors then say why.

    >>> resized(Geometry.of_conv((1, 1, 6), (1, 1, 3), stride=2), "y", (1, 1, 9)).x_shape
    (1, 1, 4)
    """
    channels = geometry.in_channels if letter == "x" else geometry.out_channels
    is_plain = geometry.batched and geometry.data_format == "channels_first"
    if not is_plain or len(shape) != geometry.rank + 2 or shape[1] != channels:
        return None
    axes = []
    for axis, size in zip(geometry.axes, shape[2:], strict=True):
        if letter == "x":
            found = axis._replace(input=size, output=axis.law + (size - axis.input) * axis.stride)
        else:
            slack = size - axis._replace(input=1, extra=0).law
            more, left = divmod(slack, axis.stride)
            found = axis._replace(input=more + 1, output=size, extra=left)
        if min(axis.input, size, found.input, found.output) < 1:
            return None
        axes.append(found)
    return replace(geometry, batch=shape[0], axes=tuple(axes))
