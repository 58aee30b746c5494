"""The five weight formats: the axes of a weight that hold channels and taps."""

from typing import NamedTuple

__all__ = ["WEIGHT_FORMATS", "WeightLayout"]


class WeightLayout(NamedTuple):
    """Which axis of a weight holds what, for one format and rank.

    With groups one of the channel axes holds only one group's share: the outputs' where the format
    follows the transposed convolution (PyTorch, ONNX, TensorFlow), the inputs' where the library
    stores it like the weight of an ordinary convolution (JAX, Equinox, MLX).
    """

    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    outputs_divided: bool

    @classmethod
    def of(cls, weight_format: str, rank: int) -> "WeightLayout":
        """Read a format such as "IO*"; the star stands for the kernel's axes.

        >>> WeightLayout.of("*OI", 2)
        WeightLayout(inputs=3, outputs=2, kernel=(0, 1), outputs_divided=True)
        """
        star = weight_format.index("*")
        place = {letter: n if n < star else n + rank - 1 for n, letter in enumerate(weight_format)}
        kernel = tuple(range(star, star + rank))
        return cls(place["I"], place["O"], kernel, WEIGHT_FORMATS[weight_format])

    def shape(
        self, in_channels: int, out_channels: int, groups: int, kernel: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Shape of a weight in this layout.

        >>> WeightLayout.of("O*I", 1).shape(8, 6, groups=2, kernel=(3,))
        (6, 3, 4)
        """
        sizes = dict(zip(self.kernel, kernel, strict=True))
        sizes[self.inputs] = in_channels if self.outputs_divided else in_channels // groups
        sizes[self.outputs] = out_channels // groups if self.outputs_divided else out_channels
        return tuple(sizes[n] for n in range(len(sizes)))


WEIGHT_FORMATS = {
    "IO*": True,  # PyTorch, ONNX
    "*OI": True,  # Keras, TensorFlow
    "*IO": False,  # Flax
    "OI*": False,  # Equinox
    "O*I": False,  # MLX
}
"""Format to whether the output channels, not the input channels, are divided by groups."""
