"""Linear operators, sparse matrices, spectra and inverses of transposed convolutions, for SciPy."""

try:
    import scipy.sparse.linalg  # noqa: F401
except ImportError:
    raise ImportError("tconv.scipy needs SciPy: pip install scipy") from None

from tconv.scipy.operators import ConvOperator, ConvTransposeOperator, Operator
from tconv.scipy.recovery import recover
from tconv.scipy.sparse import matrix
from tconv.scipy.spectrum import bound, norm, singular_values

__all__ = [
    "ConvOperator",
    "ConvTransposeOperator",
    "Operator",
    "bound",
    "matrix",
    "norm",
    "recover",
    "singular_values",
]
