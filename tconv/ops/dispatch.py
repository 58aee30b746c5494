"""Dispatch of one contraction: checks of memory, `out` and overflow, then an implementation."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

import tconv.engine as engine
from tconv import spectral
from tconv.arrays.activations import Activation
from tconv.arrays.dtypes import TYPES, NumberType, as_dtype, dtype_name, largest, largest_sum
from tconv.arrays.operands import check_out, library_of, namespace
from tconv.arrays.padding_modes import PADDING_MODES, pad, transposed_pad, transposed_pad_factor
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError, UnsupportedError
from tconv.geometry.arguments import (
    METHODS,
    as_choice,
    as_integer,
    as_padding,
    as_per_axis,
    as_threads,
)
from tconv.geometry.geometry import Geometry, Letter
from tconv.portable import contract as portable
from tconv.system.allocator import drop_idle
from tconv.system.fork_lock import importing
from tconv.system.memory import available_bytes, has_room

__all__ = [
    "SMALL_BYTES",
    "Call",
    "check_bias",
    "check_memory",
    "check_padding_mode",
    "check_rank",
    "is_registered",
    "native",
    "needs_no_limit",
    "register",
    "solve_for",
    "uncropped",
    "usable_bytes",
]

_MEMORY_SHARE = 0.8
SMALL_BYTES = 2**26
"""Below this the operating system is not asked for free memory."""
_PAD_COPIES = 4  # most copies of the padded y that exist during a pad or a transposed pad
_MOST_AXES = 30  # spatial; intermediate arrays have two per axis and three more, of NumPy's 64

_BLAS_BYTES = 2**26  # OpenBLAS allocates 32 MiB and ends the process if it cannot
_has_warned = False
_reserve = [bytearray(2**18)]
"""Addresses that are given up where there are none left, so that an error can still say so."""

_contracts: dict[str, Callable[..., Any]] = {}
"""Implementation by array library; the portable path serves all others."""

_lazy_libraries: set[str] = set()
_HOSTS_ON_DEMAND = {"dask": "tconv.dask"}
"""Host modules imported with the first array of their library: nothing else serves such arrays."""


def register(library: str, contract: Callable[..., Any], *, lazy: bool = False) -> None:
    """Let `contract`, with the signature of `portable.contract`, serve the arrays of a library.

    Called by the host modules, such as `tconv.torch`, when they are imported. A lazy library's
    arrays are computed later: its contract also takes `name` and `max_bytes` of the call, and each
    of its tasks is checked against memory and overflow as a call of its own.
    """
    _contracts[library] = contract
    if lazy:
        _lazy_libraries.add(library)


def is_registered(library: str) -> bool:
    """Whether `register` was called for a library."""
    return library in _contracts


@dataclass(frozen=True)
class Call:
    """Options of a call besides sizes: padding mode, method, threads, memory limit, epilogue.

    Each value is checked and stored as a value of Python: caches use them as keys, and byte counts
    would overflow a small integer type of NumPy.

    >>> Call("conv", threads=np.uint16(5)).threads
    5
    """

    name: str
    padding_mode: str = "zeros"
    method: str = "auto"
    threads: int | None = None
    max_bytes: int | None = None
    activation: Activation | None = None
    kept: bool = True  # the weight is packed once for many calls

    def __post_init__(self) -> None:
        values = self.__dict__  # the dataclass is frozen
        values["padding_mode"] = as_choice(self.padding_mode, "padding_mode", PADDING_MODES)
        values["method"] = as_choice(self.method, "method", METHODS)
        values["threads"] = as_threads(self.threads)
        if self.max_bytes is not None:
            values["max_bytes"] = as_integer(self.max_bytes, "max_bytes", 1)


def check_padding_mode(
    mode: str, geometry: Geometry, padding: Any, output_padding: Any, size: str = "the output size"
) -> None:
    """Refuse arguments that do not combine with a padding mode other than zeros.

    Messages call the size of y, which is padded, by the words of `size`.
    """
    mode = as_choice(mode, "padding_mode", PADDING_MODES)
    row = PADDING_MODES[mode]
    if row is None:
        return
    if isinstance(as_padding(padding, geometry.rank), str):
        raise ParameterError(
            f'padding_mode="{mode}" excludes padding="{padding}"; pass integers, or '
            'padding_mode="zeros".'
        )
    if any(as_per_axis(output_padding, "output_padding", geometry.rank, 0)):
        raise ParameterError(
            f'padding_mode="{mode}" excludes output_padding={output_padding}; pass '
            'output_padding=0 or padding_mode="zeros".'
        )
    if 0 in geometry.input_size:  # y is 0 everywhere, and so is its transposed pad
        return
    for n, axis in enumerate(geometry.axes):
        crop = (axis.begin, axis.end)
        if min(crop) < 0:
            raise ParameterError(
                f'padding[{n}]={crop} must not be negative with padding_mode="{mode}"; '
                'pass padding of 0 or more, or padding_mode="zeros".'
            )
        if not row.reaches_any_size and max(crop) >= axis.output:
            raise ShapeError(
                f"padding[{n}]={crop} must be smaller than {size} {axis.output} with "
                f'padding_mode="{mode}"; lower padding or use padding_mode="circular".'
            )


def solve_for(
    want: Letter,
    geometry: Geometry,
    a: Any,
    b: Any,
    bias: Any,
    call: Call,
    out: Any = None,
) -> Any:
    """Check types, memory and `out`, then contract: (a, b) as in `portable.contract`.

    An activation needs NumPy arrays. Under a padding mode it is applied after the transposed pad.
    """
    try:
        return _solve_for(want, geometry, a, b, bias, call, out)
    except MemoryLimitError:
        raise
    except MemoryError as error:  # a limit of the operating system
        _reserve.clear()
        text = f"{call.name} got too little memory ({error or 'for an object of Python'})"
        raise MemoryLimitError(f"{text}; lower the sizes or split the batch.") from error


def _by_numpy(*operands: Any, **options: Any) -> Any:
    """Contract NumPy arrays by the portable path, without warnings that machine code does not give.

    BLAS multiplies infinities of a small matrix by padding zeros that are part of no result, and
    NumPy warns of an invalid value (OpenBLAS 0.3 on AVX-512).
    """
    with np.errstate(invalid="ignore"):
        return portable.contract(*operands, **options)


def _solve_for(
    want: Letter, geometry: Geometry, a: Any, b: Any, bias: Any, call: Call, out: Any
) -> Any:
    xp, library, types = namespace(a), library_of(a), TYPES[dtype_name(a.dtype)]
    check_bias(want, geometry, bias)
    check_rank(geometry)
    padded = call.padding_mode != "zeros" and 0 not in geometry.input_size
    padded = padded and any(axis.begin or axis.end for axis in geometry.axes)
    inner = uncropped(geometry) if padded else geometry
    contract: Any = _contract_for(library)
    if library in _lazy_libraries:
        return _contract_lazily(contract, want, geometry, inner, a, b, bias, call, out)
    if call.method == "fft":
        _check_fft(call, library, types)
        contract = spectral.contract
    plan, fused, kind = None, None if padded else call.activation, dtype_name(a.dtype)
    if padded and want == "y" and not types.is_integer:  # y is rounded after the transposed pad
        kind = types.accumulator
    native_plan = partial(native, inner, want, kind, call.threads, activation=fused, kept=call.kept)
    if contract is None and xp is np:
        plan = native_plan("direct" if call.method == "direct" else "auto")
    work = None if plan is None else engine.workspace_bytes(inner, plan)
    if call.method == "fft":
        work = spectral.workspace_bytes(
            inner, want, dtype_name(a.dtype), call.threads or engine.host_target().threads
        )
    check_memory(want, geometry, call, types, unblocked=xp is not np, inner=inner, workspace=work)
    if plan is None and xp is np and not types.is_integer and not has_room(_BLAS_BYTES):
        raise MemoryLimitError(
            f"{call.name} needs {_BLAS_BYTES:,} bytes for NumPy's products, which may end the "
            "process without them, and its limits leave fewer; raise them (`ulimit -v`, "
            "`ulimit -d`)."
        )
    to = out
    if out is not None:
        to = check_out(out, xp, geometry.shape_of(want), types.result, [a, b, bias])
    if types.is_integer:
        factor = (
            transposed_pad_factor([(axis.begin, axis.end) for axis in geometry.axes])
            if padded
            else 1
        )
        _check_overflow(xp, want, geometry, a, b, bias, types.accumulator, factor)
    if plan is not None:
        if call.method == "measure":  # it allocates, so after the check of memory
            plan = native_plan(call.method) or plan
        contract = partial(engine.contract, plan=plan)
    contract = contract or (_by_numpy if xp is np else portable.contract)
    options: dict[str, Any] = {"method": call.method, "threads": call.threads}
    if call.method == "fft" and call.threads is None:
        options["threads"] = engine.host_target().threads
    if padded:
        result = _contract_padded(contract, want, geometry, inner, a, b, bias, call, options)
    elif out is not None and xp is np:
        result = contract(geometry, want, a, b, bias=bias, out=to, **options)
    else:
        result = contract(geometry, want, a, b, bias=bias, **options)
    if call.activation is not None and (plan is None or plan.activation != call.activation):
        call.activation.apply(result)
    if out is None:
        return result
    if result is not to:
        to[...] = result
    return out


def _check_fft(call: Call, library: str, types: NumberType) -> None:
    """Refuse what is not computed by Fourier transforms."""
    if library != "numpy":
        raise UnsupportedError(
            f'{call.name} has method="fft" for NumPy arrays only, not for arrays of {library}; '
            "convert them, or leave method out."
        )
    if types.is_integer:
        raise DTypeError(
            f'{call.name} with method="fft" rounds, and integers are exact; pass dtype="float64", '
            'or method="direct".'
        )


def check_bias(want: Letter, geometry: Geometry, bias: Any) -> None:
    """Refuse a bias of another shape than one number per channel of the result."""
    if bias is None:
        return
    channels = geometry.out_channels if want == "y" else geometry.in_channels
    if tuple(bias.shape) != (channels,):
        others = "" if bias.ndim else ", and stride by its name if that was meant"
        raise ShapeError(
            f"bias has shape {tuple(bias.shape)}, must be ({channels},), one number per "
            f"channel of the result; pass such a bias{others}."
        )


def check_rank(geometry: Geometry) -> None:
    """Refuse more spatial axes than anything here computes."""
    if geometry.rank > _MOST_AXES:
        raise UnsupportedError(
            f"weight has {geometry.rank} spatial axes, at most {_MOST_AXES} are supported; reshape "
            "x and weight to fewer."
        )


def _contract_for(library: str) -> Callable[..., Any] | None:
    """The contract of an array library; imports its host module if that serves on demand."""
    if library in _HOSTS_ON_DEMAND and library not in _contracts:
        with importing:
            import_module(_HOSTS_ON_DEMAND[library])
    return _contracts.get(library)


def _contract_lazily(
    contract: Callable[..., Any],
    want: Letter,
    geometry: Geometry,
    inner: Geometry,
    a: Any,
    b: Any,
    bias: Any,
    call: Call,
    out: Any,
) -> Any:
    """Contract arrays that are computed later; `inner` is the geometry without a padding mode."""
    if out is not None:
        raise ParameterError(
            "out must be left out for arrays that are computed later; use what is returned."
        )
    options: dict[str, Any] = {"method": call.method, "threads": call.threads}
    options |= {"name": call.name, "max_bytes": call.max_bytes}
    if inner is not geometry:
        return _contract_padded(contract, want, geometry, inner, a, b, bias, call, options)
    return contract(geometry, want, a, b, bias=bias, **options)


def native(
    geometry: Geometry,
    want: Letter,
    dtype: str,
    threads: int | None,
    method: str = "auto",
    activation: Activation | None = None,
    residual: bool = False,
    kept: bool = True,
) -> Any:
    """The engine's plan for a contraction of NumPy arrays; None if the portable path serves it.

    If code cannot be compiled, the portable path serves all calls, and one warning says so.
    """
    if dtype not in engine.TYPES or method == "fft":
        return None
    try:
        if engine.serves(geometry, want, dtype, threads, kept):
            return engine.prepare(
                geometry, dtype, threads, method, want, activation, residual, kept
            )
    except ParameterError:  # from an environment variable
        raise
    except Exception as error:
        _warn_once(f"{type(error).__name__}: {error}")
    return None


def _warn_once(reason: str) -> None:
    global _has_warned
    if _has_warned:
        return
    _has_warned = True
    warnings.warn(
        f"tconv computes without machine code of its own, which is slower: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )


def _contract_padded(
    contract: Callable[..., Any],
    want: Letter,
    geometry: Geometry,
    inner: Geometry,
    a: Any,
    b: Any,
    bias: Any,
    call: Call,
    options: dict[str, Any],
) -> Any:
    """Contract without cropping; pad y before, or apply the transposed pad after."""
    xp, mode = namespace(a), call.padding_mode
    pairs = [(axis.begin, axis.end) for axis in geometry.axes]
    first = geometry.batched + (geometry.data_format == "channels_first")
    if want == "x":
        return contract(inner, want, pad(xp, a, mode, pairs, first), b, bias=bias, **options)
    if want == "w":
        return contract(inner, want, a, pad(xp, b, mode, pairs, first), **options)
    types = TYPES[dtype_name(a.dtype)]
    if types.accumulator != types.result:  # float16, bfloat16: add in float32, round once
        accumulator = as_dtype(xp, types.accumulator)
        a, b = (xp.astype(v, accumulator) for v in (a, b))
        bias = None if bias is None else xp.astype(bias, accumulator)
    y = transposed_pad(xp, contract(inner, want, a, b, **options), mode, pairs, first)
    if bias is not None:
        last = geometry.data_format == "channels_last"
        y = y + (bias if last else xp.reshape(bias, (bias.shape[0], *[1] * geometry.rank)))
    return xp.astype(y, as_dtype(xp, types.result), copy=False)


def uncropped(geometry: Geometry) -> Geometry:
    """The same call with y in its padded size."""
    axes = tuple(
        axis._replace(begin=0, end=0, output=axis.output + axis.begin + axis.end)
        for axis in geometry.axes
    )
    return replace(geometry, axes=axes)


def _check_overflow(
    xp: Any,
    want: Letter,
    geometry: Geometry,
    a: Any,
    b: Any,
    bias: Any,
    accumulator: str,
    factor: int,
) -> None:
    """Refuse integers whose sums could overflow; a transposed pad adds `factor` cells into one."""
    terms = geometry.terms(want) * (factor if want == "y" else 1)
    start = 0 if bias is None else largest(xp, bias)
    most = np.iinfo(accumulator).max
    if largest_sum(dtype_name(a.dtype), terms) + start <= most:  # for any values
        return
    of_b = getattr(b, "largest", None)  # stored with packed weights
    bound = largest(xp, a) * (largest(xp, b) if of_b is None else of_b) * terms + start
    if bound > most:
        raise DTypeError(
            f"sums of {dtype_name(a.dtype)} products could reach {bound:,}, beyond {accumulator}'s "
            f'{most:,}; pass smaller values or dtype="float64".'
        )


def needs_no_limit(geometry: Geometry, want: Letter, dtype: str, plan: Any) -> bool:
    """Whether a result of this type and the plan's workspace are too small for `check_memory`."""
    output: int = prod(geometry.shape_of(want)) * as_dtype(np, dtype).itemsize
    return output + engine.workspace_bytes(geometry, plan) <= SMALL_BYTES


