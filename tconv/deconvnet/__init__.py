"""Projections of features of a network back to the image."""
