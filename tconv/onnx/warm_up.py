"""Ahead-of-time compilation of the kernels of a model with fixed sizes."""

from typing import Any

from tconv.engine import wait_for_optimised
from tconv.errors import TConvError
from tconv.geometry.arguments import as_threads
from tconv.onnx.model.model import as_source, read_model
from tconv.onnx.model.nodes import NotPartitionable
from tconv.onnx.partition.partition import find_layer_shapes
from tconv.ops.dispatch import native

__all__ = ["warm"]


def warm(model: Any, *, threads: int | None = None) -> list[tuple[str, str]]:
    """Compile the kernels of a model's ConvTranspose, and of its Conv of float64, and keep them.

    Call it when you build a container image whose file system is read-only at run time: every
    process with the same CPU and the same version of tconv finds the kernels on disk.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
    threads : int, as the session will be made with

    Returns
    -------
    list of (name of the node, its plan, or why there is none)

    Raises
    ------
    ModelError, OSError : as for `Session`

    >>> import tconv.onnx
    >>> layer = tconv.ConvTranspose2d(4, 4, 2, stride=2, rng=0)
    >>> tconv.onnx.warm(layer.to_onnx())
    [('ConvTranspose', 'its sizes are not fixed: run the model once instead')]
    """
    threads = as_threads(threads)
    try:
        layers = find_layer_shapes(read_model(as_source(model)))
    except NotPartitionable as reason:
        return [("model", f"left to ONNX Runtime: {reason}")]
    found = []
    for layer, dtype, x_shape, weight_shape in layers:
        if x_shape is None or weight_shape is None:
            found.append((layer.name, "its sizes are not fixed: run the model once instead"))
            continue
        try:
            geometry, want = layer.settings.geometry(x_shape, weight_shape), layer.settings.want
            plan = native(geometry, want, dtype, threads, activation=layer.fused.activation)
        except TConvError as error:
            found.append((layer.name, str(error)))
            continue
        found.append((layer.name, "; ".join(plan.describe()[:2]) if plan else "portable path"))
    wait_for_optimised()
    return found
