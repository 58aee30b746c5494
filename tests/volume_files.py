"""Volumes for tests: sources on disk, and everything that lies in a folder."""

from pathlib import Path

import numpy as np

__all__ = ["contents", "leftovers", "make_source", "weights"]


def make_source(path, shape, chunks, dtype="float32", seed=0, **keywords):
    """Write a Zarr array of small random numbers; return them."""
    import zarr  # which `make test`, that looks for doctests here, goes without

    values = np.random.default_rng(seed).integers(-9, 9, shape)
    made = zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype, **keywords)
    made[...] = values.astype(dtype)
    return made[...]


def weights(shape, dtype="float32", seed=1):
    """Numbers that are rounded when they are summed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def contents(folder):
    """Bytes of every file below a folder, by its path."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def leftovers(folder):
    return list(Path(folder).rglob("*.partial"))
