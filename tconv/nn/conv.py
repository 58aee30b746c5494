"""Convolution layers by name: transposed and ordinary ones of any rank."""

from __future__ import annotations

from typing import Any, ClassVar, Never, Self

from numpy.typing import NDArray

from tconv.arrays.activations import as_activation
from tconv.geometry.geometry import Letter
from tconv.nn.conv_base import Convolution, Residuals
from tconv.nn.init import Initialiser
from tconv.nn.onnx_export import model_of, read_node
from tconv.signatures import readable, unknown_keyword

__all__ = [
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]


class ConvTranspose(Convolution):
    """`conv_transpose` with a weight and a bias that are learnt, of any rank.

    The arguments are PyTorch's, in its order.

    Parameters
    ----------
    in_channels : int, or None to take it from the first x
    out_channels : int
    kernel_size : tuple of int, one per spatial axis: its length is the rank. `ConvTranspose1d`,
        `ConvTranspose2d` and `ConvTranspose3d` also take one int.
    stride, padding, output_padding, groups, dilation, padding_mode, data_format : as for
        `conv_transpose`
    bias : bool
    dtype : "float32", "float64", "float16" or "bfloat16", of x, y and the parameters
    initialiser : "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal",
        "bilinear", "icnr", "torch" or "zeros", or a function like `init_torch`. "kaiming_uniform"
        keeps the variance between rectifiers, "bilinear" interpolates, "icnr" starts without a
        checkerboard, "torch" starts at PyTorch's scale. The bias starts as 0, but for "torch".
    rng : numpy.random.Generator or a seed, for the initialiser
    activation : None, "relu" or another one that `plan` takes, applied to sums and bias without a
        further pass over y. backward computes the derivative from y; but "silu", "hard_swish",
        "gelu", ("snake", a) and a prelu of negative slope need the sums, so forward keeps these
        beside y and applies the activation in a pass of its own. predict does not.

    Attributes
    ----------
    weight : Parameter (in_channels, out_channels // groups, *kernel_size). Assigning an array sets
        its values, ``layer.weight.value``; the object, which optimisers hold, stays the same.
    bias : Parameter (out_channels,), or None; an array that is assigned sets its values
    activation : as given; it may be changed

    ``forward(x, output_size=None)`` takes x (N, C, *I) or (C, *I) and returns y (N, M, *O);
    `output_size` is that of `conv_transpose`, in place of output_padding.

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : when the layer is made; with the
        message that `conv_transpose` gives for the same mistake

    >>> up = ConvTranspose2d(3, 3, 4, stride=2, padding=1, initialiser="bilinear")
    >>> up
    ConvTranspose2d(3, 3, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))
    >>> y = up(np.ones((1, 3, 8, 8), np.float32))
    >>> y.shape
    (1, 3, 16, 16)
    >>> up.backward(np.ones_like(y)).shape, up.weight.gradient.shape
    ((1, 3, 8, 8), (3, 3, 4, 4))
    >>> up(np.ones((1, 3, 8, 8), np.float32), output_size=17).shape
    (1, 3, 17, 17)
    """

    _wanted: ClassVar[Letter] = "y"
    _given: ClassVar[Letter] = "x"

    @readable
    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        *,
        data_format: str = "channels_first",
        dtype: Any = "float32",
        initialiser: str | Initialiser = "kaiming_uniform",
        rng: Any = None,
        activation: Any = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_keyword(ConvTranspose.__init__, unknown)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            data_format=data_format,
            dtype=dtype,
            initialiser=initialiser,
            rng=rng,
            activation=activation,
        )

    def compute(self, x: Any, output_size: Any = None) -> tuple[NDArray[Any], Residuals]:
        """Return y and the residuals for `pull_back`."""
        return self.solve(x, output_size)

    def predict(self, x: Any, output_size: Any = None) -> NDArray[Any]:
        """Return y and keep nothing; the residuals of an earlier `forward` stay."""
        if type(self).compute is not ConvTranspose.compute:  # that of a subclass
            return super().predict(x, output_size)  # type: ignore[no-any-return]
        return self.solve(x, output_size, keeps=False)[0]

    @classmethod
    def from_onnx(cls, node: Any, weights: Any) -> Self:
        """Make a layer from an ONNX ConvTranspose, with copies of its values.

        Parameters
        ----------
        node : onnx.NodeProto
        weights : the onnx.ModelProto or GraphProto of the node, with initialisers and Constants;
            the initializer of a graph; or a mapping of names to arrays

        Raises
        ------
        ParameterError, ShapeError : the node is no ConvTranspose, breaks its own rules, or reads a
            value that weights lacks or that is no constant
        ModelError : a weight is damaged, or lies in a file that was not loaded
        UnsupportedError : the node has output_shape, which fits one size of x only

        >>> model = ConvTranspose2d(1, 1, 3, stride=2, initialiser="bilinear").to_onnx()
        >>> ConvTranspose2d.from_onnx(model.graph.node[0], model)
        ConvTranspose2d(1, 1, kernel_size=(3, 3), stride=(2, 2))
        """
        arguments, weight, bias = read_node(node, weights)
        layer = cls(**arguments, initialiser="zeros")
        layer.weight.value = weight
        if layer.bias is not None:
            layer.bias.value = bias
        return layer

    def to_onnx(self) -> Any:
        """Return an onnx.ModelProto of this layer alone, "x" (N, C, *I) to "y" (N, M, *O).

        An activation is a node of its own; silu is two and snake five. ONNX has the parameters of
        LeakyRelu, Elu and HardSigmoid as float32.

        Raises
        ------
        TConvError : the parameters are not drawn yet
        UnsupportedError : ONNX has no channels_last, no padding mode but zeros, and extends an
            output at its end only
        ImportError : onnx is not installed

        >>> model = ConvTranspose1d(2, 1, 4, stride=2, padding="same").to_onnx()
        >>> [(each.name, list(each.ints)) for each in model.graph.node[0].attribute if each.ints]
        [('dilations', [1]), ('kernel_shape', [4]), ('output_padding', [0]), ('pads', [1, 1]), \
('strides', [2])]
        """
        weight, bias = self.weight.value, None if self.bias is None else self.bias.value
        axes = self._endless(weight.shape[0]).axes
        layout = (self.padding_mode, self.data_format)
        follows = as_activation(self.activation)
        return model_of(axes, self.groups, *layout, weight, bias, follows)


