"""Bands of sizes that share a choice of plan.

Choosing among hundreds of plans takes milliseconds, which a length that nobody has seen must not
cost. So plans are chosen for the largest size of a band, and fitted to the others of it. A band
follows from the sizes alone, never from what was computed before: so do the bits of a result.
"""

from dataclasses import replace

from tconv.engine.plan.phases import is_single
from tconv.engine.plan.problem import Problem
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry

__all__ = ["band_of", "narrow_band_of", "octave_of", "samples_of", "unsized"]

# Bands between a size and its double, of a long axis and of each of several. Fitted plans cost by
# the model what those chosen for each size do: 1.002 times that on the geometric mean of 200 random
# layers, 1.12 at most; of several axes 1.004 and 1.13 (AVX-512, one and two threads). With 4 bands
# along each of several axes it is 1.012 and 1.32. Where many sizes are expected, bands are wider.
_OF_ONE, _OF_EACH = 16, 8
_QUARTER = 2  # of a short axis bands are no wider than its size by so many halvings


def band_of(problem: Problem, lanes: int) -> Problem:
    """Return the problem with the largest sizes of its band, for vectors of so many elements.

    Axes of which all sizes are different problems, of one cell or one row of phases, stay.

    >>> from tconv.geometry.geometry import Geometry
    >>> of_band = band_of(Problem(Geometry.of((1, 64, 101), (64, 32, 4), stride=2)), 16)
    >>> of_band.geometry.axes[0].input, of_band.geometry.y_shape
    (111, (1, 32, 224))
    """
    if not problem.many_sizes:
        return narrow_band_of(problem, lanes)
    return _ending_at(problem, [_step_of_many(count, problem) for count in _counts(problem)])


def narrow_band_of(problem: Problem, lanes: int) -> Problem:
    """Return the problem with the largest sizes of its band, as if there were few sizes."""
    lanes = lanes if _has_one_axis(problem) else 0
    return _ending_at(problem, [_step(count, lanes) for count in _counts(problem)])


def _ending_at(problem: Problem, steps: list[int]) -> Problem:
    """The problem with the next multiples of so many rows of phases along each axis."""
    more = [-count % step for count, step in zip(_counts(problem), steps, strict=True)]
    return _grown(problem, more) if any(more) else problem


def samples_of(band: Problem, lanes: int) -> list[Problem]:
    """Return problems of the band whose largest sizes are these: some with the smallest, and this.

    >>> from tconv.geometry.geometry import Geometry
    >>> band = band_of(Problem(Geometry.of((1, 64, 101), (64, 32, 4), stride=2)), 16)
    >>> [sample.geometry.axes[0].input for sample in samples_of(band, 16)]
    [111, 96, 103]
    """
    if band.many_sizes:
        spans = [_step_of_many(count, band) - 1 for count in _counts(band)]
    else:
        lanes_of_one = lanes if _has_one_axis(band) else 0
        spans = [_step(count, lanes_of_one) - 1 for count in _counts(band)]
    found = [band]
    if any(spans):
        found += [_grown(band, [-span for span in spans]), _grown(band, [-n // 2 for n in spans])]
    if sum(span > 0 for span in spans) > 1:
        found += [
            _grown(band, [-span if n == axis else 0 for n, span in enumerate(spans)])
            for axis in range(len(spans))
            if spans[axis]
        ]
    # Where an axis shrinks to one cell it is exact, so no size of this band.
    return [sample for sample in found if band_of(sample, lanes) == band]


def octave_of(problem: Problem) -> Problem:
    """Return the problem with the largest sizes of its octave, whose ends are powers of two."""
    octaves = [1 << (count - 1).bit_length() if count > 1 else 1 for count in _counts(problem)]
    more = [octave - count for octave, count in zip(octaves, _counts(problem), strict=True)]
    return _grown(problem, more) if any(more) else problem


def _grown(problem: Problem, more: list[int]) -> Problem:
    """The problem with so many more rows of phases along each axis."""
    axes = tuple(
        [
            axis._replace(input=axis.input + n, output=axis.output + n * axis.stride)
            for axis, n in zip(problem.geometry.axes, more, strict=True)
        ]
    )
    return replace(problem, geometry=_with(problem, axes))


def _with(problem: Problem, axes: tuple[Axis, ...], batch: int | None = None) -> Geometry:
    """The geometry with other axes; it is in the layout that plans are made for."""
    geometry = problem.geometry
    batch = geometry.batch if batch is None else batch
    return Geometry(batch, geometry.in_channels, geometry.out_channels, geometry.groups, axes)


def unsized(problem: Problem) -> Problem:
    """Return a problem that stands for all with the same channels, taps and phases."""
    geometry = problem.geometry
    axes = tuple(
        [
            axis if count == 1 else axis._replace(input=0, output=0, end=0, extra=0)
            for axis, count in zip(geometry.axes, _counts(problem), strict=True)
        ]
    )
    return replace(
        problem,
        geometry=_with(problem, axes, 0),
        without_winograd=False,
        kept=True,
        many_sizes=False,
    )


def _counts(problem: Problem) -> list[int]:
    """Rows of phases along each axis; 1 where another number of them is another problem."""
    axes = problem.geometry.axes
    if problem.want == "x":
        return [axis.input for axis in axes]
    return [1 if is_single(axis) else -(-axis.output // axis.stride) for axis in axes]


def _has_one_axis(problem: Problem) -> bool:
    """Whether sizes differ along a single axis."""
    return sum(count > 1 for count in _counts(problem)) == 1


def _step_of_many(count: int, problem: Problem) -> int:
    """How wide the band is where many sizes are expected: an octave, of several axes half of one.

    Octaves end at powers of two.
    """
    octave = 1 << (count - 1).bit_length()
    return max(1, octave // (2 if _has_one_axis(problem) else 4))


def _step(count: int, lanes: int) -> int:
    """How wide the band is that a number of rows of phases is in; it ends at a multiple of that.

    Along a single axis, for which `lanes` is not 0, bands end where vectors do.

    >>> [_step(count, 0) for count in (1, 16, 17, 32, 33, 65, 129)]
    [1, 1, 2, 2, 4, 8, 16]
    >>> [_step(count, 16) for count in (1, 7, 17, 32, 33, 65, 129, 600)]
    [1, 1, 4, 4, 8, 16, 16, 32]
    """
    octave = 1 << (count - 1).bit_length() - 1 if count > 1 else 1  # less than the count
    step = max(1, octave // (_OF_ONE if lanes else _OF_EACH))
    return max(step, min(lanes, octave >> _QUARTER))
