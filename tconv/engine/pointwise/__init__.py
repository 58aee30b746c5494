"""Pointwise algorithm: a GEMM whose second matrix is x as it lies, and whose result is y."""
