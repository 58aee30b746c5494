"""Batch normalisation folded into the weights of the layer before it.

    gamma*(y - mean)/sqrt(variance + eps) + beta = scale*y + shift

is linear in y, and y is linear in weight and bias, so the scale of a channel goes into its kernels.
"""

import copy
import sys
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.geometry.arguments import as_array, as_integer
from tconv.messages import show
from tconv.nn.conv import ConvTranspose
from tconv.nn.conv_base import Convolution
from tconv.nn.parameter import Parameter
from tconv.system.memory import check_room
from tconv.system.public_pickles import reduce_by_public_name

__all__ = ["BatchNorm", "fold_batch_norm", "scaled"]

_Layer = TypeVar("_Layer", bound=Convolution)
_OTHER_NAMES = {"weight": "gamma", "bias": "beta"}


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """A batch normalisation with fixed statistics, under PyTorch's names.

    Parameters
    ----------
    weight, bias : array (M,), gamma and beta; None for 1 and 0
    running_mean, running_var : array (M,)
    eps : float, added to the variance

    >>> bn = BatchNorm(None, None, np.zeros(2), np.array([1.0, 4.0]), 0)
    >>> bn.scale_and_shift(2)
    (array([1. , 0.5]), array([0., 0.]))
    """

    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    eps: float = 1e-5

    __reduce_ex__ = reduce_by_public_name

    def scale_and_shift(self, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Factor and summand of each channel of y.

        Raises
        ------
        ParameterError, ShapeError : as `fold_batch_norm`
        """
        return _scale_and_shift(self, as_integer(channels, "channels", 1))


def fold_batch_norm(layer: _Layer, bn: Any) -> _Layer:
    """Return a layer that computes what `layer` and then `bn` do.

    ``weight' = weight * gamma/sqrt(var + eps)`` for each channel of y, and
    ``bias' = (bias - mean) * gamma/sqrt(var + eps) + beta``, in float64, rounded to the layer's
    type once. The result has a bias even if `layer` has none.

    Parameters
    ----------
    layer : ConvTranspose or Conv, of any groups; it does not change
    bn : `BatchNorm`, or an object with its attributes: torch.nn.BatchNorm1d, 2d or 3d after
        ``eval()``. weight may also be called gamma, and bias beta.

    Raises
    ------
    ParameterError : layer is no convolution layer, is not drawn yet or has an activation (which
        comes before bn); bn is in training, has no running statistics, values that are not finite,
        or negative variances
    ShapeError : bn is of another number of channels

    References
    ----------
    Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2.

    >>> layer = tconv.ConvTranspose1d(1, 2, 2, bias=False, initialiser="zeros")
    >>> layer.weight.value = np.array([[[1, 2], [3, 4]]])
    >>> bn = BatchNorm(np.array([2.0, 1.0]), None, np.array([0.0, 1.0]), np.array([1.0, 4.0]), 0)
    >>> folded = fold_batch_norm(layer, bn)
    >>> folded.weight.value.tolist(), folded.bias.value.tolist()
    ([[[2.0, 4.0], [1.5, 2.0]]], [0.0, -0.5])
    """
    if not isinstance(layer, Convolution):
        raise ParameterError(
            f"layer={show(layer)} must be a ConvTranspose or a Conv; pass such a layer."
        )
    if layer.activation is not None:
        raise ParameterError(
            f"layer has activation={layer.activation!r}, which comes before bn, so bn cannot be "
            "folded; set layer.activation=None, fold, and set the activation of the result."
        )
    weight = layer.weight.value
    bias = None if layer.bias is None else layer.bias.value
    scale, shift = _scale_and_shift(bn, layer.out_channels)
    folded = copy.deepcopy(layer)
    transposed_groups = layer.groups if isinstance(layer, ConvTranspose) else None
    new_weight, new_bias = scaled(weight, bias, scale, shift, transposed_groups)
    folded.weight.value = new_weight
    if folded.bias is None:
        folded.bias = Parameter(None, "bias", shape=(layer.out_channels,), dtype=layer.dtype)
    folded.bias.value = new_bias
    return folded


def scaled(
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    groups: int | None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weight and bias of ``scale*y + shift``, in the weight's type.

    The weight is that of a transposed convolution of `groups` groups, (C, M // groups, *K), or, for
    None, that of a convolution, (M, C // groups, *K).

    >>> w = np.ones((2, 1, 1))
    >>> scaled(w, None, np.array([2.0, 3.0]), np.zeros(2), 2)[0].ravel()
    array([2., 3.])
    """
    wide, rank = weight.astype(np.float64), weight.ndim - 2
    if groups is None:
        wide *= scale.reshape(-1, 1, *[1] * rank)
    else:
        of_group = scale.reshape(groups, -1)  # (G, M/G)
        by_input = of_group.repeat(len(weight) // groups, axis=0)  # (C, M/G)
        wide *= by_input.reshape(*by_input.shape, *[1] * rank)
    added = shift if bias is None else bias.astype(np.float64) * scale + shift
    return wide.astype(weight.dtype), added.astype(weight.dtype)


def _scale_and_shift(bn: Any, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if getattr(bn, "training", False) is True:
        raise ParameterError(
            "bn is in training, where it uses the statistics of each batch; call bn.eval() first."
        )
    check_room("the values of bn", 4 * 8 * channels)
    gamma = _values(bn, "weight", (channels,), np.ones(channels))
    beta = _values(bn, "bias", (channels,), np.zeros(channels))
    mean = _values(bn, "running_mean", (channels,))
    variance = _values(bn, "running_var", (channels,))
    eps = _values(bn, "eps", ())
    if variance.min(initial=0) < 0 or (variance + eps).min(initial=np.inf) <= 0:
        raise ParameterError(
            f"bn.running_var={variance.min():g} must be at least 0, and more than that with "
            f"bn.eps={float(eps):g} added; pass the values of a trained model."
        )
    scale = gamma / np.sqrt(variance + eps)
    return scale, beta - mean * scale


def _values(
    bn: Any, name: str, shape: tuple[int, ...], default: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """An attribute in float64, checked against the number of channels."""
    names = (name, _OTHER_NAMES[name]) if name in _OTHER_NAMES else (name,)
    found = next((each for each in names if hasattr(bn, each)), None)
    if found is None:
        raise ParameterError(
            f"bn={show(bn)} has no {' and no '.join(names)}; pass a BatchNorm of tconv or PyTorch."
        )
    value = getattr(bn, found)
    if value is None and default is not None:
        return default
    if value is None:
        raise ParameterError(
            f"bn.{found}=None must be an array of statistics; pass a normalisation that keeps them "
            "(PyTorch: track_running_stats=True)."
        )
    torch = sys.modules.get("torch")  # loaded already, if there is a tensor
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    given = as_array(value, f"bn.{found}")
    if given.dtype.kind not in "iuf" and given.dtype.name != "bfloat16":
        raise DTypeError(
            f"bn.{found} has dtype {given.dtype}, must be of real numbers; convert it."
        )
    if given.shape != shape:
        raise ShapeError(
            f"bn.{found} has shape {given.shape}, must be {shape}, one number per channel of the "
            "layer's y; pass the normalisation that follows this layer."
        )
    array = given.astype(np.float64)
    if not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)].ravel()[0]
        raise ParameterError(
            f"bn.{found} must be finite, holds {wrong}; pass the values of a trained model."
        )
    return array
