"""Limits and distances that kernels, layouts and the cost model share."""

__all__ = ["CHANNELS_AHEAD", "MOST_INTERLEAVED", "QUAD_BYTES"]

QUAD_BYTES = 16  # within which every CPU shuffles in one step
MOST_INTERLEAVED = 8  # phases that a kernel interleaves in registers; it transposes more
CHANNELS_AHEAD = 4  # of x, to prefetch: planes lie too far apart for the CPU to foresee the next
