"""Reversals of nodes, receptive fields, and the backward pass to the image."""
