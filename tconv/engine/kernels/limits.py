"""Limits and prefetch distances of kernels."""

__all__ = ["CHANNELS_AHEAD", "MOST_INTERLEAVED"]

MOST_INTERLEAVED = 8  # phases that are interleaved in registers; more are transposed
CHANNELS_AHEAD = 4  # of x, whose planes are too far from each other to be foreseen
