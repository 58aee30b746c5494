"""Volumes larger than memory: Zarr to Zarr, chunk by chunk, resumed where a run was stopped.

Dask schedules, with its threads on this machine or with dask.distributed on a cluster; Zarr reads
and writes.
"""

try:
    import dask.array as _dask  # noqa: F401
    import zarr as _zarr  # noqa: F401
except ImportError:
    raise ImportError(
        "tconv.volumes needs Dask and Zarr: pip install 'dask[array]' zarr."
    ) from None

from tconv.volumes.conversion import convert
from tconv.volumes.networks import run
from tconv.volumes.report import Conversion

__all__ = ["Conversion", "convert", "run"]
