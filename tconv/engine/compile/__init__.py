"""Compilation of kernels, and the cache of object files and plans on disk."""
