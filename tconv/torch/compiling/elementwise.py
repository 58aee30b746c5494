"""Translations of arithmetic and activations."""

import math
from typing import Any

import numpy as np

from tconv.graph import UnknownOperator
from tconv.torch.compiling.translation import Translator, translate

__all__: list[str] = []

_UNARY = {
    "abs": "Abs",
    "ceil": "Ceil",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "hardswish": "HardSwish",
    "log": "Log",
    "mish": "Mish",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "relu": "Relu",
    "round": "Round",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "silu": "Swish",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
_BINARY = {
    "add.Tensor": "Add",
    "add.Scalar": "Add",
    "sub.Tensor": "Sub",
    "sub.Scalar": "Sub",
    "mul.Tensor": "Mul",
    "mul.Scalar": "Mul",
    "div.Tensor": "Div",
    "div.Scalar": "Div",
    "maximum.default": "Max",
    "minimum.default": "Min",
}
_HALF_SLOPE = 1 / 6  # of a hard sigmoid


def _register_unary(name: str, operator: str) -> None:
    @translate(name)
    def _(g: Translator, x: Any) -> None:
        g.write(operator, [x])


def _register_binary(name: str, operator: str) -> None:
    @translate(name)
    def _(g: Translator, x: Any, other: Any, alpha: Any = 1) -> None:
        if alpha != 1:
            (other,) = g.add("Mul", [other, alpha])
        g.write(operator, [x, other])


for _name, _operator in _UNARY.items():
    _register_unary(_name, _operator)
for _name, _operator in _BINARY.items():
    _register_binary(_name, _operator)


@translate("rsub.Scalar", "rsub.Tensor")
def _rsub(g: Translator, x: Any, other: Any, alpha: Any = 1) -> None:
    if alpha != 1:
        (x,) = g.add("Mul", [x, alpha])
    g.write("Sub", [other, x])


@translate("rsqrt")
def _rsqrt(g: Translator, x: Any) -> None:
    g.write("Reciprocal", g.add("Sqrt", [x]))


@translate("square")
def _square(g: Translator, x: Any) -> None:
    g.write("Pow", [x, 2.0])


@translate("pow.Tensor_Scalar")
def _pow(g: Translator, x: Any, exponent: Any) -> None:
    g.write("Pow", [x, exponent])


@translate("leaky_relu")
def _leaky_relu(g: Translator, x: Any, negative_slope: float) -> None:
    g.write("LeakyRelu", [x], alpha=negative_slope)


@translate("elu")
def _elu(g: Translator, x: Any, alpha: float, scale: float, input_scale: float) -> None:
    if input_scale == 1:
        if scale == 1:
            g.write("Elu", [x], alpha=alpha)
        else:
            g.write("Selu", [x], alpha=alpha, gamma=scale)
    elif scale == 1 and input_scale == 1 / alpha:
        g.write("Celu", [x], alpha=alpha)
    else:
        raise UnknownOperator(f"input_scale={input_scale}")


@translate("celu")
def _celu(g: Translator, x: Any, alpha: Any) -> None:
    g.write("Celu", [x], alpha=float(alpha))


@translate("gelu")
def _gelu(g: Translator, x: Any, approximate: str) -> None:
    g.write("Gelu", [x], approximate=approximate)


@translate("hardsigmoid")
def _hardsigmoid(g: Translator, x: Any) -> None:
    g.write("HardSigmoid", [x], alpha=_HALF_SLOPE, beta=0.5)


@translate("hardtanh")
def _hardtanh(g: Translator, x: Any, min_val: float, max_val: float) -> None:
    _clip(g, x, min_val, max_val)


@translate("clamp")
def _clamp(g: Translator, x: Any, min: Any, max: Any) -> None:
    _clip(g, x, min, max)


@translate("clamp_min")
def _clamp_min(g: Translator, x: Any, min: Any) -> None:
    _clip(g, x, min, None)


@translate("clamp_max")
def _clamp_max(g: Translator, x: Any, max: Any) -> None:
    _clip(g, x, None, max)


def _clip(g: Translator, x: Any, low: Any, high: Any) -> None:
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    if not all(isinstance(each, (int, float)) for each in bounds) or bounds[0] > bounds[1]:
        raise UnknownOperator(f"bounds {bounds}")
    g.write("Clip", [x, *bounds])


@translate("softplus")
def _softplus(g: Translator, x: Any, beta: float, threshold: float) -> None:
    if beta != 1 or threshold < 20:  # beyond 20 the logarithm is x itself in float32
        raise UnknownOperator(f"beta={beta}, threshold={threshold}")
    g.write("Softplus", [x])


@translate("_prelu_kernel")
def _prelu(g: Translator, x: Any, weight: Any) -> None:
    g.write("PRelu", [x, weight])


@translate("glu")
def _glu(g: Translator, x: Any, dim: int) -> None:
    value, gate = g.add("Split", [x], results=2, axis=dim)
    g.write("Mul", [value, *g.add("Sigmoid", [gate])])


@translate("clone", "alias", "detach", "_to_copy", "lift_fresh_copy")
def _identity(g: Translator, x: Any, **_: Any) -> None:
    g.write("Identity", [x])


@translate("mean.dim")
def _mean(g: Translator, x: Any, dim: Any, keepdim: bool, dtype: Any) -> None:
    _reduce(g, "ReduceMean", x, dim, keepdim)


@translate("sum.dim_IntList")
def _sum(g: Translator, x: Any, dim: Any, keepdim: bool, dtype: Any) -> None:
    _reduce(g, "ReduceSum", x, dim, keepdim)


@translate("amax")
def _amax(g: Translator, x: Any, dim: Any, keepdim: bool) -> None:
    _reduce(g, "ReduceMax", x, dim, keepdim)


@translate("amin")
def _amin(g: Translator, x: Any, dim: Any, keepdim: bool) -> None:
    _reduce(g, "ReduceMin", x, dim, keepdim)


def _reduce(g: Translator, operator: str, x: Any, dim: Any, keepdim: bool) -> None:
    axes = g.constant(np.array(dim or range(g.rank(x)), np.int64))
    g.write(operator, [x, axes], keepdims=int(keepdim))


@translate("_softmax")
def _softmax(g: Translator, x: Any, dim: int, half_to_float: bool) -> None:
    g.write("Softmax", [x], axis=dim)


@translate("_log_softmax")
def _log_softmax(g: Translator, x: Any, dim: int, half_to_float: bool) -> None:
    g.write("LogSoftmax", [x], axis=dim)
