"""WHETHER THE WEIGHTS MATTER: the same network with its weights shuffled, and how alike both are.

References
----------
Adebayo et al. 2018, arXiv:1810.03292; Nie, Zhang & Patel 2018, arXiv:1805.07039.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.visualise.network import Network, Node

__all__ = ["rank_correlation", "shuffled"]

_SEED = 0
_WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1,)}


def shuffled(network: Network, layer: str, seed: int = _SEED) -> Network:
    """Permute the numbers of every weight between the image and a layer, each filter's in itself.

    Every filter keeps its sum and its norm, and so do biases and normalisations: activations stay
    about as large. Permuted over all filters, the sums would be alike, and of many layers most
    channels would be dead.
    """
    rng, found = np.random.default_rng(seed), {}
    for node in network.between(layer):
        for n in _WEIGHTS.get(node.op, ()):
            name = node.inputs[n]
            if name in network.constants and name not in found:
                weight = np.moveaxis(network.constants[name], _out_axis(node), 0)
                mixed = rng.permuted(weight.reshape(len(weight), -1), axis=1)
                found[name] = np.moveaxis(mixed.reshape(weight.shape), 0, _out_axis(node))
    return network.with_constants(found)


def _out_axis(node: Node) -> int:
    """The axis of a weight that counts its filters."""
    if node.op == "Gemm":
        return 0 if node.attributes.get("transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op, -1)


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
