"""Volumes larger than memory: Zarr to Zarr, chunk by chunk, resumed where a run was stopped.

Dask schedules, with its threads on this machine or with dask.distributed on a cluster; Zarr reads
and writes.
"""

from tconv.volumes.conversion import Conversion
from tconv.volumes.convert import convert

__all__ = ["Conversion", "convert"]
