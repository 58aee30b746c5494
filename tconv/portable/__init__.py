"""Contractions on any array library, as matrix products."""
