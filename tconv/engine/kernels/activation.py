"""Activations of accumulator rows, in place, one vector at a time.

    for n in range(0, count, lanes):
        row[n:n+lanes] = function(row[n:n+lanes])

exp is a power of two times a short series, so that kernels call no library:

    exp(x) = 2**n * exp(r)   with n = round(x / log 2), r = x - n*log 2, |r| <= (log 2)/2
    exp(r) = 1 + r + r**2/2! + ...                        # the last term is below half an ulp

    sigmoid(x) = (exp(x) if x < 0 else 1) / (1 + exp(-|x|))
    tanh(|x|) = -e / (2 + e)   with e = exp(-2|x|) - 1 = 2**n * (exp(r) - 1) + (2**n - 1)

None of these overflows, and each is exact to a few ulps for small results too. NaN stays NaN: no
comparison with it is true, so the limits let it pass.
"""

from collections.abc import Callable
from decimal import Decimal
from math import factorial
from typing import NamedTuple

from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR, Constant, IntType, Module, Value, VectorType

__all__ = ["activate", "applied", "is_short"]


_LOG_2 = Decimal("0.6931471805599453094172321214581765680755001343602552")


class _Format(NamedTuple):
    """Constants of a floating-point type.

    The series has `terms` after the 1. n*log(2) is exact with log(2) rounded to `exact_places`
    binary places, for every n. Beyond `small`, exp(-x) is 0; beyond `one`, tanh(x) is 1.
    """

    bits: int
    fraction: int  # bits
    terms: int
    exact_places: int
    small: int
    one: int


_FORMATS = {
    "float32": _Format(32, 23, 7, 16, 104, 10),
    "float64": _Format(64, 52, 13, 41, 746, 20),
}


def activate(function: str) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of a kernel that applies a function to a row, in whole vectors.

    ``slope`` points to the slope of "leaky_relu" below 0; the other functions do not read it.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        code, a = begin(module, name, {"row": PTR, "count": I64, "slope": PTR}, element)
        a["row"].add_attribute("noalias")
        of = _function(code, function, a["slope"])
        with code.loop(a["count"], step=element.lanes) as n:
            code.store_vector(of(code.load_vector(a["row"], n)), a["row"], n)
        code.end()

    return emit


def applied(code: Code, function: str, slope: Value, vectors: list[Value]) -> list[Value]:
    """Return an activation of vectors; a long one is written once, and computed in a loop."""
    of = _function(code, function, slope)
    if is_short(function):
        return [of(each) for each in vectors]
    lanes = code.element.lanes
    row = code.room(code.element.vector, len(vectors))
    for n, each in enumerate(vectors):
        code.store_vector(each, row, n * lanes)
    with code.loop(len(vectors) * lanes, step=lanes) as at:
        code.store_vector(of(code.load_vector(row, at)), row, at)
    return [code.load_vector(row, n * lanes) for n in range(len(vectors))]


def is_short(function: str) -> bool:
    """Whether an activation takes so few instructions that it is written out for each vector."""
    return function in ("relu", "leaky_relu")


def _function(code: Code, function: str, slope: Value) -> Callable[[Value], Value]:
    """Return the emitter of an activation of one vector."""
    v = _Vectors(code)
    slopes = code.splat(code.load(slope)) if function == "leaky_relu" else code.element.zeros
    of: dict[str, Callable[[Value], Value]] = {
        "relu": v.relu,
        "leaky_relu": lambda x: v.leaky_relu(x, slopes),
        "tanh": v.tanh,
        "sigmoid": v.sigmoid,
    }
    return of[function]


