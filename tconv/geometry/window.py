"""Window of an operator along one axis: the cells that it reads, makes, and can make already."""

from fractions import Fraction
from typing import NamedTuple

from tconv.geometry.geometry import Letter

__all__ = ["SAME", "Window"]


class Window(NamedTuple):
    """How cells of a result lie over cells of an operand, along one axis of unlimited length.

    Cells before the first and after the last count as zeros, so that no rule has a case for
    borders: what lies outside of an operand is set to zero before it is read.

    Attributes
    ----------
    want : "y" for a transposed convolution and for shifts, "x" for a convolution and for pooling
    reach : cells from the first tap to the last, both counted
    stride, begin, end, extra : as in `tconv.geometry.Axis`: crop for "y", padding for "x"

    >>> upsampling = Window("y", reach=4, stride=2, begin=1, end=1)
    >>> upsampling.size(10), upsampling.reads(0, 4), upsampling.ready(10)
    (20, (-1, 3), 19)
    """

    want: Letter = "y"
    reach: int = 1
    stride: int = 1
    begin: int = 0
    end: int = 0
    extra: int = 0

    @property
    def rate(self) -> Fraction:
        """Cells of the result for each cell of the operand."""
        return Fraction(self.stride) if self.want == "y" else Fraction(1, self.stride)

    @property
    def middle(self) -> tuple[float, float]:
        """Scale and offset: cell n of the result stands at ``scale*n + offset`` in the operand.

        >>> Window("y", reach=4, stride=2, begin=1, end=1).middle
        (0.5, -0.25)
        """
        shift = self.begin - (self.reach - 1) / 2
        if self.want == "x":
            return float(self.stride), -shift
        return 1 / self.stride, shift / self.stride

    @property
    def is_local(self) -> bool:
        """Whether cell n of the result reads cell n and no other."""
        return self in (SAME, Window("x"))

    def size(self, count: int) -> int:
        """Cells of the whole result of so many cells; below 1 where there is no result."""
        if self.want == "x":
            return (count + self.begin + self.end - self.reach) // self.stride + 1
        return (count - 1) * self.stride + self.reach - self.begin - self.end + self.extra

    def reads(self, start: int, stop: int) -> tuple[int, int]:
        """The cells [first, last) that the results [start, stop) read; they may lie outside."""
        if self.want == "x":
            first = start * self.stride - self.begin
            return first, (stop - 1) * self.stride - self.begin + self.reach
        low = start + self.begin
        # At most the cell whose first tap lies here, so that the crop of a piece is never negative.
        first = min(-((self.reach - 1 - low) // self.stride), low // self.stride)
        return first, (stop - 1 + self.begin) // self.stride + 1

    def ready(self, count: int) -> int:
        """How many results depend on the first `count` cells alone, if all of them exist."""
        if self.want == "x":
            return (count + self.begin - self.reach) // self.stride + 1
        return count * self.stride - self.begin

    def piece(self, start: int, stop: int, read: tuple[int, int]) -> tuple[int, int, int]:
        """Begin, end and extra of the call that makes results [start, stop) of the cells `read`.

        >>> Window("y", reach=4, stride=2, begin=1, end=1).piece(4, 8, (1, 5))
        (3, 3, 0)
        >>> Window("x", reach=3, begin=1, end=1).piece(0, 4, (0, 4))
        (1, 1, 0)
        """
        first, last = read
        if self.want == "x":
            low, high = self.reads(start, stop)
            return first - low, high - last, 0
        begin = start + self.begin - first * self.stride
        end = (last - first - 1) * self.stride + self.reach - begin - (stop - start)
        return begin, max(end, 0), max(-end, 0)


SAME = Window()
"""Of operators that work cell by cell."""
