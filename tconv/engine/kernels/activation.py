"""Activations of accumulator rows, in place, one vector at a time.

    for n in range(0, count, lanes):
        row[n:n+lanes] = function(row[n:n+lanes])

exp is a power of two times a short series, so that kernels call no library:

    exp(x) = 2**n * exp(r)   with n = round(x / log 2), r = x - n*log 2, |r| <= (log 2)/2
    exp(r) = 1 + r + r**2/2! + ...                        # the last term is below half an ulp

    sigmoid(x) = (exp(x) if x < 0 else 1) / (1 + exp(-|x|))
    tanh(|x|) = -e / (2 + e)   with e = exp(-2|x|) - 1 = 2**n * (exp(r) - 1) + (2**n - 1)
    x*F(x) = max(x, 0) - |x|*F(-|x|)   with F the sigmoid (silu) or the normal distribution (gelu)

None of these overflows, and each is exact to a few ulps for small results too. NaN stays NaN: no
comparison with it is true, so the limits let it pass. silu, gelu and hard_swish of -inf are NaN, as
in PyTorch.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import factorial, pi, sqrt
from typing import NamedTuple

from tconv.arrays.normal_distribution import CENTRE, COEFFICIENTS, LARGEST
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Constant, IntType, Module, Value, VectorType

__all__ = ["LOG_2", "PI", "Vectors", "activate", "applied", "finish_row", "is_short"]


LOG_2 = Fraction("0.6931471805599453094172321214581765680755001343602552")
PI = Fraction(
    "3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253"
)
_GELU_SCALE = 2 * sqrt(2 / pi)  # gelu with tanh: x*sigmoid(scale*(x + 0.044715*x**3))


class _Format(NamedTuple):
    """Constants of a floating-point type.

    The series of exp has `terms` after the 1, that of the sine `sine_terms` in all. n*log(2) is
    exact with log(2) rounded to `exact_places` binary places, for every n; n*pi is with
    `places_of_pi` for n < 2**12. Beyond `small`, exp(-x) is 0; beyond `no_product`, x*exp(-x) is;
    beyond `one`, tanh(x) is 1.
    """

    bits: int
    fraction: int  # bits
    terms: int
    exact_places: int
    small: int
    no_product: int
    one: int
    sine_terms: int
    places_of_pi: int


_FORMATS = {
    "float32": _Format(32, 23, 7, 16, 104, 112, 10, 7, 10),
    "float64": _Format(64, 52, 13, 41, 746, 754, 20, 11, 39),
}


def activate(function: str) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of a kernel that applies a function to a row, in whole vectors.

    ``parameters`` points to those of the function, so one kernel serves all their values.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        code, a = begin(module, name, {"row": PTR, "count": I64, "parameters": PTR}, element)
        a["row"].add_attribute("noalias")
        of = _function(code, function, a["parameters"])
        with code.loop(a["count"], step=element.lanes) as n:
            code.store_vector(of(code.load_vector(a["row"], n)), a["row"], n)
        code.end()

    return emit


def finish_row(function: str) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of a kernel that adds a residual to a row of y, and then activates it.

    ``y[:count] = function(y[:count] + residual[:count])``; without a function it only adds.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = {"y": PTR, "residual": PTR}
        code, a = begin(module, name, pointers | {"count": I64, "parameters": PTR}, element)
        lanes = element.lanes
        of = _function(code, function, a["parameters"]) if function else None
        whole = code.mul(code.div(a["count"], lanes), lanes)
        rest = code.sub(a["count"], whole)
        with code.loop(whole, step=lanes) as n:
            total = code.plus(code.load_vector(a["y"], n), code.load_vector(a["residual"], n))
            code.store_vector(of(total) if of else total, a["y"], n)
        with code.when(code.is_less(0, rest)):
            some = code.first_lanes(rest)
            y, residual = code.at(a["y"], whole), code.at(a["residual"], whole)
            total = code.plus(code.load_lanes(y, some), code.load_lanes(residual, some))
            code.store_lanes(of(total) if of else total, y, some)
        code.end()

    return emit


def applied(code: Code, function: str, parameters: Value, vectors: list[Value]) -> list[Value]:
    """Return an activation of vectors; a long one is written once, and computed in a loop."""
    of = _function(code, function, parameters)
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
    return function in ("relu", "leaky_relu", "prelu", "clip", "hard_sigmoid", "hard_swish")


def _function(code: Code, function: str, parameters: Value) -> Callable[[Value], Value]:
    """Return the emitter of an activation of one vector."""
    count, of = Vectors(code).functions[function]
    values = [code.splat(code.load(parameters, n)) for n in range(count)]
    return lambda x: of(x, *values)


class _Exponent(NamedTuple):
    """The integers of a vector, as integers and as floating-point numbers."""

    bits: Value
    number: Value


class Vectors:
    """The activations, and the vector arithmetic that they use."""

    def __init__(self, code: Code) -> None:
        self.code, self.builder, element = code, code.builder, code.element
        self.vector, self.lanes = element.vector, element.lanes
        self.format = form = _FORMATS[element.dtype]
        self.integers = VectorType(IntType(form.bits), element.lanes)
        self.zero, self.times = element.zeros, code.builder.fmul
        self.functions: dict[str, tuple[int, Callable[..., Value]]] = {  # with their parameters
            "relu": (0, self.relu),
            "leaky_relu": (1, self.leaky_relu),
            "prelu": (1, self.leaky_relu),
            "elu": (1, self.elu),
            "clip": (2, self.clip),
            "hard_sigmoid": (2, self.hard_sigmoid),
            "tanh": (0, self.tanh),
            "sigmoid": (0, self.sigmoid),
            "silu": (0, self.silu),
            "hard_swish": (0, self.hard_swish),
            "gelu": (0, self.gelu),
            "gelu_tanh": (0, self.gelu_tanh),
            "snake": (1, self.snake),
        }

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

    def elu(self, x: Value, alpha: Value) -> Value:
        """``alpha*(exp(x) - 1) if x < 0 else x``."""
        size = self._limited(self.pick("<", x, self.zero, x, self.zero), 2 * self.format.one)
        e = self._exp_less_one(self.builder.fneg(size))
        return self.code.multiply_add(alpha, e, self.relu(x))

    def clip(self, x: Value, low: Value, high: Value) -> Value:
        """``min(max(x, low), high)``."""
        x = self.pick("<", x, low, low, x)
        return self.pick(">", x, high, high, x)

    def hard_sigmoid(self, x: Value, alpha: Value, beta: Value) -> Value:
        """``clip(alpha*x + beta, 0, 1)``, rounded as NumPy does."""
        line = self.code.plus(self.times(alpha, x), beta)
        return self.clip(line, self.zero, self.number(1))

    def hard_swish(self, x: Value) -> Value:
        """``x * clip(x + 3, 0, 6) / 6``; six times the sixth is 1, also rounded."""
        part = self.clip(self.code.plus(x, self.number(3)), self.zero, self.number(6))
        return self.times(x, self.times(part, self.number(1 / 6)))

    def sigmoid(self, x: Value) -> Value:
        """``1 / (1 + exp(-x))``."""
        one = self.number(1)
        small = self._scaled(*self._exp(self.builder.fneg(self._limited(x, self.format.small))))
        above = self.pick("<", x, self.zero, small, one)
        return self.builder.fdiv(above, self.code.plus(one, small))

    def silu(self, x: Value) -> Value:
        """``x * sigmoid(x)``."""
        return self._times_sigmoid(x, self._limited(x, self.format.no_product))

    def gelu_tanh(self, x: Value) -> Value:
        """``x/2 * (1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))``, the tanh as a sigmoid."""
        scales = [self.number(_GELU_SCALE * 0.044715), self.number(_GELU_SCALE)]
        size = self._limited(x, self.format.no_product)
        argument = self.times(size, self.code.multiply_add(self.times(size, size), *scales))
        return self._times_sigmoid(x, self._limited(argument, self.format.no_product))

    def gelu(self, x: Value) -> Value:
        """``x * P(X < x)`` of a normal X: `tconv.arrays.normal_distribution`."""
        size, tail, series, n = self._normal_tail(x)
        product = self.times(tail, self.times(size, series))
        return self.builder.fsub(self._above(x), self._scaled(product, n))

    def erf(self, x: Value) -> Value:
        """The error function, ``1 - 2*P(X < -sqrt(2)*x)`` where x > 0; right to 4e-7 of 1."""
        _, tail, series, n = self._normal_tail(self.times(x, self.number(sqrt(2))))
        tail = self._scaled(self.times(tail, series), n)
        size = self.code.multiply_add(tail, self.number(-2), self.number(1))
        return self.copysign(size, x)

    def _normal_tail(self, x: Value) -> tuple[Value, Value, Value, "_Exponent"]:
        """|x|, limited; and t, e and n with ``P(X < -|x|) = 2**n * t*e`` of a normal X."""
        dtype, half = self.code.element.dtype, self.number(-0.5)
        size, centre = self._limited(x, LARGEST[dtype]), self.number(CENTRE)
        quotient = self.builder.fdiv(self.number(1), self.code.plus(size, centre))
        t = self.times(self.builder.fsub(size, centre), quotient)
        tail = self._polynomial(t, COEFFICIENTS[dtype])
        # The square of the upper bits is exact; the rest is small.
        kept = self.integer(-(2 ** ((self.format.fraction + 2) // 2)))
        high = self.builder.bitcast(self.builder.and_(self._bits(size), kept), self.vector)
        rest = self.times(self.builder.fsub(size, high), self.code.plus(size, high))
        series, n = self._exp(self.times(self.times(high, high), half), self.times(rest, half))
        return size, self.times(tail, quotient), series, n

    def snake(self, x: Value, a: Value) -> Value:
        """``x + sin(a*x)**2/a``.

        a*x is less than half an ulp off, which moves y by half an ulp of x. So the sine's argument
        needs no more, and where it is larger than any n*pi that is known, any sine is right.
        """
        form, argument = self.format, self.times(a, x)
        large, rounded = self._large_sum(argument, 1 / PI)
        n = self.builder.fsub(rounded, large)
        r = self._less_multiple(argument, n, PI, form.places_of_pi)
        half = self.number(pi / 2)
        r = self.copysign(self.pick(">", self._size(r), half, half, self._size(r)), r)
        terms = [(-1) ** k / factorial(2 * k + 1) for k in range(form.sine_terms)]
        sine = self.times(r, self._polynomial(self.times(r, r), terms))
        return self.code.plus(x, self.builder.fdiv(self.times(sine, sine), a))

    def exp(self, x: Value) -> Value:
        """``exp(x)``: 0 below the least exponent, infinite above the largest."""
        low, high = self.number(-self.format.small), self.number(self.format.small)
        x = self.pick("<", x, low, low, x)
        x = self.pick(">", x, high, high, x)
        return self._scaled(*self._exp(x))

    def tanh(self, x: Value) -> Value:
        """``(1 - exp(-2*x)) / (1 + exp(-2*x))``."""
        size = self._limited(x, self.format.one)
        e = self._exp_less_one(self.times(size, self.number(-2)))
        return self.copysign(self.builder.fdiv(e, self.code.plus(self.number(2), e)), x)

    # ---- vector arithmetic -----------------------------------------------------------------------

    def _exp(self, x: Value, more: Value | None = None) -> tuple[Value, "_Exponent"]:
        """Return e and an integer n with ``exp(x + more) = 2**n * e``, where `more` is small."""
        n, r = self._reduced(x)
        if more is not None:
            r = self.code.plus(r, more)
        return self.code.multiply_add(r, self._series(r, 1), self.number(1)), n

    def _exp_less_one(self, x: Value) -> Value:
        """``exp(x) - 1``, exact for small x, too; 2**n must be normal."""
        n, r = self._reduced(x)
        power = self._power(n.bits)
        less_one = self.code.multiply_add(self.times(r, r), self._series(r, 2), r)
        beyond = self.builder.fsub(power, self.number(1))
        return self.code.multiply_add(power, less_one, beyond)

    def _times_sigmoid(self, x: Value, size: Value) -> Value:
        """``max(x, 0) - |x|*sigmoid(-size)``."""
        series, n = self._exp(self.builder.fneg(size))
        below = self.code.plus(self.number(1), self._scaled(series, n))
        # Scaled last: the product may be normal where exp is not.
        product = self.times(self._limited(x, self.format.no_product), series)
        return self.builder.fsub(self._above(x), self.builder.fdiv(self._scaled(product, n), below))

    def _above(self, x: Value) -> Value:
        """``max(x, 0)``, by a product, so that it is NaN for -inf."""
        return self.times(x, self.pick(">", x, self.zero, self.number(1), self.zero))

    def _reduced(self, x: Value) -> tuple["_Exponent", Value]:
        """Return an integer n and r with ``x = n*log(2) + r``."""
        # The last bits of the sum with so large a number hold the integer.
        large, rounded = self._large_sum(x, 1 / LOG_2)
        bits = self.builder.sub(self._bits(rounded), self._bits(large))
        n = _Exponent(bits, self.builder.fsub(rounded, large))
        return n, self._less_multiple(x, n.number, LOG_2, self.format.exact_places)

    def _large_sum(self, x: Value, factor: Fraction) -> tuple[Value, Value]:
        """A number so large that its sum with x*factor is rounded to an integer, and the sum."""
        large = self.number(1.5 * 2**self.format.fraction)
        return large, self.code.multiply_add(x, self.number(float(factor)), large)

    def _less_multiple(self, x: Value, n: Value, of: Fraction, places: int) -> Value:
        """``x - n*of``, where n times `of` rounded to so many binary places is exact."""
        high = round(of * 2**places) / 2**places
        for part in (high, float(of - Fraction(high))):
            x = self.code.multiply_add(n, self.number(-part), x)
        return x

    def _series(self, r: Value, first: int) -> Value:
        """``1/first! + r/(first + 1)! + ...``."""
        return self._polynomial(r, [1 / factorial(n) for n in range(first, self.format.terms + 1)])

    def _polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """``coefficients[0] + coefficients[1]*x + ...``."""
        total = self.number(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            total = self.code.multiply_add(total, x, self.number(coefficient))
        return total

    def _scaled(self, x: Value, n: "_Exponent") -> Value:
        """``x * 2**n``, rounded once. 2**n may be subnormal, but not the powers of halves of n."""
        if self.code.element.scale:
            return self._scaled_at_once(x, n.number)
        half = self.builder.ashr(n.bits, self.integer(1))
        for part in (half, self.builder.sub(n.bits, half)):
            x = self.times(x, self._power(part))
        return x

    def _scaled_at_once(self, x: Value, n: Value) -> Value:
        """The same by one instruction of AVX-512, for all lanes, rounded as always."""
        element, mask = self.code.element, IntType(max(8, self.lanes))
        name = element.scale.format("ps" if element.bytes == 4 else "pd")
        kinds = [self.vector, self.vector, self.vector, mask, I32]
        scale = self.builder.module.declared(name, self.vector, kinds)
        return self.builder.call(scale, [x, n, self.zero, mask(-1), I32(4)])

    def _power(self, n: Value) -> Value:
        """``2**n``, if that is a normal number: n becomes its exponent."""
        form = self.format
        bias = 2 ** (form.bits - form.fraction - 2) - 1
        exponent = self.builder.add(n, self.integer(bias))
        bits = self.builder.shl(exponent, self.integer(form.fraction))
        return self.builder.bitcast(bits, self.vector)

    def _limited(self, x: Value, most: int) -> Value:
        """``min(|x|, most)``, or NaN."""
        size = self._size(x)
        return self.pick(">", size, self.number(most), self.number(most), size)

    def _size(self, x: Value) -> Value:
        """``|x|``."""
        rest = self.integer(2 ** (self.format.bits - 1) - 1)
        return self.builder.bitcast(self.builder.and_(self._bits(x), rest), self.vector)

    def copysign(self, x: Value, sign_of: Value) -> Value:
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
