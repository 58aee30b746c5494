"""Pages and pictures of one transposed convolution, cell by cell."""
