"""Native steps of a program: loops, reductions, and the sequence that runs all steps."""
