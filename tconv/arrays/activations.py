"""Activations of a result, and the arguments that name them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.activation_functions import GRADIENTS_BY_X, GRADIENTS_BY_Y, VALUES
from tconv.arrays.dtypes import FLOATING_TYPES
from tconv.errors import DTypeError, ParameterError
from tconv.geometry.arguments import number_of
from tconv.messages import show

__all__ = ["ACTIVATIONS", "Activation", "as_activation"]

ACTIVATIONS = tuple(VALUES)

_MOST = float(np.finfo(np.float32).max)
_PIECE = 2**15  # elements at a time, which stay in the caches with the intermediate results


@dataclass(frozen=True)
class Activation:
    """A function of one number: its name and its parameters, as `as_activation` checks them.

    >>> print(Activation("relu"), Activation("leaky_relu", (0.2,)))
    relu leaky_relu 0.2
    """

    name: str
    parameters: tuple[float, ...] = ()

    @property
    def argument(self) -> Any:
        """The argument from which `as_activation` makes this."""
        if self.name == "gelu_tanh":
            return "gelu", "tanh"
        if self.name == "clip":
            return ("clip", *(each if math.isfinite(each) else None for each in self.parameters))
        return (self.name, *self.parameters) if self.parameters else self.name

    @property
    def needs_sums(self) -> bool:
        """Whether the derivative depends on the numbers before the activation: y does not tell it.

        Else it is a function of y, and y may overwrite the sums.

        >>> Activation("silu").needs_sums, Activation("tanh").needs_sums
        (True, False)
        """
        is_falling = self.name == "prelu" and self.parameters[0] < 0
        return is_falling or self.name not in GRADIENTS_BY_Y

    def check_type(self, dtype: str) -> None:
        """Refuse complex and integer types."""
        if dtype not in FLOATING_TYPES:
            raise DTypeError(
                f'activation="{self.name}" takes one of {", ".join(FLOATING_TYPES)}, not {dtype}; '
                "convert x and weight to one of these, or pass activation=None."
            )

    def apply(self, y: NDArray[Any]) -> None:
        """Apply the function in place. NaN stays NaN.

        >>> y = np.array([-2.0, 0.0, 3.0])
        >>> Activation("leaky_relu", (0.25,)).apply(y)
        >>> y
        array([-0.5,  0. ,  3. ])
        """
        function, parameters = VALUES[self.name], self.parameters
        with np.errstate(invalid="ignore", over="ignore"):
            for (piece,) in _pieces(y):
                if y.dtype.itemsize == 2:  # computed in float32, rounded once
                    piece[...] = function(piece.astype(np.float32), *parameters)
                else:
                    piece[...] = function(piece, *parameters)

    def pull_back(self, values: NDArray[Any], dy: NDArray[Any]) -> NDArray[Any]:
        """Multiply a gradient by the derivative; at 0 it takes the one below 0.

        ``values`` are the numbers before the activation where it `needs_sums`, else y.

        >>> Activation("tanh").pull_back(np.array([0.5]), np.array([4.0]))
        array([3.])
        """
        with np.errstate(invalid="ignore", over="ignore"):
            if not self.needs_sums:
                return self._gradient(GRADIENTS_BY_Y[self.name], values, dy)
            found, function = np.empty_like(dy), GRADIENTS_BY_X[self.name]
            for to, x, along in _pieces(found, values, dy):
                to[...] = self._gradient(function, x, along)
        return found

    def _gradient(
        self, function: Callable[..., NDArray[Any]], values: NDArray[Any], dy: NDArray[Any]
    ) -> NDArray[Any]:
        dtype, parameters = dy.dtype, self.parameters
        if dtype.itemsize == 2:
            if self.name == "clip":  # y is the rounded bound
                parameters = tuple(np.array(parameters, np.float32).astype(dtype).tolist())
            values, dy = values.astype(np.float32), dy.astype(np.float32)
        return function(values, dy, *parameters).astype(dtype, copy=False)

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{each:g}" for each in self.parameters)])


def _pieces(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Parts of arrays of one shape that fit the caches together."""
    if all(array.flags.c_contiguous for array in arrays):
        arrays, step = tuple(array.reshape(-1) for array in arrays), _PIECE
    else:
        step = 1
    for n in range(0, len(arrays[0]), step):
        yield tuple(array[n : n + step] for array in arrays)


# ---- arguments -----------------------------------------------------------------------------------

