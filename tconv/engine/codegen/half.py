"""Conversion of float16 and bfloat16: loads widen cells to float32, stores round them back.

    element = cell                       # exact
    cell = element                       # rounded once, to the nearest, ties to even

All other types are stored as they are computed with. bfloat16 is the upper half of a float32.
An instruction converts float16. Processors without one shift the bits, change the exponent's bias,
and round by adding half of the last bit that is kept before the others are dropped; subnormal
float16 results are rounded by a floating-point addition.
"""

from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import (
    FLOAT,
    HALF,
    I16,
    I32,
    Builder,
    Constant,
    Index,
    Type,
    Value,
    VectorType,
)

__all__ = [
    "load_cell",
    "load_cells",
    "narrowed",
    "store_cell",
    "store_cells",
    "stored_cells",
    "widened",
]

# Bits of the fraction of float16 and of float32, and the difference of their exponents' biases.
_FRACTION, _WIDE_FRACTION, _BIAS = 10, 23, 127 - 15
_DROPPED = _WIDE_FRACTION - _FRACTION
_INFINITY, _WIDE_INFINITY, _QUIET = 0x1F << _FRACTION, 0xFF << _WIDE_FRACTION, 1 << _FRACTION - 1
_LEAST_EXPONENT, _LEAST_NORMAL = _BIAS + 1, 2.0**-14
_BEYOND_EXPONENT = _BIAS + 31  # of 2**16, beyond float16
_ROUNDER, _ROUNDER_BITS = 0.5, 126 << _WIDE_FRACTION  # whose last bit is float16's least subnormal


def load_cell(code: Code, pointer: Value, index: Index = 0) -> Value:
    """``pointer[index]`` of x or the weight, widened."""
    return widened(code, code.load(pointer, index, code.element.cell))


def load_cells(code: Code, pointer: Value, index: Index = 0) -> Value:
    """``pointer[index:][:lanes]`` of x or the weight, widened."""
    return widened(code, stored_cells(code, pointer, index))


def stored_cells(code: Code, pointer: Value, index: Index = 0) -> Value:
    """``pointer[index:][:lanes]`` as it is stored, to be shuffled before it is `widened`."""
    element, place = code.element, code.cell(pointer, index)
    kind = VectorType(element.cell, element.lanes)
    return code.builder.load(place, align=element.cell_bytes, typ=kind)


def store_cell(code: Code, value: Value, pointer: Value, index: Index = 0) -> None:
    """``pointer[index] = value`` in y."""
    code.store(narrowed(code, value), pointer, index)


def store_cells(code: Code, cells: Value, pointer: Value, index: Index = 0) -> None:
    """``pointer[index:][:lanes] = cells`` in y, of cells that `narrowed` made."""
    code.builder.store(cells, code.cell(pointer, index), align=code.element.cell_bytes)


def widened(code: Code, cells: Value) -> Value:
    """Return a cell, or a vector of cells, as elements to compute with."""
    element, builder = code.element, code.builder
    if not element.is_half:
        return cells
    if element.stored == "float16" and element.converts_float16:
        return builder.fpext(builder.bitcast(cells, _like(cells, HALF)), _like(cells, FLOAT))
    bits = builder.zext(cells, _like(cells, I32))
    if element.stored == "float16":
        return _from_float16(builder, bits)
    return builder.bitcast(builder.shl(bits, _all(bits, 16)), _like(cells, FLOAT))


def narrowed(code: Code, value: Value) -> Value:
    """Return an element, or a vector of elements, as cells of y."""
    element, builder = code.element, code.builder
    if not element.is_half:
        return value
    if element.stored == "float16" and element.converts_float16:
        return builder.bitcast(builder.fptrunc(value, _like(value, HALF)), _like(value, I16))
    bits = builder.bitcast(value, _like(value, I32))
    of_kind = _to_float16 if element.stored == "float16" else _to_bfloat16
    return builder.trunc(of_kind(builder, bits), _like(value, I16))


def _from_float16(builder: Builder, bits: Value) -> Value:
    """Return float32 of float16, whose bits `bits` has in 32."""
    real = _like(bits, FLOAT)
    size = builder.and_(bits, _all(bits, 0x7FFF))
    sign = builder.shl(builder.xor(bits, size), _all(bits, 16))
    moved = builder.shl(size, _all(bits, _DROPPED))
    normal = builder.add(moved, _all(bits, _BIAS << _WIDE_FRACTION))
    infinite = builder.add(normal, _all(bits, _BIAS << _WIDE_FRACTION))
    # A subnormal: read with the leading one of normal numbers, which is subtracted again.
    begun = builder.bitcast(builder.add(normal, _all(bits, 1 << _WIDE_FRACTION)), real)
    small = builder.bitcast(builder.fsub(begun, _all(begun, _LEAST_NORMAL)), bits.type)
    found = _pick_below(builder, size, 1 << _FRACTION, small, normal)
    found = _pick_below(builder, size, _INFINITY, found, infinite)
    return builder.bitcast(builder.or_(found, sign), real)


def _to_float16(builder: Builder, bits: Value) -> Value:
    """Return the bits of float16, in 32, from those of float32."""
    real = _like(bits, FLOAT)
    size = builder.and_(bits, _all(bits, 0x7FFF_FFFF))
    sign = builder.lshr(builder.xor(bits, size), _all(bits, 16))
    based = builder.sub(size, _all(bits, _BIAS << _WIDE_FRACTION))
    normal = _nearest(builder, based, _DROPPED)
    number = builder.bitcast(size, real)
    rounded = builder.bitcast(builder.fadd(number, _all(number, _ROUNDER)), bits.type)
    small = builder.sub(rounded, _all(bits, _ROUNDER_BITS))
    infinite = _pick_below(
        builder, size, _WIDE_INFINITY + 1, _all(bits, _INFINITY), _all(bits, _INFINITY | _QUIET)
    )
    found = _pick_below(builder, size, _LEAST_EXPONENT << _WIDE_FRACTION, small, normal)
    found = _pick_below(builder, size, _BEYOND_EXPONENT << _WIDE_FRACTION, found, infinite)
    return builder.or_(found, sign)


def _to_bfloat16(builder: Builder, bits: Value) -> Value:
    """Return the bits of bfloat16, in 32, from those of float32."""
    size = builder.and_(bits, _all(bits, 0x7FFF_FFFF))
    upper = builder.lshr(bits, _all(bits, 16))
    nan = builder.or_(upper, _all(bits, 0x40))  # else its only bits may be dropped
    return _pick_below(builder, size, _WIDE_INFINITY + 1, _nearest(builder, bits, 16), nan)


def _nearest(builder: Builder, bits: Value, count: int) -> Value:
    """Drop the last `count` bits, rounding to the nearest, ties to even."""
    shift = _all(bits, count)
    last = builder.and_(builder.lshr(bits, shift), _all(bits, 1))
    half = builder.add(last, _all(bits, (1 << count - 1) - 1))
    return builder.lshr(builder.add(bits, half), shift)


def _pick_below(builder: Builder, size: Value, bound: int, below: Value, else_: Value) -> Value:
    """``below if size < bound else else_``."""
    return builder.select(builder.icmp_signed("<", size, _all(size, bound)), below, else_)


def _like(value: Value, kind: Type) -> Type:
    """Return a type, or a vector of it with as many lanes as a value has."""
    return VectorType(kind, value.type.count) if value.type.count else kind


def _all(value: Value, constant: float) -> Constant:
    """Return a constant of a value's type, in every lane if it is a vector."""
    kind = value.type
    return kind([constant] * kind.count if kind.count else constant)
