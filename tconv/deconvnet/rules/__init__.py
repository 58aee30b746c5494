"""Reversals of nodes, and the pass that goes back to the image."""
