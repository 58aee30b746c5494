"""Winograd algorithm."""
