"""Shape rules: the keywords of a call checked against its shapes, axis by axis.

Every error about shapes is raised here, with a remedy.
"""

from collections.abc import Mapping
from typing import Any, Literal

from tconv.errors import OutputSizeError, ParameterError, ShapeError
from tconv.geometry.arguments import (
    DATA_FORMATS,
    as_choice,
    as_flag,
    as_integer,
    as_padding,
    as_per_axis,
    as_size,
    entries_of,
    integer_of,
)
from tconv.geometry.axis import Axis
from tconv.geometry.axis_order import bare_kernel, bare_sample, likely_axes, swapped_channels
from tconv.geometry.keywords import SizeKeywords
from tconv.geometry.weight_formats import WEIGHT_FORMATS, WeightLayout
from tconv.messages import show
from tconv.signatures import defaults_of, hint

__all__ = ["MOST_AXES", "ShapeRules", "as_shape"]

MOST_AXES = 62  # spatial; NumPy has 64 in all

DEFAULTS = defaults_of(SizeKeywords) | {"of_layer": False}


class ShapeRules:
    """The keywords of one call and the shapes of weight and x (or y), each checked by its rule.

    `axis_from_input` and `axis_from_output` then complete one `Axis` each, or raise an error.
    With the keyword `of_layer` messages speak of a layer: its data is x, whatever the letter.
    """

    def __init__(
        self,
        keywords: Mapping[str, Any],
        weight_shape: tuple[int, ...],
        letter: Literal["x", "y"],
        data_shape: tuple[int, ...],
    ) -> None:
        unknown = sorted(keywords.keys() - DEFAULTS.keys())
        if unknown:
            name, known = unknown[0], [each for each in DEFAULTS if each != "of_layer"]
            raise TypeError(f"unexpected keyword argument {name!r}{hint(name, known)}")
        given = DEFAULTS | dict(keywords)
        self.of_layer = given["of_layer"]
        self.letter, self.weight_shape = letter, weight_shape
        self.name = "x" if self.of_layer else letter
        self.data_format = as_choice(given["data_format"], "data_format", DATA_FORMATS)
        self.weight_format = as_choice(given["weight_format"], "weight_format", WEIGHT_FORMATS)
        rank = self.rank = len(weight_shape) - 2
        self._check_axes(len(data_shape), given["groups"])
        self.flip_kernel = as_flag(given["flip_kernel"], "flip_kernel")
        self.groups = as_integer(given["groups"], "groups", 1)
        self.stride = as_per_axis(given["stride"], "stride", rank, 1)
        self.dilation = as_per_axis(given["dilation"], "dilation", rank, 1)
        self.padding = as_padding(given["padding"], rank)
        self.padding_name = given["padding"]
        self.extra = as_per_axis(given["output_padding"], "output_padding", rank, 0)
        for n in range(rank):
            self._check_extra(n)

        self.batched = len(data_shape) == rank + 2
        self.batch = data_shape[0] if self.batched else 1
        core = data_shape[1:] if self.batched else data_shape
        last = self.data_format == "channels_last"
        self.channels = core[-1] if last else core[0]
        self.spatial = core[:-1] if last else core[1:]
        self._read_weight()
        self._check_channels(data_shape)

    def _check_axes(self, ndim: int, groups: Any) -> None:
        """Refuse another number of axes; often those of channels are missing."""
        rank, name = self.rank, self.name
        if rank < 1:
            kernel = "a kernel without channels needs two more axes of size 1: "
            kernel += bare_kernel(self.weight_format)
            raise ShapeError(
                f"weight.ndim={rank + 2} must be at least 3 (two channel axes and one or more "
                f"spatial axes); {kernel if rank > -2 else 'reshape weight'}."
            )
        if ndim not in (rank + 1, rank + 2):
            layout = WeightLayout.of(self.weight_format, rank)
            channels = self.weight_shape[layout.inputs if self.letter == "x" else layout.outputs]
            remedy = f"reshape {name} or weight"
            if ndim == rank and channels == 1 == integer_of(groups):
                sample = bare_sample(name, self.data_format)
                remedy = f"for one sample without channels pass {sample}"
            raise ShapeError(
                f"{name}.ndim={ndim} must be {rank + 2} (batched) or {rank + 1} (unbatched) with "
                f"weight.ndim={rank + 2}; {remedy}."
            )

    def _check_extra(self, n: int) -> None:
        s, d, extra = self.stride[n], self.dilation[n], self.extra[n]
        if extra and isinstance(self.padding, str):
            raise ParameterError(
                f'output_padding[{n}]={extra} must be 0 with padding="{self.padding_name}", which '
                "sets the output size itself; leave it out, or pass explicit padding."
            )
        if extra >= max(s, d):
            raise ParameterError(
                f"output_padding[{n}]={extra} must be smaller than max(stride[{n}]={s}, "
                f"dilation[{n}]={d})={max(s, d)}; pass at most {max(s, d) - 1}, and lower padding "
                "for a larger output."
            )

    def _read_weight(self) -> None:
        shape, layout = self.weight_shape, WeightLayout.of(self.weight_format, self.rank)
        if 0 in shape:
            raise ShapeError(
                f"weight has shape {shape}, every size must be at least 1; pass a weight with "
                "channels and taps."
            )
        self.kernel = tuple(shape[n] for n in layout.kernel)
        self.in_channels, self.out_channels = shape[layout.inputs], shape[layout.outputs]
        if layout.outputs_divided:
            whole, name = self.in_channels, "input"
            self.out_channels *= self.groups
        else:
            whole, name = self.out_channels, "output"
            self.in_channels *= self.groups
        if whole % self.groups:
            raise ShapeError(
                f"groups={self.groups} must divide the {whole} {name} channels of weight of shape "
                f'{shape} (weight_format="{self.weight_format}"); pass {_divisors(whole)}.'
            )

    def _check_channels(self, data_shape: tuple[int, ...]) -> None:
        """Compare the data's channels with the weight's."""
        is_input = self.letter == "x"
        expected = self.in_channels if is_input else self.out_channels
        if self.channels == expected:
            return
        if self.of_layer:
            hint = swapped_channels(self.spatial, self.data_format, expected)
            raise ShapeError(
                f"x has {self.channels} channels but the layer has in_channels={expected}; pass x "
                f"with {expected} channels or a layer with in_channels={self.channels}{hint}."
            )
        data, weight = (data_shape, self.data_format), (self.weight_shape, self.weight_format)
        hint = likely_axes(self.name, *data, *weight, is_input, expected, self.groups)
        raise ShapeError(
            f"{self.name} has {self.channels} channels but weight of shape {self.weight_shape} "
            f'(weight_format="{self.weight_format}", groups={self.groups}) takes {expected}; pass '
            f"{self.name} with {expected} channels or another weight{hint}."
        )

    def wanted_size(self, value: Any, name: str) -> tuple[int, ...] | None:
        """Check output_size (for x) or input_size (for y); None leaves the size to the size law."""
        if value is None:
            return None
        if any(self.extra):
            raise ParameterError(
                f"{name}={show(value)} excludes output_padding={self.extra}: the size says it "
                "already; pass only one of the two."
            )
        channels = self.out_channels if self.letter == "x" else self.in_channels
        leading = (self.batch, channels) if self.batched else (channels,)
        return as_size(value, name, self.rank, leading, self.data_format == "channels_last")

    def axis_from_input(self, n: int, wanted: int | None, name: str) -> Axis:
        """Complete axis n of a transposed convolution from the size of x; `wanted` is that of y."""
        size, s, d = self.spatial[n], self.stride[n], self.dilation[n]
        if size == 0 and wanted is None:
            raise ShapeError(
                f"x has size 0 on spatial axis {n}, so nothing sets the output size; pass "
                "output_size for an output that holds only the bias."
            )
        if wanted == 0:  # only of an array y, never of output_size
            raise ShapeError(
                f"y has size 0 on spatial axis {n}, must be at least 1; pass a y that is not empty."
            )
        if isinstance(self.padding, str):
            output = size * s if wanted is None else wanted
            low = max((size - 1) * s + 1, 0)
            if size and not low <= output <= size * s:
                raise OutputSizeError(
                    f'{_size_of(name, n, output)} cannot be reached with padding="'
                    f'{self.padding_name}" from input size {size} and stride {s}: reachable '
                    f"{_span(low, size * s)}; pass one of these or explicit padding."
                )
            return self._same(n, size, output)
        begin, end = self.padding[n]
        axis = Axis(size, self.kernel[n], 0, s, d, begin, end, self.extra[n])
        if wanted is None:
            if axis.law < 1:
                raise ShapeError(
                    f"the output size on spatial axis {n}, ({size} - 1)*{s} + {d}*({axis.kernel} - "
                    f"1) + 1 - {begin} - {end} + {axis.extra} = {axis.law}, must be at least 1; "
                    f"lower padding[{n}] to a sum of at most {axis.full + axis.extra - 1}."
                )
            return axis._replace(output=axis.law)
        if size == 0:  # an empty x reaches every size; `end` takes the value that fits the law
            return axis._replace(output=wanted, end=axis.end + axis.law - wanted)
        extra = wanted - axis.law
        if not 0 <= extra < max(s, d):
            raise self._unreachable(n, axis, wanted, name)
        return axis._replace(output=wanted, extra=extra)

    def axis_from_output(self, n: int, wanted: int | None) -> Axis:
        """Complete axis n of a convolution from the size of y; `wanted` is that of x."""
        size, s, d, extra = self.spatial[n], self.stride[n], self.dilation[n], self.extra[n]
        if size == 0:
            raise ShapeError(
                f"{self.name} has size 0 on spatial axis {n}, must be at least 1; pass one that is "
                "not empty."
            )
        if isinstance(self.padding, str):
            fewest = -(-size // s)
            if wanted not in (None, fewest):
                raise ShapeError(
                    f"input_size[{n}]={wanted} cannot come from y of size {size} (stride {s}, "
                    f'padding="{self.padding_name}"): possible {_span(fewest, fewest)}; pass this '
                    "or another y."
                )
            return self._same(n, fewest, size)
        begin, end = self.padding[n]
        axis = Axis(1, self.kernel[n], size, s, d, begin, end, extra)
        slack = size - axis.law
        settings = f"kernel {axis.kernel}, stride {s}, dilation {d}, padding {(begin, end)}"
        settings += f", output_padding {extra}" if extra else ""
        if slack < 0:
            raise ShapeError(
                f"{self.name} has size {size} on spatial axis {n}, but the kernel needs {axis.law} "
                f"({settings}); pass a larger {self.name} or raise padding[{n}] by {-slack} in all."
            )
        if wanted is None:
            if extra and slack % s:
                left_over = (slack + extra) % s
                raise ShapeError(
                    f"output_padding[{n}]={extra} does not go with y of size {size} ({settings}): "
                    f"the last step leaves {left_over} over; pass output_padding[{n}]={left_over}."
                )
            return axis._replace(input=slack // s + 1, extra=extra + slack % s)
        left_over = slack - (wanted - 1) * s
        if not 0 <= left_over < max(s, d):
            fewest = max(0, -((max(s, d) - 1 - slack) // s)) + 1
            raise ShapeError(
                f"input_size[{n}]={wanted} cannot come from y of size {size} ({settings}): "
                f"possible {_span(fewest, slack // s + 1)}; pass one of these or another y."
            )
        return axis._replace(input=wanted, extra=left_over)

    def _same(self, n: int, size: int, output: int) -> Axis:
        """Crop so that input `size` gives `output`, like TensorFlow's SAME: less at the beginning.

        A negative crop (of a kernel smaller than its stride) extends the far side only, so
        "same_lower" is always the mirror image of "same_upper".
        """
        axis = Axis(size, self.kernel[n], output, self.stride[n], self.dilation[n])
        crop = axis.full - output
        less = crop // 2 if crop > 0 else 0
        begin, end = (less, crop - less) if self.padding == "same_upper" else (crop - less, less)
        return axis._replace(begin=begin, end=end)

    def _unreachable(self, n: int, axis: Axis, wanted: int, name: str) -> OutputSizeError:
        most = axis.law + max(axis.stride, axis.dilation) - 1
        crop = axis.full - wanted
        pairs = list(self.padding)
        pairs[n] = (crop // 2, crop - crop // 2)
        reachable = _span(max(axis.law, 1), most) if most > 0 else "is no size"
        return OutputSizeError(
            f"{_size_of(name, n, wanted)} cannot be reached from input size {axis.input} with "
            f"kernel {axis.kernel}, stride {axis.stride}, dilation {axis.dilation}, padding "
            f"{(axis.begin, axis.end)}: reachable {reachable}; for {wanted} pass "
            f"padding={tuple(pairs)}."
        )


def as_shape(value: Any, name: str) -> tuple[int, ...]:
    """Return a shape as a tuple of Python integers, each 0 or more."""
    sizes = entries_of(value)
    if sizes is None:
        raise ParameterError(
            f"{name}={show(value)} must be a sequence of integers; pass an array's shape."
        )
    ndim = getattr(value, "ndim", 1)
    if isinstance(ndim, int) and ndim > 1:
        array = name.removesuffix("_shape")
        raise ParameterError(
            f"{name} is an array of shape {value.shape}, must be a sequence of integers; pass "
            f"{array}.shape."
        )
    if len(sizes) > MOST_AXES + 2:
        raise ParameterError(
            f"{name}={show(value)} must have at most {MOST_AXES + 2} sizes; pass an array's shape."
        )
    return tuple(as_integer(size, f"{name}[{n}]", 0) for n, size in enumerate(sizes))


def _divisors(number: int) -> str:
    found = [str(n) for n in range(1, min(number, 64) + 1) if number % n == 0][:8]
    return "a divisor such as " + ", ".join(found) if len(found) > 1 else "1"


def _span(low: int, high: int) -> str:
    return f"is only {low}" if low == high else f"are {low} to {high}"


def _size_of(name: str, n: int, size: int) -> str:
    return f"y's size {size} on spatial axis {n}" if name == "y" else f"{name}[{n}]={size}"
