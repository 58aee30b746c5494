"""Depthwise algorithm: vectors of outputs slide over rows of x, without a panel."""
