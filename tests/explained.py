"""Small calls with all kinds of numbers, to be explained; the same in every run."""

import ml_dtypes
import numpy as np

import tconv
from tconv.errors import ParameterError, ShapeError

__all__ = ["KINDS", "drawn_calls", "same_bits"]


def _anything(rng, size):
    """Bits of any finite float64: subnormal, huge, negative zero."""
    bits = rng.integers(0, 2**64, size, np.uint64, endpoint=False)
    exponents = (bits >> np.uint64(52)) & np.uint64(0x7FF)
    return np.where(exponents == 0x7FF, bits & ~np.uint64(1 << 62), bits).view(np.float64)


KINDS = {
    "float32": lambda rng, size: rng.standard_normal(size, np.float32),
    "float64": lambda rng, size: rng.standard_normal(size),
    "float16": lambda rng, size: rng.standard_normal(size).astype(np.float16),
    "bfloat16": lambda rng, size: rng.standard_normal(size).astype(ml_dtypes.bfloat16),
    "small integers": lambda rng, size: rng.integers(-9, 10, size, np.int8),
    "long integers": lambda rng, size: rng.integers(-(2**53), 2**53, size, endpoint=True),
    "even integers": lambda rng, size: rng.integers(0, 2**53, size, np.uint64) * np.uint64(2048),
    "huge": lambda rng, size: rng.standard_normal(size) * 2.0 ** rng.integers(900, 1022, size),
    "tiny": lambda rng, size: rng.standard_normal(size) * 2.0 ** -rng.integers(900, 1080, size),
    "any bits": _anything,
    "zeros": lambda rng, size: rng.choice([0.0, -0.0, 1.0, -1.0], size),
    "thirds": lambda rng, size: rng.integers(-9, 10, size) / 3,
}


def drawn_calls(count, seed=0):
    """Return as many (x, w, settings), with numbers of each kind in turn."""
    rng, kinds, found = np.random.default_rng(seed), list(KINDS.values()), []
    while len(found) < count:
        rank, kind = int(rng.integers(1, 3)), kinds[len(found) % len(kinds)]
        other = kinds[rng.integers(len(kinds))] if rng.random() < 0.3 else kind
        x = other(rng, rng.integers(1, 9, rank).tolist())
        w = kind(rng, rng.integers(1, 8, rank).tolist())
        settings = {
            "stride": rng.integers(1, 5, rank).tolist(),
            "padding": rng.integers(0, 3, (rank, 2)).tolist(),
            "output_padding": rng.integers(0, 2, rank).tolist(),
        }
        try:
            tconv.explain(np.ones(x.shape), np.ones(w.shape), **settings)
        except (ParameterError, ShapeError):
            continue
        found.append((x, w, settings))
    return found


def same_bits(held, given):
    """Whether rows of numbers are those of an array, negative zeros included."""
    wide = np.atleast_2d(given).astype(np.float64)
    held = np.array(held, np.float64)
    return held.shape == wide.shape and held.tobytes() == wide.tobytes()
