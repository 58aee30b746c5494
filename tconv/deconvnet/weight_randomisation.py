"""Weight randomisation test: a network with shuffled weights, and the rank correlation of maps.

A method whose maps stay alike when the weights are shuffled shows the image, not the network.

References
----------
Adebayo et al. 2018, arXiv:1810.03292; Nie, Zhang & Patel 2018, arXiv:1805.07039.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.network.network import Network
from tconv.deconvnet.rules.registry import REVERSALS

__all__ = ["rank_correlation", "shuffle_weights"]

_SEED = 0


def shuffle_weights(network: Network, layer: str, seed: int = _SEED) -> Network:
    """Permute the entries of every filter's weight between the image and a layer.

    Biases and normalisations stay, and so do the mean and the variance of every weight.
    """
    rng, found = np.random.default_rng(seed), {}
    for node in network.between(layer):
        row = REVERSALS.get(node.op)
        for name in node.inputs[:2] if row and row.word == "filter" else ():
            if name in network.constants and name not in found:
                weight = network.constants[name]
                found[name] = rng.permutation(weight.reshape(-1)).reshape(weight.shape)
    return network.with_constants(found)


def rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's correlation of two arrays of one size; NaN if either is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 9.0, 8.0]))
    0.8
    """
    ranks = [_ranks(each.reshape(-1)) for each in (a, b)]
    centred = [each - each.mean() for each in ranks]
    scale = np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1]))
    return float(centred[0] @ centred[1] / scale) if scale else float("nan")


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return ranks from 0; equal entries share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: NDArray[np.float64] = ends - (counts + 1) / 2
    return middle[inverse]
