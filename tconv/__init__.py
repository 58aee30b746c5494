"""tconv: transposed convolution for Python, exact, fast, explained."""

__version__ = "0.1.0"
