"""Layers of a tutorial on convolutional networks, with declared input sizes and own gradients.

A layer is made for inputs of one size, (C, H, W), and knows its parameters and the size of its
output. `forward` computes the output; `backward` takes the gradient of the output, sets the
`.gradient` of every parameter, and returns the gradient of the input.

Both layers are the same form F(x, w, y) with one letter unknown: `Deconv2D` takes x and gives y,
`Conv2D` takes y and gives x, and their gradients are the other two contractions.

Arrays may be NumPy's, CuPy's or those of another array library: the parameters follow the input to
its library and device, and the first input sets their type too.
"""

from dataclasses import replace
from math import prod
from typing import Any, ClassVar

import numpy as np

from tconv.arrays.dtypes import TYPES, as_dtype, dtype_name
from tconv.arrays.operands import as_operands, library_of, namespace
from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError, UnsupportedError
from tconv.geometry.arguments import as_integer, as_word
from tconv.geometry.geometry import Geometry, Letter
from tconv.geometry.shape_rules import as_shape
from tconv.nn.init import init_kaiming_normal
from tconv.ops.dispatch import Call, solve_for
from tconv.ops.gradients import bias_gradient
from tconv.system.fork_lock import importing

__all__ = ["Conv2D", "Deconv2D", "Layer", "Parameter"]


class Parameter:
    """A learnt array, `.tensor`, and its `.gradient`, which is None before `backward`.

    >>> parameter = Parameter(np.zeros((4, 2)))
    >>> parameter
    Parameter(float64, (4, 2))
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.gradient: Any = None

    @property
    def tensor(self) -> Any:
        """The array; assign an array or nested lists of numbers."""
        return self._tensor

    @tensor.setter
    def tensor(self, tensor: Any) -> None:
        _, (self._tensor,) = as_operands({"tensor": tensor})

    def __repr__(self) -> str:
        return f"Parameter({dtype_name(self.tensor.dtype)}, {tuple(self.tensor.shape)})"


class Layer:
    """A layer with a name, parameters, a forward and a backward pass.

    A layer of your own overrides `forward` and `backward`, and makes its parameters by
    `build_param`:

    >>> class Scale(Layer):
    ...     def __init__(self, name):
    ...         super().__init__(name)
    ...         self.factor = self.build_param(np.array(3.0))
    ...
    ...     def forward(self, input):
    ...         self.input = input
    ...         return self.factor.tensor * input
    ...
    ...     def backward(self, in_gradient):
    ...         self.factor.gradient = np.sum(in_gradient * self.input)
    ...         return self.factor.tensor * in_gradient
    >>> layer = Scale("triple")
    >>> layer(np.array([1.0, 2.0])), layer.backward(np.ones(2)), layer.factor.gradient
    (array([3., 6.]), array([3., 3.]), np.float64(3.0))
    >>> print(layer.summary())
    triple            Scale     any size                              1 parameter
    """

    def __init__(self, name: str) -> None:
        self.name = as_word(name, "name")
        self.type = type(self).__name__
        self.parameters: list[Parameter] = []
        self.input_dim: tuple[int, ...] = ()
        self.out_dim: tuple[int, ...] = ()

    def forward(self, input: Any) -> Any:
        """Compute the output from the input."""
        raise UnsupportedError(f"{self.type} must define forward(input).")

    def backward(self, in_gradient: Any) -> Any:
        """Compute the gradient of the input, and of the parameters, from that of the output."""
        raise UnsupportedError(f"{self.type} must define backward(in_gradient).")

    def build_param(self, tensor: Any) -> Parameter:
        """Make a parameter of an array and count it among the layer's own."""
        parameter = Parameter(tensor)
        self.parameters.append(parameter)
        return parameter

    def summary(self) -> str:
        """One line of a table: name, kind, size of the input -> of the output, parameters."""
        sizes = f"{self.input_dim} -> {self.out_dim}" if self.out_dim else "any size"
        count = sum(prod(parameter.tensor.shape) for parameter in self.parameters)
        plural = "" if count == 1 else "s"
        return f"{self.name:<17} {self.type:<9} {sizes:<33} {count:>5,} parameter{plural}"

    def __call__(self, input: Any) -> Any:
        """Return ``forward(input)``."""
        return self.forward(input)


