"""Partition of a model into subgraphs, and the time it is predicted to save."""
