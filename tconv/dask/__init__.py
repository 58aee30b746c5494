"""Transposed convolutions of Dask arrays: lazy, chunk by chunk, each chunk with its own window.

`tconv.conv_transpose`, `conv` and `conv_weight_gradient` take Dask arrays as they are; this module
is imported with the first of them. `from_zarr` reads a Zarr array with one task a chunk.

>>> import dask.array, numpy, tconv
>>> x = dask.array.ones((1, 2, 100), chunks=(1, 2, 40))
>>> y = tconv.conv_transpose(x, numpy.ones((2, 3, 4)), stride=2, padding=1)
>>> y.chunks
((1,), (3,), (80, 80, 40))
"""

try:
    import dask.array as _dask  # noqa: F401
except ImportError:
    raise ImportError("tconv.dask needs Dask: pip install 'dask[array]'.") from None

from tconv.dask.contract import contract
from tconv.dask.zarr_arrays import from_zarr
from tconv.ops.dispatch import register

__all__ = ["contract", "from_zarr"]

register("dask", contract, lazy=True)
