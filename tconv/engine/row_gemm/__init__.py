"""Row GEMM: the columns of its result are cells of rows of y, written in place."""