class _Vectors:
    """The activations, and the vector arithmetic that they use."""

    def __init__(self, code: Code) -> None:
        self.code, self.builder, element = code, code.builder, code.element
        self.vector, self.lanes = element.vector, element.lanes
        self.format = form = _FORMATS[element.dtype]
        self.integers = VectorType(IntType(form.bits), element.lanes)
        self.zero, self.times = element.zeros, code.builder.fmul

    def relu(self, x: Value) -> Value:
        """``0 if x < 0 else x``.

        By bits: LLVM turns a select between x and 0 that is stored to where x was into a masked
        store, which takes 18 cycles on Zen 3.
        """
        kept = self.builder.fcmp_unordered(">=", x, self.zero)
        bits = self.builder.and_(self._bits(x), self.builder.sext(kept, self.integers))
        return self.builder.bitcast(bits, self.vector)

    def leaky_relu(self, x: Value, slope: Value) -> Value:
        """``slope*x if x < 0 else x``."""
        return self.times(x, self.pick("<", x, self.zero, slope, self.number(1)))

    def sigmoid(self, x: Value) -> Value:
        """``1 / (1 + exp(-x))``."""
        one = self.number(1)
        n, r = self._reduced(self.builder.fneg(self._limited(x, self.format.small)))
        # 2**n may be subnormal, where `_power` fails; the powers of both halves of n are normal.
        half = self.builder.ashr(n, self.integer(1))
        small = self.code.multiply_add(r, self._series(r, 1), one)
        for part in (half, self.builder.sub(n, half)):
            small = self.times(small, self._power(part))
        above = self.pick("<", x, self.zero, small, one)
        return self.builder.fdiv(above, self.code.plus(one, small))

    def tanh(self, x: Value) -> Value:
        """``(1 - exp(-2*x)) / (1 + exp(-2*x))``."""
        n, r = self._reduced(self.times(self._limited(x, self.format.one), self.number(-2)))
        power = self._power(n)
        less_one = self.code.multiply_add(self.times(r, r), self._series(r, 2), r)
        beyond = self.builder.fsub(power, self.number(1))
        e = self.code.multiply_add(power, less_one, beyond)
        return self._copysign(self.builder.fdiv(e, self.code.plus(self.number(2), e)), x)

    # ---- vector arithmetic -----------------------------------------------------------------------

    def _reduced(self, x: Value) -> tuple[Value, Value]:
        """Return the integer n and r with ``x = n*log(2) + r``."""
        form = self.format
        # The addition of so large a number rounds to an integer, which the last bits then hold.
        large = self.number(1.5 * 2**form.fraction)
        rounded = self.code.multiply_add(x, self.number(float(1 / _LOG_2)), large)
        n = self.builder.sub(self._bits(rounded), self._bits(large))
        quotient = self.builder.fsub(rounded, large)
        high = round(_LOG_2 * 2**form.exact_places) / 2**form.exact_places
        for part in (high, float(_LOG_2 - Decimal(high))):
            x = self.code.multiply_add(quotient, self.number(-part), x)
        return n, x

    def _series(self, r: Value, first: int) -> Value:
        """``1/first! + r/(first + 1)! + ...``."""
        last = self.format.terms
        total = self.number(1 / factorial(last))
        for n in range(last - 1, first - 1, -1):
            total = self.code.multiply_add(total, r, self.number(1 / factorial(n)))
        return total

    def _power(self, n: Value) -> Value:
        """``2**n``, if that is a normal number: n becomes its exponent."""
        form = self.format
        bias = 2 ** (form.bits - form.fraction - 2) - 1
        exponent = self.builder.add(n, self.integer(bias))
        bits = self.builder.shl(exponent, self.integer(form.fraction))
        return self.builder.bitcast(bits, self.vector)

    def _limited(self, x: Value, most: int) -> Value:
        """``min(|x|, most)``, or NaN."""
        rest = self.integer(2 ** (self.format.bits - 1) - 1)
        size = self.builder.bitcast(self.builder.and_(self._bits(x), rest), self.vector)
        return self.pick(">", size, self.number(most), self.number(most), size)

    def _copysign(self, x: Value, sign_of: Value) -> Value:
        """``copysign(x, sign_of)``."""
        sign = self.integer(-(2 ** (self.format.bits - 1)))
        rest = self.integer(2 ** (self.format.bits - 1) - 1)
        sign_bit = self.builder.and_(self._bits(sign_of), sign)
        bits = self.builder.or_(self.builder.and_(self._bits(x), rest), sign_bit)
        return self.builder.bitcast(bits, self.vector)

    def pick(self, order: str, a: Value, b: Value, then: Value, other: Value) -> Value:
        """``then if a < b else other``, or with another comparison; false for NaN."""
        return self.builder.select(self.builder.fcmp_ordered(order, a, b), then, other)

    def number(self, value: float) -> Value:
        """A constant in every lane."""
        return Constant(self.vector, [float(value)] * self.lanes)

    def integer(self, value: int) -> Value:
        """An integer constant in every lane."""
        return Constant(self.integers, [value] * self.lanes)

    def _bits(self, x: Value) -> Value:
        return self.builder.bitcast(x, self.integers)
