"""Operands of one library and one type, converted or refused with a reason."""

import sys
from collections.abc import Mapping
from functools import partial, reduce
from typing import Any, Protocol

import numpy as np

from tconv.arrays.dtypes import NATIVE_DTYPES, TYPES, as_dtype, as_type_name, type_name
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.geometry.arguments import as_array
from tconv.messages import show
from tconv.system.fork_lock import importing
from tconv.system.memory import check_room

__all__ = [
    "Array",
    "as_operand",
    "as_operands",
    "check_out",
    "library_of",
    "namespace",
]

_LIBRARIES = {"jaxlib": "jax", "ml_dtypes": "numpy"}
_OPTIONAL = ("bias", "dx", "dweight", "dbias")


class Array(Protocol):
    """An array of NumPy, or of any library that follows the array API."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of every axis."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def dtype(self) -> Any:
        """Type of the elements."""


def library_of(array: Any) -> str:
    """Name of the array library: the top module of its type, "jax" for all of JAX's types.

    >>> library_of(np.zeros(3))
    'numpy'
    """
    root = type(array).__module__.partition(".")[0]
    return "numpy" if isinstance(array, np.ndarray) else _LIBRARIES.get(root, root)


def namespace(array: Any) -> Any:
    """The array-API functions of the library `array` belongs to; NumPy itself for NumPy."""
    if isinstance(array, np.ndarray):
        return np
    with importing:
        import array_api_compat

    return array_api_compat.array_namespace(array)


def as_operands(arrays: Mapping[str, Any], dtype: Any = None) -> tuple[Any, list[Any]]:
    """Return the namespace and the arrays, in one supported type; None stays None where it may be.

    Lists, tuples and scalars become NumPy arrays. Without `dtype` the types must be equal; with it
    all are converted, which may round, but not lose an imaginary part, a fraction or an integer.
    """
    if dtype is None and _are_native(arrays):
        return np, list(arrays.values())
    given = {
        name: as_operand(value, name)
        for name, value in arrays.items()
        if value is not None or name not in _OPTIONAL
    }
    given = _beside_dask_arrays(given)
    first = next(iter(given))
    xp, library = namespace(given[first]), library_of(given[first])
    for name, array in given.items():
        if library_of(array) != library:
            raise DTypeError(
                f"{first} is an array of {library} but {name} of {library_of(array)}; convert one "
                "of them, operands must be of one library."
            )
        if library == "torch" and array.device != given[first].device:
            raise DTypeError(
                f"{first} is on device {given[first].device} but {name} on {array.device}; move "
                "one of them."
            )
    wanted = None if dtype is None else as_type_name(dtype)
    types = {name: type_name(array.dtype) for name, array in given.items()}
    for name, found in types.items():
        if wanted is not None:
            given[name] = _convert(xp, given[name], name, found, wanted)
            continue
        if _kind(found) is None:
            raise DTypeError(
                f"{name} has dtype {found}, which is no type of numbers; pass an array of "
                "integers, real or complex numbers."
            )
        if found not in TYPES:
            fitting = reduce(_common, types.values(), "float32")
            raise DTypeError(
                f"{name} has dtype {found}, which has no transposed convolution; pass dtype= to "
                f'convert the operands, for example dtype="{fitting}".'
            )
        if found != types[first] and not (name == "bias" and found == TYPES[types[first]].result):
            raise DTypeError(
                f"{first} has dtype {types[first]} but {name} has {found}; pass dtype= to convert "
                f'the operands, for example dtype="{_common(types[first], found)}".'
            )
    return xp, [None if value is None else given[name] for name, value in arrays.items()]


def _beside_dask_arrays(given: dict[str, Any]) -> dict[str, Any]:
    """Make NumPy arrays beside Dask arrays, such as a weight, constants of the graph."""
    libraries = {name: library_of(array) for name, array in given.items()}
    if "dask" not in libraries.values():
        return given
    found = dict(given)
    for name, array in given.items():
        if libraries[name] == "numpy":
            found[name] = sys.modules["dask.array"].from_array(array, chunks=-1)
        elif libraries[name] != "dask":
            continue  # it is refused for its library
        elif isinstance(array._meta, np.ma.MaskedArray):
            raise DTypeError(
                f"{name} has masked arrays for chunks, whose masks would be ignored; pass "
                f"dask.array.ma.filled({name}, 0) to let masked samples contribute nothing."
            )
        elif not array.dtype.isnative:
            found[name] = array.astype(array.dtype.newbyteorder("="))
        if any(size != size for size in found[name].shape):  # NaN
            raise ShapeError(
                f"{name} has shape {found[name].shape}, sizes that are unknown; call its "
                "compute_chunk_sizes() first."
            )
    return found


def _are_native(arrays: Mapping[str, Any]) -> bool:
    """Whether all are NumPy arrays of one native type, or None: nothing is to be done."""
    found = None
    for name, array in arrays.items():
        if array is None and name in _OPTIONAL:
            continue
        if type(array) is not np.ndarray or array.dtype not in NATIVE_DTYPES:
            return False
        if found is not None and array.dtype != found:
            return False
        found = array.dtype
    return True


def check_out(out: Any, xp: Any, shape: tuple[int, ...], dtype: str, others: list[Any]) -> Any:
    """Refuse an `out` that the result cannot be written to; return the array to write to.

    That is `out` itself or, for a subclass of ndarray, a plain view of its memory.
    """
    if not (xp is np and _is_native_out(out, shape, dtype)):
        out = _check_out_itself(out, xp, shape, dtype)
    if xp is np:
        is_own = out.flags.owndata
        for other in others:
            if not isinstance(other, np.ndarray):
                continue
            if is_own and other is not out and other.flags.owndata:
                continue  # each has memory of its own
            if _overlap(out, other):
                raise ParameterError(
                    "out must not overlap an operand, it shares memory with one; pass another "
                    "array."
                )
    return out


def _is_native_out(out: Any, shape: tuple[int, ...], dtype: str) -> bool:
    """Whether `out` is a writable array of this shape and native type; False decides nothing."""
    if type(out) is not np.ndarray or out.shape != shape or NATIVE_DTYPES.get(out.dtype) != dtype:
        return False
    flags = out.flags
    return flags.c_contiguous and flags.writeable


def _check_out_itself(out: Any, xp: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """Refuse an `out` of another kind, shape or type, or one that is read-only."""
    if namespace_or_none(out) is not xp:
        raise DTypeError(
            f"out must be an array of the operands' library, not {type(out).__name__}; pass such "
            "an array or leave out away."
        )
    if isinstance(out, np.ma.MaskedArray):
        raise DTypeError("out is a masked array, whose mask could hide results; pass out.data.")
    if xp is np:
        out = _without_subclass(out)
    if tuple(out.shape) != shape:
        raise ShapeError(
            f"out has shape {tuple(out.shape)}, must be the result's {shape}; pass such an array."
        )
    if type_name(out.dtype) != dtype:
        raise DTypeError(
            f"out has dtype {type_name(out.dtype)}, must be the result's {dtype}; pass such an "
            "array."
        )
    if xp is not np:
        if library_of(out) == "jax":
            raise ParameterError("out must be writable, JAX arrays are not; leave out away.")
        return out
    if not out.flags.writeable:
        raise ParameterError("out must be writable, it is read-only; pass a copy.")
    if _repeats(out):
        raise ParameterError("out must not repeat its own memory; pass an array of its own memory.")
    return out


def namespace_or_none(array: Any) -> Any:
    """The namespace, or None if it is no array."""
    try:
        return namespace(array)
    except TypeError:
        return None


def as_operand(value: Any, name: str) -> Any:
    """Return an array of a library; for NumPy a plain ndarray in native byte order.

    A subclass becomes a plain view of its memory.

    >>> type(as_operand(np.ones(2).view(np.recarray), "x")) is np.ndarray
    True
    """
    if isinstance(value, np.ma.MaskedArray):
        return as_array(value, name)  # it raises the error
    if isinstance(value, (list, tuple, int, float, complex, np.generic)):
        value = as_array(value, name)
    elif namespace_or_none(value) is None or not hasattr(value, "dtype"):
        raise DTypeError(
            f"{name}={show(value)} must be an array, not {type(value).__name__}; pass a NumPy "
            "array or one of another array library."
        )
    if isinstance(value, np.ndarray):
        value = _without_subclass(value)
        if not value.dtype.isnative:
            value = value.astype(value.dtype.newbyteorder("="))
    return value


def _without_subclass(array: Any) -> Any:
    """The same memory as a plain ndarray, by its real shape and strides."""
    return array if type(array) is np.ndarray else np.asarray(array)


def _convert(xp: Any, array: Any, name: str, found: str, wanted: str) -> Any:
    """Convert to the wanted type unless that would lose more than precision."""
    if found == wanted:
        return array
    ranks = [_kind(found), _kind(wanted)]
    if ranks[0] is None or ranks[0] > (ranks[1] or 0):
        raise DTypeError(
            f"{name} has dtype {found}, which dtype={wanted} cannot hold; convert {name} yourself "
            "in the way you mean."
        )
    if ranks == [1, 1] and library_of(array) == "dask":  # its values are checked later
        dtype = as_dtype(np, wanted)
        return array.map_blocks(partial(_convert_block, name, found, wanted), dtype=dtype)
    if ranks == [1, 1] and 0 not in array.shape:
        low, high = int(xp.min(array)), int(xp.max(array))
        info = np.iinfo(wanted)
        if low < info.min or high > info.max:
            raise DTypeError(
                f"{name} has values {low} to {high}, which dtype={wanted} cannot hold; pass a "
                "wider dtype."
            )
    dtype = as_dtype(xp, wanted)
    if xp is np and found != wanted:  # a broadcast view may be larger than memory
        check_room(f"{name} as {wanted}", array.size * dtype.itemsize)
    return xp.astype(array, dtype)


def _convert_block(name: str, found: str, wanted: str, block: Any) -> Any:
    return _convert(namespace(block), block, name, found, wanted)


def _kind(name: str) -> int | None:
    """0 bool, 1 integer, 2 real, 3 complex; None for all else."""
    for kind, starts in enumerate((("bool",), ("int", "uint"), ("float", "bfloat"), ("complex",))):
        if name.startswith(starts):
            return kind
    return None


def _common(a: str, b: str) -> str:
    """Name of a type that both can be converted to."""
    try:
        name = np.promote_types(as_dtype(np, a), as_dtype(np, b)).name
    except (TypeError, DTypeError):  # NumPy cannot tell
        return "complex64" if 3 in (_kind(a), _kind(b)) else "float32"
    if name in TYPES:
        return str(name)
    return "complex128" if _kind(name) == 3 else "float64"


def _repeats(array: Any) -> bool:
    """Whether two elements share memory: the stride of an axis is within the span of finer ones.

    Slices, transposes and diagonals never do.
    """
    if array.size == 0:
        return False
    axes = sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1)
    span = array.itemsize
    for step, size in axes:
        if step < span:
            return True
        span += step * (size - 1)
    return False


def _overlap(a: Any, b: Any) -> bool:
    if not np.may_share_memory(a, b):  # it compares bounds only
        return False
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
