"""Passes: each makes fewer or cheaper steps that give the same numbers."""
