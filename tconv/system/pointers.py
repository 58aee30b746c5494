"""WHERE AN ARRAY LIES: the address that native code is told."""

import ctypes
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DATA_OFFSET", "address", "is_read"]

DATA_OFFSET = object.__basicsize__
"""Bytes from an array's id to where its address stands, if `is_read`."""

_WORD = ctypes.c_ssize_t


def _read_address(array: NDArray[Any]) -> int:
    """Where an array begins, read where NumPy's C interface has it.

    That is first in a PyArrayObject, after what all objects begin with ("Python types and
    C-structures" in NumPy's reference; PyArray_DATA reads there in all that is compiled for it).
    It takes 0.13 us where `_ask_address` takes 0.95: of four arrays, in a call of 4 us.
    """
    place: int = _WORD.from_address(id(array) + DATA_OFFSET).value
    return place


def _ask_address(array: NDArray[Any]) -> int:
    """The same for every Python and NumPy there is."""
    place: int = array.__array_interface__["data"][0]
    return place


def _is_read_right() -> bool:
    """Whether arrays lie here as NumPy says; elsewhere an id need not be an address at all."""
    if sys.implementation.name != "cpython":
        return False
    some = np.zeros(3, np.int64)
    return all(_read_address(each) == _ask_address(each) for each in (some, some[1:], some[:0]))


is_read = _is_read_right()
"""Whether addresses are read where NumPy has them."""

address = _read_address if is_read else _ask_address
