"""Code generation: LLVM text written as the loops it makes."""