def check_memory(
    want: Letter,
    geometry: Geometry,
    call: Call,
    types: NumberType,
    *,
    unblocked: bool,
    inner: Geometry | None = None,
    workspace: int | None = None,
) -> None:
    """Compare output, workspace and packed weights with the limit, before any allocation.

    `inner` is the geometry that is contracted, another than `geometry` under a padding mode;
    `workspace` is its workspace in bytes, by default that of the portable path.
    """
    inner = inner or geometry
    output = prod(geometry.shape_of(want)) * as_dtype(np, types.result).itemsize
    work = workspace
    if work is None:
        work = portable.workspace_bytes(inner, want, types.accumulator, unblocked)
    if inner is not geometry:  # the padded y and its copies
        itemsize = np.dtype(types.accumulator).itemsize
        work += _PAD_COPIES * prod(inner.y_shape) * itemsize
        converts = want == "y" and types.accumulator != types.result  # float16, bfloat16
        if converts:
            work += (prod(inner.x_shape) + prod(inner.weight_shape)) * itemsize
    needed = output + work
    limit, name = call.max_bytes, f"max_bytes={call.max_bytes:,}" if call.max_bytes else ""
    if limit is None:
        if needed <= SMALL_BYTES:
            return
        limit, name = usable_bytes()
        if needed > limit and drop_idle():
            limit, name = usable_bytes()
    if needed > limit:
        # Not every function has the argument.
        more = "raise max_bytes" if call.max_bytes else "free memory"
        raise MemoryLimitError(
            f"{call.name} needs {needed:,} bytes (output {output:,}, workspace and packed weights "
            f"{work:,}) but {name}; lower the sizes, split the batch or {more}."
        )


def usable_bytes() -> tuple[int, str]:
    """Default limit of a call in bytes, and in words."""
    available = available_bytes()
    if available is None:
        return sys.maxsize, f"{sys.maxsize:,} can be addressed"
    limit = int(available * _MEMORY_SHARE)
    return limit, f"{limit:,} may be used ({_MEMORY_SHARE:.0%} of the memory available)"
