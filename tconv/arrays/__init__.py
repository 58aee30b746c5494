"""Array types, layouts, checks and padding of any array library."""
