"""Advice for arrays whose axes are missing or stand in another order."""

from math import prod

from tconv.geometry.weight_formats import WEIGHT_FORMATS, WeightLayout

__all__ = ["bare_kernel", "bare_sample", "fitting_weight_format", "likely_axes", "swapped_channels"]

_CHANNELS_FIRST = "channels_first"


def bare_sample(name: str, data_format: str) -> str:
    """The expression that gives one sample of one channel its two missing axes.

    >>> bare_sample("x", "channels_first"), bare_sample("x", "channels_last")
    ('x[None, None]', 'x[None, ..., None]')
    """
    return f"{name}[None, None]" if data_format == _CHANNELS_FIRST else f"{name}[None, ..., None]"


def bare_kernel(weight_format: str) -> str:
    """The expression that gives a kernel without channels its two missing axes.

    >>> bare_kernel("IO*"), bare_kernel("*OI"), bare_kernel("O*I")
    ('weight[None, None]', 'weight[..., None, None]', 'weight[None, ..., None]')
    """
    before, after = weight_format.split("*")
    parts = ["None"] * len(before) + ["..."] + ["None"] * len(after)
    return f"weight[{', '.join(parts if after else parts[:-1])}]"


def fitting_weight_format(
    shape: tuple[int, ...], weight_format: str, is_input: bool, channels: int
) -> str | None:
    """Another format in which a weight, without groups, takes (or makes) so many channels.

    Of several the one with the fewest taps is likely meant, then the one whose kernel stands in the
    same place.

    >>> fitting_weight_format((3, 3, 64, 128), "IO*", True, 64)
    '*IO'
    """
    rank, found = len(shape) - 2, []
    for other in WEIGHT_FORMATS:
        layout = WeightLayout.of(other, rank)
        if (
            other != weight_format
            and channels == shape[layout.inputs if is_input else layout.outputs]
        ):
            moved = other.index("*") != weight_format.index("*")
            found.append((prod(shape[n] for n in layout.kernel), moved, other))
    return min(found)[2] if found else None


def likely_axes(
    name: str,
    data_shape: tuple[int, ...],
    data_format: str,
    weight_shape: tuple[int, ...],
    weight_format: str,
    is_input: bool,
    channels: int,
    groups: int,
) -> str:
    """What else can be meant where data of `data_shape` do not have the weight's `channels`.

    The result continues a sentence; it is empty if nothing fits.
    """
    rank = len(weight_shape) - 2
    batched, first = len(data_shape) == rank + 2, data_format == _CHANNELS_FIRST
    core = data_shape[1:] if batched else data_shape
    found = core[0] if first else core[-1]
    if swapped := swapped_channels(core[1:] if first else core[:-1], data_format, channels):
        return swapped
    if channels == 1 and not batched:
        inserted = "[:, None]" if first else "[..., None]"
        return f", or {name}{inserted} if {name} is a batch without channels"
    if rank == 1 and batched and len(set(weight_shape)) == 1:  # a kernel of three axes
        sample, kernel = bare_sample(name, data_format), bare_kernel(weight_format)
        return f", or {sample} and {kernel} for a volume and a kernel without channels"
    other = fitting_weight_format(weight_shape, weight_format, is_input, found)
    if other and groups == 1:
        return f', or weight_format="{other}" if the axes of weight stand in that order'
    return ""


def swapped_channels(spatial: tuple[int, ...], data_format: str, channels: int) -> str:
    """What to add to a message where the channels seem to stand at the other end of the data.

    >>> swapped_channels((8, 3), "channels_first", 3)
    ', or data_format="channels_last" if the channels stand there'
    """
    first = data_format == _CHANNELS_FIRST
    if channels != (spatial[-1] if first else spatial[0]):
        return ""
    better = "channels_last" if first else _CHANNELS_FIRST
    return f', or data_format="{better}" if the channels stand there'
