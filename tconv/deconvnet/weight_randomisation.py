"""WHETHER THE WEIGHTS MATTER: the same network with its weights shuffled, and how alike both are.

References
----------
Adebayo et al. 2018, arXiv:1810.03292; Nie, Zhang & Patel 2018, arXiv:1805.07039.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.network.network import Network

__all__ = ["rank_correlation", "shuffle_weights"]

_SEED = 0
_WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1,)}


def shuffle_weights(network: Network, layer: str, seed: int = _SEED) -> Network:
    """Permute the numbers of every filter's weight between the image and a layer.

    Biases and normalisations stay, and so do mean and spread of every weight.
    """
    rng, found = np.random.default_rng(seed), {}
    for node in network.between(layer):
        for n in _WEIGHTS.get(node.op, ()):
            name = node.inputs[n]
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
    """Ranks from 0, equal ones shared."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: NDArray[np.float64] = ends - (counts + 1) / 2
    return middle[inverse]