_BARE = ("relu", "tanh", "sigmoid", "silu", "hard_swish", "gelu")
_EXAMPLES = {
    "leaky_relu": '("leaky_relu", 0.01)',
    "prelu": '("prelu", 0.25)',
    "elu": '("elu", 1.0)',
    "clip": '("clip", 0, 6)',
    "hard_sigmoid": '("hard_sigmoid", 1/6, 0.5) as PyTorch or ("hard_sigmoid", 0.2, 0.5) as ONNX',
    "snake": '("snake", 1.0)',
}
_RULE = (
    "None, 'relu', ('leaky_relu', slope), ('prelu', slope), ('elu', alpha), ('clip', low, high), "
    "('hard_sigmoid', alpha, beta), 'tanh', 'sigmoid', 'silu', 'hard_swish', 'gelu', ('gelu', "
    "'tanh') or ('snake', a)"
)


def as_activation(value: Any, name: str = "activation") -> Activation | None:
    """Return the activation that an argument names; None for none.

    A leaky_relu, prelu or elu whose parameter is 0 is a relu. A bound of clip may be None, not
    both.

    >>> as_activation(("leaky_relu", 0.1))
    Activation(name='leaky_relu', parameters=(0.1,))
    >>> as_activation("elu")
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: activation='elu' must be None, 'relu', ('leaky_relu', slope), \
('prelu', slope), ('elu', alpha), ('clip', low, high), ('hard_sigmoid', alpha, beta), 'tanh', \
'sigmoid', 'silu', 'hard_swish', 'gelu', ('gelu', 'tanh') or ('snake', a); pass ("elu", 1.0).
    """
    if value is None or isinstance(value, Activation):
        return value
    kind = _text(value)
    if kind in _BARE:
        return Activation(kind)
    if isinstance(value, tuple | list) and value:
        found = _with_parameters(_text(value[0]), list(value[1:]), name)
        if found is not None:
            return found
    fix = "pass " + _EXAMPLES.get(kind or "", "one of these")
    raise ParameterError(f"{name}={show(value)} must be {_RULE}; {fix}.")


def _text(value: Any) -> str | None:
    """A string without what its class may add; None for anything else."""
    return str.__str__(value) if issubclass(type(value), str) else None


def _with_parameters(kind: str | None, given: list[Any], name: str) -> Activation | None:
    """The activation of a pair or triple; None if there is none of so many parameters."""
    if kind == "gelu" and len(given) == 1:
        approximate = _text(given[0])
        names = {"none": "gelu", "tanh": "gelu_tanh"}
        return Activation(names[approximate]) if approximate in names else None
    if kind == "clip" and len(given) == 2:
        return Activation("clip", _as_bounds(given[0], given[1], name))
    if kind == "hard_sigmoid" and len(given) == 2:
        rule = "a finite number; pass 0.5 for example"
        numbers = [_as_number(each, f"{name}[{n}]", rule) for n, each in enumerate(given, 1)]
        return Activation("hard_sigmoid", tuple(numbers))
    if len(given) != 1 or kind not in _ONE_PARAMETER:
        return None
    allows, rule = _ONE_PARAMETER[kind]
    parameter = _as_number(given[0], f"{name}[1]", rule, allows)
    return Activation(kind, (parameter,)) if parameter else Activation("relu")


_ONE_PARAMETER: dict[str, tuple[Callable[[float], bool], str]] = {
    "leaky_relu": (
        lambda slope: slope >= 0,
        "a finite number of at least 0, in float32, the slope below 0; pass 0.01 for example",
    ),
    "prelu": (
        lambda _: True,
        "one finite number, the slope below 0 of all channels; pass 0.25 for example",
    ),
    "elu": (
        lambda alpha: alpha >= 0,
        "a finite number of at least 0, minus the limit at -inf; pass 1.0 for example",
    ),
    "snake": (
        lambda a: 1e-30 <= abs(a) <= 1e30,
        "one number of a size from 1e-30 to 1e30; pass 1.0 for example",
    ),
}
"""By name: whether a finite number is allowed, and the rule in words."""


def _as_number(
    value: Any, name: str, rule: str, allows: Callable[[float], bool] = lambda _: True
) -> float:
    number = number_of(value)
    if not (abs(number) <= _MOST and allows(number)):
        raise ParameterError(f"{name}={show(value)} must be {rule}.")
    return number


def _as_bounds(low: Any, high: Any, name: str) -> tuple[float, float]:
    """Bounds of clip; infinite where there is none."""
    least = -math.inf if low is None else number_of(low)
    most = math.inf if high is None else number_of(high)
    for n, value, number in ((1, low, least), (2, high, most)):
        if not (abs(number) <= _MOST or math.isinf(number)):
            raise ParameterError(
                f"{name}[{n}]={show(value)} must be a number of float32, or None; pass one."
            )
    if least > most or (math.isinf(least) and math.isinf(most)):
        raise ParameterError(
            f"{name}={show(('clip', low, high))} must have a finite bound and low <= high; pass "
            '("clip", 0, 6) for example.'
        )
    return least, most