class ConvTranspose1d(ConvTranspose):
    """`ConvTranspose` of one spatial axis.

    >>> ConvTranspose1d(80, 40, 16, stride=10, padding=3)
    ConvTranspose1d(80, 40, kernel_size=(16,), stride=(10,), padding=(3,))
    """

    _rank = 1


class ConvTranspose2d(ConvTranspose):
    """`ConvTranspose` of two spatial axes.

    >>> ConvTranspose2d(None, 8, (3, 4), stride=2, bias=False)
    ConvTranspose2d(None, 8, kernel_size=(3, 4), stride=(2, 2), bias=False)
    """

    _rank = 2


class ConvTranspose3d(ConvTranspose):
    """`ConvTranspose` of three spatial axes.

    >>> ConvTranspose3d(4, 2, 2, stride=0)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: stride[0]=0 must be at least 1; pass a positive integer.
    """

    _rank = 3


class Conv(Convolution):
    """`conv` with a weight and a bias that are learnt, of any rank: a neural network's convolution.

    The arguments are PyTorch's, in its order, and mean what they mean for `ConvTranspose`.

    Parameters
    ----------
    in_channels : int, or None to take it from the first x
    out_channels : int
    kernel_size : tuple of int, one per spatial axis: its length is the rank. `Conv1d`, `Conv2d` and
        `Conv3d` also take one int.
    stride, padding, dilation, groups, padding_mode, data_format : as for `conv`
    bias, dtype, initialiser, rng, activation : as for `ConvTranspose`, without "bilinear" and
        "icnr"

    Attributes
    ----------
    weight : Parameter (out_channels, in_channels // groups, *kernel_size); an array that is
        assigned sets its values
    bias : Parameter (out_channels,), or None; likewise

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : as for `ConvTranspose`

    >>> down = Conv2d(3, 8, 3, stride=2, padding="same", rng=0)
    >>> x = np.ones((1, 3, 9, 9), np.float32)
    >>> down(x).shape, down.backward(np.ones((1, 8, 5, 5), np.float32)).shape
    ((1, 8, 5, 5), (1, 3, 9, 9))
    """

    _wanted: ClassVar[Letter] = "x"
    _given: ClassVar[Letter] = "y"

    @readable
    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        data_format: str = "channels_first",
        dtype: Any = "float32",
        initialiser: str | Initialiser = "kaiming_uniform",
        rng: Any = None,
        activation: Any = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_keyword(Conv.__init__, unknown)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=0,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            data_format=data_format,
            dtype=dtype,
            initialiser=initialiser,
            rng=rng,
            activation=activation,
        )

    def compute(self, x: Any) -> tuple[NDArray[Any], Residuals]:
        """Return y and the residuals for `pull_back`."""
        return self.solve(x)

    def predict(self, x: Any) -> NDArray[Any]:
        """Return y and keep nothing; the residuals of an earlier `forward` stay."""
        if type(self).compute is not Conv.compute:  # that of a subclass
            return super().predict(x)  # type: ignore[no-any-return]
        return self.solve(x, keeps=False)[0]


class Conv1d(Conv):
    """`Conv` of one spatial axis.

    >>> Conv1d(1, 4, 3, padding=1, dtype="float64")
    Conv1d(1, 4, kernel_size=(3,), stride=(1,), padding=(1,), dtype=float64)
    """

    _rank = 1


class Conv2d(Conv):
    """`Conv` of two spatial axes.

    >>> Conv2d(3, 64, 3, padding=1, padding_mode="reflect")
    Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), padding_mode='reflect')
    """

    _rank = 2


class Conv3d(Conv):
    """`Conv` of three spatial axes.

    >>> Conv3d(3, 4, 3, groups=2)
    Traceback (most recent call last):
    ...
    tconv.errors.ShapeError: groups=2 must divide in_channels=3; pass groups that divides \
in_channels and out_channels.
    """

    _rank = 3
