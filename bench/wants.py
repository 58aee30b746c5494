"""Kinds of measurements: an output, a gradient or a step of training, and their contenders."""

from typing import NamedTuple

from bench.peers import CONTENDERS

__all__ = ["WANTS", "Want"]


class Want(NamedTuple):
    """One measure: its name in tables, who is compared, where all are, and which letters they give.

    The peer to beat is the fastest of `peers.PEERS` among the contenders. "portable" is also who
    computes the reference, in float64.
    """

    title: str
    ours: str
    contenders: dict[str, str]
    letters: str


def _gradients(**functions: str) -> dict[str, str]:
    return {name: f"bench.gradients:{function}" for name, function in functions.items()}


WANTS = {
    "y": Want("", "plan", CONTENDERS, "y"),
    "x": Want(
        "convolution, or gradient of x",
        "plan",
        _gradients(
            plan="planned_conv",
            functional="conv",
            portable="portable_conv",
            torch="torch_conv",
            onnx_conv="onnx_conv",
        ),
        "x",
    ),
    "w": Want(
        "gradient of the weight",
        "functional",
        _gradients(
            functional="weight_gradient",
            portable="portable_weight_gradient",
            torch="torch_weight_gradient",
        ),
        "w",
    ),
    "step": Want(
        "step of training",
        "functional",
        _gradients(functional="step", portable="portable_step", torch="torch_step"),
        "yxw",
    ),
}
"""By the letter that is unknown; a step gives y and both gradients."""
