"""Gradient-weighted class activation map: where a layer's features speak for a class.

Its authors call it Grad-CAM.

References
----------
Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, arXiv:1610.02391.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.network.images import InputImage
from tconv.deconvnet.network.network import Network
from tconv.deconvnet.rules.backward import BackwardPass
from tconv.deconvnet.rules.sparse_map import SparseMap
from tconv.errors import ParameterError
from tconv.geometry.arguments import integer_of
from tconv.messages import show

__all__ = ["GradCAM", "as_class", "interpolate"]


@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM of one class: ``ReLU(sum_k mean(dy/dA_k) A_k)``, A the activations of `layer`.

    ``logits`` is the value (1, classes) that holds the class's score y.

    Raises
    ------
    RuleError : a node between the image and the logits has no derivative
    ParameterError : the layer has not the axes of the image
    """

    network: Network
    logits: str
    layer: str
    target_class: int
    threads: int | None = None

    def __call__(self, photo: InputImage) -> NDArray[np.float64]:
        """Return the map of an image, of the image's size, by linear interpolation."""
        backward = BackwardPass(self.network, self.logits, "gradient")
        record = self.network.recorder((*backward.recorded, self.layer), self.threads)
        values = record(photo.values.astype(self.network.dtype))
        shape = values[self.layer].shape
        if len(shape) != photo.values.ndim:
            raise ParameterError(
                f"layer={self.layer!r} has shape {shape}, must have the image's axes for Grad-CAM; "
                "name a layer below it (see_layers shows them), or none."
            )
        seed = np.zeros_like(values[self.logits])
        seed[0, self.target_class] = 1
        slope = backward.project(SparseMap.whole(seed), values, to=self.layer).dense()[0]
        a = values[self.layer][0].astype(np.float64)  # (K, *size)
        axes = tuple(range(1, a.ndim))
        weights = slope.mean(axis=axes, dtype=np.float64)
        cam = np.maximum(np.tensordot(weights, a, 1), 0)
        return interpolate(cam, photo.pixels.shape[1:])


def interpolate(values: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.float64]:
    """Enlarge an array by linear interpolation between the middles of its cells.

    >>> interpolate(np.array([0.0, 4.0]), (4,))
    array([0., 1., 3., 4.])
    """
    found = np.asarray(values, np.float64)
    for axis, wanted in enumerate(size):
        given = found.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
        low = np.floor(at).astype(np.intp)
        high = np.minimum(low + 1, given - 1)
        part = (at - low).reshape(-1, *[1] * (found.ndim - axis - 1))
        found = found.take(low, axis) * (1 - part) + found.take(high, axis) * part
    return found


def as_class(target_class: Any, logits: tuple[str, int] | None) -> tuple[int, str]:
    """Check the class of a classifier, and return it with the name of the scores.

    Raises
    ------
    ParameterError : it is none of the network's classes, or the network has none
    """
    if logits is None:
        raise ParameterError(
            f"target_class={show(target_class)} needs a network whose first output is one score "
            "for each class, (1, classes), and this one has another; leave the class out, and name "
            "a layer and a feature."
        )
    name, classes = logits
    number = integer_of(target_class)
    if number is None or not 0 <= number < classes:
        raise ParameterError(
            f"target_class={show(target_class)} must be from 0 to {classes - 1}, a class of "
            f"{name!r}; pass one of these."
        )
    return number, name
