"""Layers, parameters, optimisers, and files of their values."""
