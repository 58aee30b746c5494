"""Sizes, settings and conventions of one call."""
