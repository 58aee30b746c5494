"""Operators of PyLops."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from pylops import LinearOperator
except ImportError:
    raise ImportError("to_pylops needs PyLops: pip install pylops") from None

__all__ = ["as_pylops"]


class _PyLopsOperator(LinearOperator):  # type: ignore[misc]  # PyLops has no types
    """An operator of this package; PyLops reshapes by dims and dimsd."""

    def __init__(self, operator: Any) -> None:
        self.operator = operator
        super().__init__(dtype=np.dtype(operator.dtype), dims=operator.dims, dimsd=operator.dimsd)

    def _matvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self.operator._matvec(x)

    def _rmatvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self.operator._rmatvec(x)

    def _matmat(self, x: NDArray[Any]) -> NDArray[Any]:
        return self.operator._matmat(x)

    def _rmatmat(self, x: NDArray[Any]) -> NDArray[Any]:
        return self.operator._rmatmat(x)


def as_pylops(operator: Any) -> Any:
    """An operator of this package as one of PyLops, with its dims and dimsd."""
    return _PyLopsOperator(operator)
