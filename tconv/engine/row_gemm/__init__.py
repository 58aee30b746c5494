"""Row GEMM: the columns of its result are cells of a row of y, and are written there."""
