"""bands of sizes that share a choice of plan.

Choosing among hundreds of plans takes milliseconds, which a length that nobody has seen must not
cost. So plans are chosen for the largest size of a band, and fitted to the others of it. A band
follows from the sizes alone, never from what was computed before: so do the bits of a result.
"""

from dataclasses import replace

from tconv.engine.phases import is_single
from tconv.engine.problem import Problem
from tconv.geometry import Geometry

__all__ = ["band_of", "unsized"]

# Bands between a size and its double, of a long axis and of each of several. Fitted plans cost by
# the model what those chosen for each size do: 1.002 times that on the geometric mean of 200 random
# layers, 1.12 at most; of several axes 1.004 and 1.13 (AVX-512, one and two threads). With 4 bands
# along each of several axes it is 1.012 and 1.32.
_OF_ONE, _OF_EACH = 16, 8
_QUARTER = 2  # of a short axis bands are no wider than its size by so many halvings


def band_of(problem: Problem, lanes: int) -> Problem:
    """Return the problem with the largest sizes of its band, for vectors of so many numbers.

    Axes of which all sizes are different problems, of one cell or one row of phases, stay.

    >>> from tconv.geometry import Geometry
    >>> of_band = band_of(Problem(Geometry.of((1, 64, 101), (64, 32, 4), stride=2)), 16)
    >>> of_band.geometry.axes[0].input, of_band.geometry.y_shape
    (111, (1, 32, 224))
    """
    axes, counts = problem.geometry.axes, _counts(problem)
    is_one = sum(count > 1 for count in counts) == 1
    found = []
    for axis, count in zip(axes, counts, strict=True):
        more = _largest(count, lanes if is_one else 0) - count if count > 1 else 0
        found.append(
            axis._replace(input=axis.input + more, output=axis.output + more * axis.stride)
        )
    if tuple(found) == axes:
        return problem
    return replace(problem, geometry=replace(problem.geometry, axes=tuple(found)))


def unsized(problem: Problem) -> Problem:
    """Return a problem that stands for all with the same channels, taps and phases."""
    geometry = problem.geometry
    axes = tuple(
        [
            axis if count == 1 else axis._replace(input=0, output=0, end=0, extra=0)
            for axis, count in zip(geometry.axes, _counts(problem), strict=True)
        ]
    )
    size = (geometry.in_channels, geometry.out_channels, geometry.groups, axes)
    return Problem(Geometry(0, *size), problem.want, False, problem.activation)


def _counts(problem: Problem) -> list[int]:
    """Rows of phases along each axis; 1 where another number of them is another problem."""
    axes = problem.geometry.axes
    if problem.want == "x":
        return [axis.input for axis in axes]
    return [1 if is_single(axis) else -(-axis.output // axis.stride) for axis in axes]


def _largest(count: int, lanes: int) -> int:
    """The largest of the band that a number of rows of phases is in.

    Along a single axis, of which `lanes` are told, bands end where vectors do.

    >>> [_largest(count, 0) for count in (7, 17, 33, 65, 129)]
    [7, 18, 36, 72, 144]
    >>> [_largest(count, 16) for count in (7, 17, 33, 65, 129, 600)]
    [7, 20, 40, 80, 144, 608]
    """
    octave = 1 << (count.bit_length() - 1)
    step = max(1, octave // (_OF_ONE if lanes else _OF_EACH))
    step = max(step, min(lanes, octave >> _QUARTER))
    return -(-count // step) * step
