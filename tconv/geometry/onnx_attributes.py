"""Attributes of ONNX's ConvTranspose and Conv, as sizes and as arguments.

This file needs no onnx package: it reads a node by the fields that every NodeProto has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from tconv.errors import OutputSizeError, ParameterError, ShapeError, UnsupportedError
from tconv.geometry.arguments import as_choice, as_integer, as_per_axis
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry, Letter
from tconv.messages import show

__all__ = ["ConvAttributes", "NodeAttributes"]

_AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_PER_AXIS = {"strides": 1, "dilations": 1, "output_padding": 0, "kernel_shape": 1}
"""Attributes with one integer per axis, and their lower bounds."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class NodeAttributes:
    """The attributes of one ConvTranspose; None for an attribute that the node does not set.

    References
    ----------
    ONNX operator ConvTranspose, versions 1, 11 and 22. Where the specification leaves a choice,
    this follows ONNX Runtime: an odd total padding puts its extra cell at the beginning, under
    SAME_UPPER at the end; SAME never pads to more than the full output; -1 in output_shape leaves
    that axis to the other attributes.

    >>> NodeAttributes.of({"strides": [3], "auto_pad": "SAME_UPPER"}).geometry((1, 1, 3), (1, 1, 2))
    Geometry(batch=1, in_channels=1, out_channels=1, groups=1, axes=(Axis(input=3, kernel=2, \
output=8, stride=3, dilation=1, begin=0, end=0, extra=0),), data_format='channels_first', \
weight_format='IO*', flip_kernel=False, batched=True)
    """

    operator: ClassVar[str] = "ConvTranspose"
    want: ClassVar[Letter] = "y"
    reads: ClassVar[Letter] = "x"
    not_of_it: ClassVar[frozenset[str]] = frozenset()

    auto_pad: str = "NOTSET"
    dilations: tuple[int, ...] | None = None
    group: int = 1
    kernel_shape: tuple[int, ...] | None = None
    output_padding: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    pads: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "NodeAttributes":
        """Check each attribute by its own rule.

        >>> NodeAttributes.of({"auto_pad": "SAME"})
        Traceback (most recent call last):
        ...
        tconv.errors.ParameterError: auto_pad='SAME' must be one of 'NOTSET', 'SAME_UPPER', \
'SAME_LOWER', 'VALID'; pass one of these.
        """
        known = [field.name for field in fields(cls) if field.name not in cls.not_of_it]
        unknown = sorted(attributes.keys() - set(known))
        if unknown:
            raise ParameterError(
                f"{unknown[0]}={show(attributes[unknown[0]])} must be an attribute of "
                f"{cls.operator}, which are {', '.join(known)}; leave it out."
            )
        given: dict[str, Any] = dict(attributes)
        given["auto_pad"] = as_choice(given.get("auto_pad") or "NOTSET", "auto_pad", _AUTO_PADS)
        given["group"] = as_integer(given.get("group", 1), "group", 1)
        for name in ("output_shape", "pads", *_PER_AXIS):
            values = given.pop(name, None)
            if values is not None and not isinstance(values, (tuple, list)):
                raise ParameterError(
                    f"{name}={show(values)} must be a list of integers; pass [{values}]."
                )
            if values:
                given[name] = as_per_axis(values, name, len(values), _PER_AXIS.get(name))
        if given.get("pads") is not None and given["auto_pad"] != "NOTSET":
            raise ParameterError(
                f"pads={list(given['pads'])} must be absent with auto_pad={given['auto_pad']}, "
                "which sets the padding itself; leave one of the two out."
            )
        return cls(**given)

    @classmethod
    def of_node(cls, node: Any) -> "NodeAttributes":
        """Read the attributes of an onnx NodeProto."""
        values: dict[str, Any] = {}
        for attribute in node.attribute:
            if attribute.name in values:
                raise ParameterError(f"{attribute.name} is given twice; leave one of the two out.")
            kinds = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints", 8: "strings"}
            value = getattr(attribute, kinds.get(attribute.type, "t"))
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            values[attribute.name] = list(value) if attribute.type in (6, 7, 8) else value
        return cls.of(values)

    def geometry(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> Geometry:
        """Sizes of the node for an x and a weight.

        Raises
        ------
        ParameterError, ShapeError, OutputSizeError : as `conv_transpose`, about the attributes
        """
        rank = self._rank(x_shape, weight_shape)
        self._check_channels(x_shape, weight_shape)
        stride, dilation, extra = self._checked(rank, weight_shape[2:])
        padding, law = [], []
        for n in range(rank):
            axis = Axis(x_shape[n + 2], weight_shape[n + 2], 1, stride[n], dilation[n], 0, 0)
            wanted = None if self.output_shape is None else self.output_shape[n - rank]
            wanted = None if wanted == -1 else wanted
            begin, end, extra[n] = self._crop(n, axis, extra[n], wanted)
            padding.append((begin, end))
            law.append(axis._replace(begin=begin, end=end, extra=extra[n]).law)
            if law[n] < 1:
                fix = f"lower pads[{n}] and pads[{n + rank}] to a sum of at most "
                fix += str(axis.full + extra[n] - 1)
                raise ShapeError(
                    f"the output size on spatial axis {n}, ({axis.input} - 1)*{axis.stride} + "
                    f"{axis.dilation}*({axis.kernel} - 1) + 1 - {begin} - {end} + {extra[n]} = "
                    f"{law[n]}, must be at least 1; "
                    f"{fix if axis.input else 'pass an X that is not empty'}."
                )
        sizes: dict[str, Any] = {"output_padding": extra}
        if 0 in x_shape[2:]:  # tconv asks the caller for the size, ONNX has the law
            sizes = {"output_size": law}
        return Geometry.of(
            x_shape,
            weight_shape,
            stride=stride,
            padding=tuple(padding),
            dilation=dilation,
            groups=self.group,
            **sizes,
        )

    def _rank(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> int:
        """Number of spatial axes."""
        rank = len(weight_shape) - 2
        if len(x_shape) != len(weight_shape) or rank < 1:
            raise ShapeError(
                f"X has shape {tuple(x_shape)} and W {tuple(weight_shape)}, both must have a batch "
                "or input channel axis, a channel axis and the same one or more spatial axes; "
                "reshape X or W."
            )
        return rank

    def _check_channels(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> None:
        if 0 in weight_shape:
            raise ShapeError(
                f"W has shape {tuple(weight_shape)}, every size must be at least 1; pass a W with "
                "channels and taps."
            )
        channels, which = weight_shape[0], "input" if self.want == "y" else "output"
        if channels % self.group:
            raise ShapeError(
                f"group={self.group} must divide the {channels} {which} channels of W of shape "
                f"{tuple(weight_shape)}; set group=1, or another divisor."
            )
        if self.want == "x":
            channels = weight_shape[1] * self.group
        if x_shape[1] != channels:
            raise ShapeError(
                f"X has {x_shape[1]} channels but W of shape {tuple(weight_shape)} takes "
                f"{channels}; pass an X with {channels} channels."
            )

    def arguments(self, kernel_size: tuple[int, ...]) -> dict[str, Any]:
        """Return stride, padding, output_padding, dilation and groups that hold for any size.

        >>> NodeAttributes.of({"strides": [2], "auto_pad": "SAME_LOWER"}).arguments((3,))["padding"]
        ((1, 0),)

        Raises
        ------
        UnsupportedError : the node has output_shape, which no padding gives for every size
        """
        if self.output_shape is not None:
            raise UnsupportedError(
                f"output_shape={list(self.output_shape)} fits one size of X only, a layer takes "
                "any; replace it by pads and output_padding."
            )
        rank = len(kernel_size)
        stride, dilation, extra = self._checked(rank, kernel_size)
        crops = []
        for n, kernel in enumerate(kernel_size):
            axis = Axis(1, kernel, 1, stride[n], dilation[n])  # SAME crops the same at every size
            crops.append(self._crop(n, axis, extra[n], None)[:2])
        return {
            "stride": stride,
            "padding": tuple(crops),
            "output_padding": tuple(extra),
            "dilation": dilation,
            "groups": self.group,
        }

    def _checked(
        self, rank: int, kernel: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...], list[int]]:
        """Strides, dilations and output_padding, after checks of their lengths."""
        lengths = {"pads": (2 * rank,), "output_shape": (rank, rank + 2)}
        for name in ("pads", "output_shape", *_PER_AXIS):
            values, allowed = getattr(self, name), lengths.get(name, (rank,))
            if values is not None and len(values) not in allowed:
                raise ParameterError(
                    f"{name}={list(values)} must have {' or '.join(map(str, allowed))} integers "
                    f"with {rank} spatial axes, not {len(values)}; pass so many."
                )
        if self.kernel_shape not in (None, tuple(kernel)):
            raise ShapeError(
                f"kernel_shape={list(self.kernel_shape or ())} must be the weight's "
                f"{list(kernel)}; pass another weight or leave kernel_shape out."
            )
        ones = (1,) * rank
        strides, dilations = self.strides or ones, self.dilations or ones
        extra = list(self.output_padding or (0,) * rank)
        for n, (s, d) in enumerate(zip(strides, dilations, strict=True)):
            if extra[n] >= max(s, d):
                raise ParameterError(
                    f"output_padding[{n}]={extra[n]} must be smaller than max(strides[{n}]={s}, "
                    f"dilations[{n}]={d})={max(s, d)}; set it to at most {max(s, d) - 1}, and for "
                    "a larger output lower pads."
                )
        return strides, dilations, extra

    def _crop(self, n: int, axis: Axis, extra: int, wanted: int | None) -> tuple[int, int, int]:
        """Return begin, end and extra of one axis; `wanted` is its entry in output_shape."""
        if wanted is not None:
            reachable = axis.full + max(axis.stride, axis.dilation) - 1
            if not 1 <= wanted <= reachable:
                which = f"reachable are 1 to {reachable}; set one of these"
                if reachable < 1:
                    which = "reachable is no size; pass an X that is not empty"
                raise OutputSizeError(
                    f"output_shape[{n}]={wanted} cannot be reached from input size {axis.input} "
                    f"with kernel {axis.kernel}, stride {axis.stride}, dilation {axis.dilation}: "
                    f"{which}."
                )
            total = axis.full + extra - wanted
            if total < 0:
                return 0, 0, extra - total
            return *self._split(total), extra
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            return *self._split(max(0, axis.full + extra - axis.input * axis.stride)), extra
        if self.pads is None:
            return 0, 0, extra
        return self.pads[n], self.pads[n + len(self.pads) // 2], extra

    def _split(self, total: int) -> Pair:
        less, more = total // 2, total - total // 2
        return (less, more) if self.auto_pad == "SAME_UPPER" else (more, less)

    def __str__(self) -> str:
        """The attributes that the node sets, as a report shows them."""
        defaults = type(self)()
        parts = []
        for name in type(self).__dataclass_fields__:
            value = getattr(self, name)
            if value == getattr(defaults, name) or name == "kernel_shape":
                continue
            if isinstance(value, tuple):
                if name in ("strides", "dilations") and set(value) == {1}:
                    continue
                if name in ("pads", "output_padding") and set(value) == {0}:
                    continue
                value = "x".join(map(str, value)) if name != "pads" else ",".join(map(str, value))
            parts.append(f"{name} {value}")
        return ", ".join(parts)


class ConvAttributes(NodeAttributes):
    """The attributes of one Conv: the transpose of a ConvTranspose with the same weight.

    Its X is y in the `Geometry`, its result is x.

    References
    ----------
    ONNX operator Conv, versions 1, 11 and 22. An odd total padding of SAME puts its extra cell at
    the end under SAME_UPPER, at the beginning under SAME_LOWER.

    >>> ConvAttributes.of({"strides": [2], "auto_pad": "SAME_UPPER"}).geometry((1, 1, 5), (1, 1, 3))
    Geometry(batch=1, in_channels=1, out_channels=1, groups=1, axes=(Axis(input=3, kernel=3, \
output=5, stride=2, dilation=1, begin=1, end=1, extra=0),), data_format='channels_first', \
weight_format='IO*', flip_kernel=False, batched=True)
    """

    operator = "Conv"
    want = "x"
    reads = "y"
    not_of_it = frozenset({"output_padding", "output_shape"})

    def geometry(self, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> Geometry:
        """Sizes of the node for an X and a W.

        Raises
        ------
        ParameterError, ShapeError : as `conv`, about the attributes
        """
        rank = self._rank(x_shape, weight_shape)
        self._check_channels(x_shape, weight_shape)
        stride, dilation, _ = self._checked(rank, weight_shape[2:])
        padding = []
        for n, (s, d) in enumerate(zip(stride, dilation, strict=True)):
            size, span = x_shape[n + 2], d * (weight_shape[n + 2] - 1) + 1
            if size == 0:
                raise ShapeError(
                    f"X has size 0 on spatial axis {n}, must be at least 1; pass an X that is not "
                    "empty."
                )
            begin, end = self._around(n, rank, (-(-size // s) - 1) * s + span - size)
            if begin + size + end < span:
                fix = "raise" if self.auto_pad == "NOTSET" else "leave auto_pad out and set"
                raise ShapeError(
                    f"X has size {size} on spatial axis {n} and pads of {begin} and {end}, "
                    f"together they must be at least the {span} that W covers; {fix} pads[{n}] and "
                    f"pads[{n + rank}] to a sum of at least {span - size}."
                )
            padding.append((begin, end))
        return Geometry.of_conv(
            x_shape,
            weight_shape,
            stride=stride,
            padding=tuple(padding),
            dilation=dilation,
            groups=self.group,
        )

    def _around(self, n: int, rank: int, total: int) -> Pair:
        """Return the padding before and after one axis; SAME splits `total`."""
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            return self._split(max(0, total))
        return (0, 0) if self.pads is None else (self.pads[n], self.pads[n + rank])
