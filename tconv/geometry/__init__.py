"""Sizes of one call: arguments, axes, the geometry of all axes, and the same for ONNX nodes."""

from typing import Any

from tconv.system.fork_lock import importing


def __getattr__(name: str) -> Any:
    """`Geometry`, which older versions had here; pickles of theirs name it."""
    if name != "Geometry":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with importing:
        from tconv.geometry.geometry import Geometry

    return Geometry
