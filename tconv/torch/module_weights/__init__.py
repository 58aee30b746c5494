"""Weights of modules: packed ones, those that are normalised, and how changes are detected."""
