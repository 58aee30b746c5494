"""A contraction as the kernels see it, whichever letter is wanted.

    written[n, g, m, q*stride + phase] = sum over c, tap of
        weight[g, c, m, tap] * read[n, g, c, q*step - shift]

The kernels call the array that they read x and the one that they write y. If x is wanted, they read
y and write x, and the channels of w change places.
"""

from dataclasses import dataclass
from math import prod

from tconv.arrays.activations import Activation
from tconv.engine.plan.phases import Phases, as_three
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry, Letter
from tconv.system.fork_lock import cached_property

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """A geometry, channels first, batched and with weights (C, M/G, *K), and the letter wanted.

    If it is solved `without_winograd`, every product of the sum is computed. A `residual`, an array
    like the one that is written, is added to the sums, and the activation is applied to that. If
    the weight is not `kept`, it is packed for each call, and counts among the costs. `many_sizes`
    says that many sizes of the axes are expected: plans are chosen for wide bands of them.

    >>> problem = Problem(Geometry.of((1, 4, 5), (4, 6, 3), stride=2), "x")
    >>> problem.channels, problem.outputs, problem.read_size, problem.written_size
    (6, 4, (1, 1, 11), (1, 1, 5))
    """

    geometry: Geometry
    want: Letter = "y"
    without_winograd: bool = False
    activation: Activation | None = None
    residual: bool = False
    kept: bool = True
    many_sizes: bool = False

    @property
    def read(self) -> Letter:
        """The letter that is read beside w."""
        return "x" if self.want == "y" else "y"

    @cached_property
    def channels(self) -> int:
        """Channels of a group that are summed."""
        return self._channels_of(self.read)

    @cached_property
    def outputs(self) -> int:
        """Channels of a group that are written."""
        return self._channels_of(self.want)

    def _channels_of(self, letter: Letter) -> int:
        geometry = self.geometry
        channels = geometry.in_channels if letter == "x" else geometry.out_channels
        return channels // geometry.groups

    @cached_property
    def _axes(self) -> tuple[Axis, ...]:
        return as_three(self.geometry.axes)

    @cached_property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps of depth, height and width."""
        return tuple(axis.kernel for axis in self._axes)

    @cached_property
    def read_size(self) -> tuple[int, ...]:
        """Cells of depth, height and width that are read."""
        return tuple(axis.input if self.read == "x" else axis.output for axis in self._axes)

    @cached_property
    def written_size(self) -> tuple[int, ...]:
        """Cells of depth, height and width that are written."""
        return tuple(axis.input if self.want == "x" else axis.output for axis in self._axes)

    @cached_property
    def taps(self) -> int:
        """Taps of the kernel."""
        return prod(self.kernel_size)

    @cached_property
    def read_count(self) -> int:
        """Elements that are read."""
        return prod(self.geometry.shape_of(self.read))

    @cached_property
    def written_count(self) -> int:
        """Elements that are written."""
        return prod(self.geometry.shape_of(self.want))

    def weight_steps(self, taps: int) -> tuple[int, int]:
        """Elements from one summed channel of w to the next, and from one written channel."""
        if self.want == "y":
            return self.outputs * taps, taps
        return taps, self.channels * taps

    def phases(self, is_uncropped: bool = False, is_spaced: bool = False) -> Phases:
        """The phases of the outputs."""
        found = Phases.of(self.geometry.axes, is_uncropped, self.want)
        return found.spaced() if is_spaced else found

    def winograd_phases(self, is_uncropped: bool, outputs: tuple[int, int, int]) -> Phases:
        """The phases of Winograd: sets of so many outputs whose taps are neighbours."""
        return Phases.of_winograd(self.geometry.axes, is_uncropped, self.want, outputs)
