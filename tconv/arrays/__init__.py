"""Arrays of any library: types, layouts, checks, padding modes and activations."""
