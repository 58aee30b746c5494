"""Kernels that every algorithm shares."""
