"""Fingerprint of the code that kernels and plans follow from."""

import os
from collections.abc import Iterable
from functools import cache
from hashlib import sha256

from tconv.system.procfs import read_text

__all__ = ["version"]

# What plans, their layouts and the code follow from: what other sources wrote to disk is not what
# is wanted.
_SOURCES = (
    "geometry/axis.py",
    "geometry/geometry.py",
    "engine/plan/phases.py",
    "engine/plan/problem.py",
    "engine/winograd/transform.py",
    "engine/plan/plan.py",
    "engine/plan/cost_model.py",
    "engine/winograd/candidates.py",
    "engine/channel_lanes/candidates.py",
    "engine/plan/size_bands.py",
    "engine/choose.py",
    "engine/codegen/values.py",
    "engine/codegen/builder.py",
    "engine/codegen/code.py",
    "engine/codegen/half.py",
    "engine/kernels/gemm.py",
    "engine/direct/im2col.py",
    "engine/codegen/abi.py",
    "engine/direct/input_panel.py",
    "engine/direct/col2im.py",
    "engine/winograd/kernels.py",
    "engine/winograd/driver.py",
    "engine/kernels/activation.py",
    "engine/direct/write_output.py",
    "engine/driver.py",
    "engine/kernels/pack_weights.py",
    "engine/kernels/transpose.py",
    "engine/kernels/transform_weights.py",
    "engine/weight_gradient/kernels.py",
    "engine/weight_gradient/driver.py",
    "engine/channel_lanes/driver.py",
    "engine/direct/offsets.py",
    "engine/direct/layout.py",
    "engine/winograd/layout.py",
    "engine/channel_lanes/layout.py",
    "engine/plan_cache.py",
    "engine/plan/encoding.py",
    "engine/lowered_plan.py",
    "engine/lowering.py",
)


@cache
def version() -> str:
    """Return the version of all that is kept but the code of threads."""
    return version_of(_SOURCES)


def version_of(sources: Iterable[str]) -> str:
    """Return a checksum of files of the engine, from which what is kept follows."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    return sha256("".join(read_text(f"{folder}/{name}") for name in sources).encode()).hexdigest()