class _Filters(Layer):
    """Base of the two layers, which differ in the letters of input and output."""

    takes: ClassVar[Letter]
    gives: ClassVar[Letter]

    def __init__(
        self,
        name: str,
        input_dim: Any,
        n_filters: int,
        h_filter: int,
        w_filter: int,
        stride: Any,
        dilation: Any = 1,
        padding: Any = 0,
        *,
        rng: Any = None,
    ) -> None:
        super().__init__(name)
        self.input_dim = as_shape(input_dim, "input_dim")
        if len(self.input_dim) != 3 or 0 in self.input_dim:
            raise ParameterError(
                f"input_dim={self.input_dim} must be (channels, height, width), each at least 1; "
                "pass (3, 32, 32) for example."
            )
        filters = as_integer(n_filters, "n_filters", 1)
        kernel = (as_integer(h_filter, "h_filter", 1), as_integer(w_filter, "w_filter", 1))
        self._geometry = self._fit(
            filters, kernel, stride=stride, dilation=dilation, padding=padding
        )
        self.out_dim = self._geometry.shape_of(self.gives)[1:]
        self._input: Any = None
        self._has_followed = False

        weight = init_kaiming_normal(
            self._geometry.weight_shape, stride=stride, transposed=self.takes == "x", rng=rng
        )
        self.weight = self.build_param(weight.astype(np.float32))
        self.bias = self.build_param(np.zeros(filters, np.float32))

    def _fit(self, filters: int, kernel: tuple[int, int], **keywords: Any) -> Geometry:
        """Return the sizes for a batch of one."""
        raise NotImplementedError

    def forward(self, input: Any) -> Any:
        """Compute the output from the input.

        Parameters
        ----------
        input : array (N, *input_dim), or input_dim for one sample without a batch

        Returns
        -------
        array (N, *out_dim) of the input's library, device and type

        Raises
        ------
        ShapeError : the input is not of the declared size, or a tensor that was set does not fit
        DTypeError : the input is not of the parameters' type
        """
        _, (input,) = as_operands({"input": input})
        self._check_dim(input, "input", self.input_dim, "input_dim")
        weight, bias = self._follow(input)
        output = solve_for(self.gives, self._sizes_for(input), input, weight, bias, self._call)
        self._input = input
        return output

    def backward(self, in_gradient: Any) -> Any:
        """Set the gradients of weight and bias, and return that of the input.

        Parameters
        ----------
        in_gradient : gradient of the output of the last `forward`, array of its shape and type

        Returns
        -------
        array of the shape and type of the input of that `forward`; nothing is conjugated, as in
        `conv_transpose_vjp`.

        Raises
        ------
        ShapeError, DTypeError : in_gradient is not of that shape or type
        TConvError : there was no forward pass
        """
        if self._input is None:
            raise TConvError(
                f"backward of layer {self.name} must follow a forward pass; call forward first."
            )
        xp, (gradient, input) = as_operands({"in_gradient": in_gradient, "input": self._input})
        self._check_dim(gradient, "in_gradient", self.out_dim, "out_dim")
        if gradient.shape[:-3] != input.shape[:-3]:
            raise ShapeError(
                f"in_gradient has shape {tuple(gradient.shape)} but the last input had "
                f"{tuple(input.shape)}; pass one gradient for every sample."
            )
        weight, _ = self._follow(input)
        sizes = self._sizes_for(input)
        x, y = (input, gradient) if self.takes == "x" else (gradient, input)
        self.weight.gradient = solve_for("w", sizes, x, y, None, self._call)
        self.bias.gradient = bias_gradient(xp, sizes, gradient)
        return solve_for(self.takes, sizes, gradient, weight, None, self._call)

    @property
    def _call(self) -> Call:
        return Call(f"{self.type} {self.name}")

    def _sizes_for(self, input: Any) -> Geometry:
        batched = input.ndim == 4
        return replace(self._geometry, batch=input.shape[0] if batched else 1, batched=batched)

    def _check_dim(self, array: Any, what: str, dim: tuple[int, ...], name: str) -> None:
        if array.ndim not in (3, 4) or tuple(array.shape[-3:]) != dim:
            raise ShapeError(
                f"{what} has shape {tuple(array.shape)}, must be (N, *{name}) or {name} of layer "
                f"{self.name}, whose {name}={dim}; pass such an array or make a layer with "
                "another input_dim."
            )

    def _follow(self, input: Any) -> tuple[Any, Any]:
        """Move the parameters to library and device of the input; the first input sets the type."""
        wanted = dtype_name(input.dtype)
        shapes = {"weight": self._geometry.weight_shape, "bias": self.out_dim[:1]}
        for name, shape in shapes.items():
            parameter: Parameter = getattr(self, name)
            _, (tensor,) = as_operands({f"{name}.tensor": parameter.tensor})
            if tuple(tensor.shape) != shape:
                raise ShapeError(
                    f"{name}.tensor has shape {tuple(tensor.shape)}, must be {shape} in layer "
                    f"{self.name}; set a tensor of that shape."
                )
            tensor = _moved(tensor, input)
            found = dtype_name(tensor.dtype)
            if found != wanted:
                if self._has_followed or not _can_become(found, wanted):
                    raise DTypeError(
                        f"input has dtype {wanted} but {name}.tensor of layer {self.name} {found}; "
                        "convert the input, or set tensors of its type."
                    )
                xp = namespace(tensor)
                tensor = xp.astype(tensor, as_dtype(xp, wanted))
            parameter.tensor = tensor
        self._has_followed = True
        return self.weight.tensor, self.bias.tensor

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_input": None}  # a copy needs no input for `backward`


