"""WHAT IS COMPILED AHEAD: the kernels of a model whose sizes are fixed, before its first run."""

from typing import Any

from tconv.engine.compile.tiers import wait_for_optimised
from tconv.errors import TConvError
from tconv.geometry.arguments import as_threads
from tconv.onnx.model.model import as_source, read_model
from tconv.onnx.model.nodes import NotCut
from tconv.onnx.partition.partition import fixed_sizes
from tconv.ops.dispatch import native

__all__ = ["warm"]


def warm(model: Any, *, threads: int | None = None) -> list[tuple[str, str]]:
    """Compile the kernels that a model's ConvTranspose need, and its Conv of float64; keep them.

    For images whose file system cannot be written later: what lies on disk then is found by every
    process that has the same CPU and the same version of tconv.

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
        layers = fixed_sizes(read_model(as_source(model)))
    except NotCut as reason:
        return [("model", f"left to ONNX Runtime: {reason}")]
    found = []
    for layer, dtype, x_shape, weight_shape in layers:
        if x_shape is None or weight_shape is None:
            found.append((layer.name, "its sizes are not fixed: run the model once instead"))
            continue
        try:
            geometry, follows = (
                layer.settings.geometry(x_shape, weight_shape),
                layer.followers.activation,
            )
            want = layer.settings.want
            plan = native(geometry, want, dtype, threads, activation=follows)
        except TConvError as error:
            found.append((layer.name, str(error)))
            continue
        found.append((layer.name, "; ".join(plan.describe()[:2]) if plan else "portable path"))
    wait_for_optimised()
    return found
