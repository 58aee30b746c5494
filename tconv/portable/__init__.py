"""The portable path: contractions on any array library, as matrix products."""
