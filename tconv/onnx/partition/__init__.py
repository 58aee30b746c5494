"""Partition of a model into layers and subgraphs, and the time that it is predicted to save."""
