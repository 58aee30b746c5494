"""Derivatives of ONNX's activation functions with respect to x."""

from collections.abc import Callable, Mapping
from math import erf, pi, sqrt
from typing import Any

import numpy as np

from tconv.deconvnet.network.runtime import run_node

__all__ = ["DERIVATIVES", "Attributes", "clip_limits"]

Attributes = Mapping[str, Any]
Numbers = Any  # arrays; mypy infers nothing of their arithmetic


def clip_limits(operands: Mapping[int, Numbers], attributes: Attributes) -> tuple[float, float]:
    """Return the least and the greatest value of Clip; before opset 11 they are attributes.

    >>> clip_limits({1: np.array(0.0), 2: np.array(6.0)}, {})
    (0.0, 6.0)
    >>> clip_limits({}, {"max": 6.0})
    (-inf, 6.0)
    """
    low = operands.get(1, attributes.get("min", -np.inf))
    high = operands.get(2, attributes.get("max", np.inf))
    return float(low), float(high)


def _sigmoid(x: Numbers) -> Numbers:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # cannot overflow


def _erf(x: Numbers) -> Numbers:
    if x.dtype == np.float32:  # by ONNX Runtime: a call of Python's for each number takes minutes
        return run_node("Erf", {}, [x], 1, 17)[0]
    return np.fromiter(map(erf, x.ravel().tolist()), x.dtype, x.size).reshape(x.shape)


def _normal(x: Numbers) -> Numbers:
    """Density of the standard normal distribution."""
    return np.exp(-0.5 * x * x) / sqrt(2 * pi)


def _gelu(x: Numbers, a: Attributes) -> Numbers:
    if a.get("approximate", b"none") == b"tanh":
        inner = sqrt(2 / pi) * (x + 0.044715 * x**3)
        t = np.tanh(inner)
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)
    return 0.5 * (1 + _erf(x / sqrt(2))) + x * _normal(x)


def _silu(x: Numbers, scale: float = 1.0) -> Numbers:
    s = _sigmoid(scale * x)
    return s + scale * x * s * (1 - s)


def _selu(x: Numbers, a: Attributes) -> Numbers:
    alpha, gamma = a.get("alpha", 1.67326319217681884765625), a.get("gamma", 1.0507010221481323)
    return gamma * np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0)))


def _hard_sigmoid(x: Numbers, a: Attributes) -> Numbers:
    alpha, beta = a.get("alpha", 0.2), a.get("beta", 0.5)
    y = alpha * x + beta
    return alpha * ((y > 0) & (y < 1))


def _mish(x: Numbers) -> Numbers:
    t = np.tanh(np.logaddexp(x, 0))
    return t + x * _sigmoid(x) * (1 - t * t)


DERIVATIVES: dict[str, Callable[..., Numbers]] = {
    "LeakyRelu": lambda x, a: np.where(x > 0, 1.0, a.get("alpha", 0.01)),
    "PRelu": lambda x, a, slope: np.where(x > 0, 1.0, slope),
    "Elu": lambda x, a: np.where(x > 0, 1.0, a.get("alpha", 1.0) * np.exp(np.minimum(x, 0))),
    "Celu": lambda x, a: np.where(x > 0, 1.0, np.exp(np.minimum(x, 0) / a.get("alpha", 1.0))),
    "Selu": _selu,
    "Sigmoid": lambda x, a: _sigmoid(x) * (1 - _sigmoid(x)),
    "Tanh": lambda x, a: 1 - np.tanh(x) ** 2,
    "Gelu": _gelu,
    "Swish": lambda x, a: _silu(x, a.get("alpha", 1.0)),
    "Mish": lambda x, a: _mish(x),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x, a: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5)),
    "Softplus": lambda x, a: _sigmoid(x),
    "Softsign": lambda x, a: 1 / (1 + np.abs(x)) ** 2,
    "ThresholdedRelu": lambda x, a: 1.0 * (x > a.get("alpha", 1.0)),
    "Erf": lambda x, a: 2 / sqrt(pi) * np.exp(-x * x),
    "Exp": lambda x, a: np.exp(x),
    "Log": lambda x, a: 1 / x,
    "Sqrt": lambda x, a: 0.5 / np.sqrt(x),
    "Abs": lambda x, a: np.sign(x),
    "Pow": lambda x, a, power: power * x ** (power - 1),
}
"""By operator: ``f'(x)`` from x, the node's attributes and its other operands."""