class Conv2D(_Filters):
    """Convolution: every filter slides over the input and gives one channel of sums.

    ``output[n, m, i] = bias[m] + sum over c, k of weight[m, c, k] * input[n, c, i*stride - padding
    + k*dilation]``, per spatial axis; the transpose of the `Deconv2D` with the same weight.

    Parameters
    ----------
    name : str
    input_dim : (C, H, W), the size of one input
    n_filters : int, the channels of the output
    h_filter, w_filter : int, the height and width of a filter
    stride, dilation : int, or one int per axis
    padding : int, one int or (begin, end) pair per axis, or a name as in `tconv.conv`: zeros put
        around the input
    rng : numpy.random.Generator or a seed, for the weight; it starts as He's normal distribution,
        the bias as zero

    Attributes
    ----------
    weight : Parameter (n_filters, C, h_filter, w_filter)
    bias : Parameter (n_filters,)
    out_dim : (n_filters, H', W') with per axis
        ``H' = (H + padding_begin + padding_end - dilation*(h_filter - 1) - 1) // stride + 1``

    Raises
    ------
    ParameterError, ShapeError : a size breaks its rule, or the filter does not fit the input

    >>> layer = Conv2D("conv1", (1, 3, 3), 1, 2, 2, stride=1)
    >>> layer.weight.tensor = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> layer(np.arange(1.0, 10.0).reshape(1, 1, 3, 3))
    array([[[[37., 47.],
             [67., 77.]]]])
    """

    takes, gives = "y", "x"

    def _fit(self, filters: int, kernel: tuple[int, int], **keywords: Any) -> Geometry:
        weight_shape = (filters, self.input_dim[0], *kernel)
        return Geometry.of_conv((1, *self.input_dim), weight_shape, **keywords)


class Deconv2D(_Filters):
    """Transposed convolution: every input cell spreads a filter over the output.

    ``output[n, m, i*stride - padding + k*dilation] += input[n, c, i] * weight[c, m, k]``, per
    spatial axis, plus ``bias[m]``: the transpose of the `Conv2D` with that weight, not its inverse.

    Parameters
    ----------
    name : str
    input_dim : (C, H, W), the size of one input
    n_filters : int, the channels of the output
    h_filter, w_filter : int, the height and width of a filter
    stride, dilation : int, or one int per axis
    padding : int, one int or (begin, end) pair per axis, or a name as in `tconv.conv_transpose`:
        the crop of the output
    rng : numpy.random.Generator or a seed, for the weight; it starts as He's normal distribution,
        the bias as zero

    Attributes
    ----------
    weight : Parameter (C, n_filters, h_filter, w_filter)
    bias : Parameter (n_filters,)
    out_dim : (n_filters, H', W') with per axis
        ``H' = (H - 1)*stride + dilation*(h_filter - 1) + 1 - padding_begin - padding_end``

    Raises
    ------
    ParameterError, ShapeError : a size breaks its rule, or the output would be empty

    >>> layer = Deconv2D("deconv1", (1, 2, 2), 1, 2, 2, stride=1)
    >>> layer.weight.tensor = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> layer(np.array([[[[37.0, 47.0], [67.0, 77.0]]]]))
    array([[[[ 37., 121.,  94.],
             [178., 500., 342.],
             [201., 499., 308.]]]])
    >>> layer.backward(np.ones((1, 1, 3, 3)))
    array([[[[10., 10.],
             [10., 10.]]]])
    >>> layer.weight.gradient, layer.bias.gradient
    (array([[[[228., 228.],
             [228., 228.]]]]), array([9.]))
    >>> print(layer.summary())
    deconv1           Deconv2D  (1, 2, 2) -> (1, 3, 3)                5 parameters
    """

    takes, gives = "x", "y"

    def _fit(self, filters: int, kernel: tuple[int, int], **keywords: Any) -> Geometry:
        weight_shape = (self.input_dim[0], filters, *kernel)
        return Geometry.of((1, *self.input_dim), weight_shape, **keywords)


def _moved(tensor: Any, target: Any) -> Any:
    """Return tensor as an array of target's library, on its device."""
    if library_of(tensor) != library_of(target):
        for name in ("detach", "cpu", "get"):  # steps of PyTorch and CuPy on the way to NumPy
            if hasattr(tensor, name):
                tensor = getattr(tensor, name)()
        tensor = np.asarray(tensor)
    if isinstance(target, np.ndarray):
        return tensor
    with importing:
        import array_api_compat

    device = array_api_compat.device(target)
    if isinstance(tensor, np.ndarray):
        return namespace(target).asarray(tensor, device=device)
    return array_api_compat.to_device(tensor, device)


def _can_become(found: str, wanted: str) -> bool:
    """Whether a conversion of type only rounds."""
    kept = wanted.startswith("complex") or not found.startswith("complex")
    return kept and not TYPES[wanted].is_integer
