"""Number types: supported names, accumulators and result types."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tconv.errors import DTypeError
from tconv.messages import show
from tconv.system.fork_lock import importing

__all__ = [
    "FLOATING_TYPES",
    "NATIVE_DTYPES",
    "TYPES",
    "NumberType",
    "as_dtype",
    "as_type_name",
    "dtype_name",
    "float_that_is_exact",
    "largest",
    "largest_sum",
    "type_name",
]


class NumberType(NamedTuple):
    """Names of the accumulator's and the result's type."""

    accumulator: str
    result: str

    @property
    def is_integer(self) -> bool:
        """Whether sums are exact, or refused where they could overflow."""
        return self.accumulator.startswith("int")


TYPES = {
    "float16": NumberType("float32", "float16"),
    "bfloat16": NumberType("float32", "bfloat16"),
    "float32": NumberType("float32", "float32"),
    "float64": NumberType("float64", "float64"),
    "complex64": NumberType("complex64", "complex64"),
    "complex128": NumberType("complex128", "complex128"),
    "int8": NumberType("int32", "int32"),
    "uint8": NumberType("int32", "int32"),
    "int16": NumberType("int64", "int64"),
    "uint16": NumberType("int64", "int64"),
    "int32": NumberType("int64", "int64"),
    "uint32": NumberType("int64", "int64"),
    "int64": NumberType("int64", "int64"),
}
"""Every supported type, by the name that all array libraries share."""

FLOATING_TYPES = ("float16", "bfloat16", "float32", "float64")

NATIVE_DTYPES = {np.dtype(name): name for name in ("float16", "float32", "float64")}
"""NumPy's types that need no conversion, in native byte order, and their names.

bfloat16 joins them in `as_dtype`, which loads the library that has it.
"""


def dtype_name(dtype: Any) -> str:
    """Name of a type of any array library, without its module.

    >>> dtype_name(np.float32), dtype_name(np.dtype(">f8")), dtype_name("int8")
    ('float32', 'float64', 'int8')
    """
    return str.__str__(dtype) if isinstance(dtype, str) else _name_of(dtype)


@lru_cache(maxsize=64, typed=True)  # types of two libraries are never compared
def _name_of(dtype: Any) -> str:
    text = str(dtype)
    if text.startswith(("torch.", "array_api_strict.")):
        return text.rpartition(".")[2]
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return text


def type_name(dtype: Any) -> str:
    """`dtype_name`, or what `show` returns for a value that is no type.

    >>> type_name(np.float32), type_name([])
    ('float32', '[]')
    """
    try:
        return str(dtype_name(dtype))
    except Exception:  # no hash, or a method that raises
        return show(dtype)


def as_type_name(dtype: Any, choices: Collection[str] = TYPES) -> str:
    """Return the name of a type that a caller gave, one of `choices`.

    >>> as_type_name(float)
    'float64'
    """
    is_python = isinstance(dtype, type) and dtype in (int, float, complex)
    name = type_name(np.dtype(dtype) if is_python else dtype)
    if name not in choices or dtype is None:  # NumPy takes None for float64
        raise DTypeError(
            f"dtype={show(dtype)} must name one of {', '.join(choices)}; pass one of these."
        )
    return name


def as_dtype(xp: Any, name: str) -> Any:
    """Return the type called `name` of array library `xp`."""
    if xp is np and name == "bfloat16":
        try:
            with importing:
                import ml_dtypes
        except ImportError:
            raise DTypeError(
                'dtype="bfloat16" must have ml_dtypes for NumPy; pip install ml_dtypes.'
            ) from None

        found = np.dtype(ml_dtypes.bfloat16)
        NATIVE_DTYPES[found] = name
        return found
    found = getattr(xp, name, None)
    if found is None:
        raise DTypeError(f'{xp.__name__} has no type "{name}"; pass dtype= with one it has.')
    if xp.__name__ == "jax.numpy" and xp.result_type(found) != found:  # JAX would make it 32 bits
        raise DTypeError(
            f'JAX has no type "{name}" unless jax_enable_x64 is set; set it, or pass dtype= with a '
            "narrower type."
        )
    return np.dtype(found) if xp is np else found


def largest(xp: Any, array: Any) -> int:
    """Largest absolute value of an integer array, as a Python int; 0 if it is empty.

    >>> largest(np, np.array([-128, 5], np.int8))
    128
    """
    if 0 in array.shape:
        return 0
    if xp.__name__.endswith("torch") and dtype_name(array.dtype) in ("uint16", "uint32"):
        array = xp.astype(array, xp.int64)  # PyTorch can convert these, but not compare them
    try:
        return max(int(xp.max(array)), -int(xp.min(array)))
    except TypeError:  # JAX's tracers
        raise DTypeError(
            f"integers of dtype {dtype_name(array.dtype)} are checked for overflow, which takes "
            'their values; call outside of jit, or pass dtype="float32" for example.'
        ) from None


def largest_sum(name: str, terms: int) -> int:
    """Largest absolute value of a sum of `terms` products of integers of the type called `name`.

    >>> largest_sum("int8", 3)
    49152
    """
    info = np.iinfo(name)
    return int(max(info.max, -info.min)) ** 2 * terms


def float_that_is_exact(bound: int, xp: Any = np) -> str | None:
    """Floating type of `xp` that holds every integer up to `bound`, None if none does.

    Integer products through it are exact and reach the optimised matrix product.

    >>> float_that_is_exact(1000), float_that_is_exact(2**24 + 1), float_that_is_exact(2**60)
    ('float32', 'float64', None)
    """
    if bound <= 2**24:
        return "float32"
    if bound > 2**53:
        return None
    try:
        as_dtype(xp, "float64")
    except DTypeError:
        return None
    return "float64"
