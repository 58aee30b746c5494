"""Direct, im2col and col2im algorithms."""
