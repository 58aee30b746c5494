"""Elementary functions of elementwise loops: sine, cosine, logarithm, softplus, sign.

    sin(x) = sin(r), cos(r), -sin(r) or -cos(r)   with n = round(x*2/pi), r = x - n*pi/2
    log(x) = n*log(2) + log(1 + f)   with x = 2**n * (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
    softplus(x) = max(x, 0) + log(1 + exp(-|x|))
    log(1 + f) = f - s*(f - 2*s**2*(1/3 + s**2/5 + ...))   with s = f/(2 + f)

They compute in float32; a multiple of pi/2 that float32 does not hold is subtracted in float64.
"""

from fractions import Fraction
from math import factorial, inf, nan, pi

from tconv.engine.codegen.llvm import DOUBLE, I64, Constant, IntType, Value, VectorType
from tconv.engine.kernels.activation import LOG_2, PI, Vectors

__all__ = ["ElementaryFunctions"]

# Binary places of the first and of the second part of pi/2, by has_fma. n times either part is
# exact for |x| up to `_MOST`; with FMA no product is rounded.
_PLACES = {True: (23, 47), False: (7, 20)}
_MOST = {True: 2.0**17, False: 2.0**15}
_SINE_TERMS, _COSINE_TERMS = 4, 5  # for angles up to pi/4
_CHUNK_BITS, _CHUNKS = 24, 8  # of 2/pi: a product with a number of float32 is exact in float64
_TERMS_OF_LOG, _TERMS_OF_LOG_1P = 4, 7  # of the series in s**2, which is below 0.03 and 1/9
_LEAST_NORMAL = 2.0**-126


class ElementaryFunctions(Vectors):
    """Instructions of loops on vectors of float32."""

    def sin(self, x: Value) -> Value:
        """``sin(x)`` of any finite number; NaN of infinities."""
        sign = self.builder.and_(self._bits(x), self.integer(-(2**31)))
        return self._turned(x, 0, sign)

    def cos(self, x: Value) -> Value:
        """``cos(x)``, likewise."""
        return self._turned(x, 1, self.integer(0))

    def log(self, x: Value) -> Value:
        """``log(x)``: -inf for zeros, NaN below."""
        builder, one = self.builder, self.number(1)
        is_small = builder.fcmp_ordered("<", x, self.number(_LEAST_NORMAL))
        normal = builder.select(is_small, self.times(x, self.number(2.0**23)), x)
        # Bits of x less those of sqrt(1/2): the exponent is n, and the fraction what exceeds it.
        beyond = builder.sub(self._bits(normal), self._bits(self.number(0.5**0.5)))
        n = builder.ashr(beyond, self.integer(23))
        mantissa = builder.sub(self._bits(normal), builder.shl(n, self.integer(23)))
        f = builder.fsub(builder.bitcast(mantissa, self.vector), one)
        large = self.number(1.5 * 2**23)
        number = builder.bitcast(builder.add(n, self._bits(large)), self.vector)
        number = builder.fsub(number, large)
        zero = self.number(0)
        number = builder.fsub(number, builder.select(is_small, self.number(23), zero))
        found = self._log_1p(f, number, _TERMS_OF_LOG)
        found = self.pick("<", x, self.number(inf), found, x)  # infinity and NaN are their own
        found = self.pick("==", x, zero, self.number(-inf), found)
        return self.pick("<", x, zero, self.number(nan), found)

    def softplus(self, x: Value) -> Value:
        """``log(1 + exp(x))``, exact to a few ulps for small results, too."""
        small = self._scaled(*self._exp(self.builder.fneg(self._limited(x, self.format.small))))
        return self.code.plus(self._log_1p(small, None, _TERMS_OF_LOG_1P), self.relu(x))

    def sign(self, x: Value) -> Value:
        """1, 0 or -1; NaN of NaN."""
        one = self.copysign(self.number(1), x)
        return self.pick("<", self.zero, self._size(x), one, self.times(x, self.zero))

    # ---- quarter turns ---------------------------------------------------------------------------

    def _turned(self, x: Value, more: int, sign: Value) -> Value:
        """``sin(|x| + more*pi/2)``, or its negative where a sign bit is set."""
        builder, size = self.builder, self._size(x)
        near = self._less_quarters(size)
        is_far = builder.fcmp_ordered(">", size, self.number(_MOST[self.code.element.has_fma]))
        some = builder.bitcast(is_far, IntType(self.lanes))
        some = builder.icmp_unsigned("!=", some, Constant(some.type, 0))
        # One turn of the loop where a lane is far, else none.
        with self.code.loop_carrying(builder.zext(some, I64), near) as (found, following):
            for far, other in zip(self._less_many_quarters(size), found, strict=True):
                following.append(builder.select(is_far, far, other))
        r, n = following
        n = builder.add(n, self.integer(more))
        square = self.times(r, r)
        sine = self._polynomial(square, _series(3, _SINE_TERMS))
        sine = self.code.multiply_add(self.times(r, square), sine, r)
        cosine = self._polynomial(square, _series(2, _COSINE_TERMS))
        cosine = self.code.multiply_add(square, cosine, self.number(1))
        is_odd = builder.icmp_signed("!=", builder.and_(n, self.integer(1)), self.integer(0))
        y = self._bits(builder.select(is_odd, cosine, sine))
        half = builder.shl(builder.and_(n, self.integer(2)), self.integer(30))
        return builder.bitcast(builder.xor(builder.xor(y, half), sign), self.vector)

    def _less_quarters(self, x: Value) -> list[Value]:
        """R and an integer n with ``x = n*pi/2 + r``."""
        large, rounded = self._large_sum(x, 2 / PI)
        n, rest = self.builder.fsub(rounded, large), PI / 2
        for places in _PLACES[self.code.element.has_fma]:
            part = round(rest * 2**places) / 2**places
            x, rest = self.code.multiply_add(n, self.number(-part), x), rest - Fraction(part)
        return [self.code.multiply_add(n, self.number(-float(rest)), x), self._bits(rounded)]

    def _less_many_quarters(self, x: Value) -> list[Value]:
        """The same for any number, in float64: x*2/pi is summed chunk by chunk, modulo 4."""
        builder, kind = self.builder, VectorType(DOUBLE, self.lanes)

        def number(value: float) -> Value:
            return Constant(kind, [value] * self.lanes)

        def rounded(value: Value, large: float) -> tuple[Value, Value]:
            """The sum with a number so large that it is rounded, and the rest."""
            total = builder.fadd(value, number(large))
            return total, builder.fsub(value, builder.fsub(total, number(large)))

        wide = builder.fpext(x, kind)
        quarters = builder.fmul(wide, number(0))  # NaN of infinities
        for chunk in _chunks_of_2_over_pi():
            product = builder.fmul(wide, number(chunk))
            _, rest = rounded(product, 1.5 * 2**54)  # to multiples of 4
            # From there on a product of 48 bits is a multiple of 4.
            is_less = builder.fcmp_ordered("<", product, number(2.0**52))
            quarters = builder.fadd(quarters, builder.select(is_less, rest, number(0)))
        total, rest = rounded(quarters, 1.5 * 2**52)
        r = builder.fptrunc(builder.fmul(rest, number(pi / 2)), self.vector)
        bits = builder.bitcast(total, VectorType(I64, self.lanes))
        return [r, builder.trunc(bits, self.integers)]

    # ---- logarithms ------------------------------------------------------------------------------

    def _log_1p(self, f: Value, n: Value | None, terms: int) -> Value:
        """``log(1 + f)``, and n*log(2) more."""
        s = self.builder.fdiv(f, self.code.plus(f, self.number(2)))
        square = self.times(s, s)
        series = self._polynomial(square, [2 / (2 * k + 3) for k in range(terms)])
        rest = self.builder.fsub(f, self.times(square, series))
        if n is None:
            return self.code.multiply_add(self.builder.fneg(s), rest, f)
        high = round(LOG_2 * 2**16) / 2**16  # times n it is exact
        low = self.times(n, self.number(float(LOG_2 - Fraction(high))))
        less = self.code.multiply_add(self.builder.fneg(s), rest, low)
        return self.code.multiply_add(n, self.number(high), self.code.plus(f, less))


def _series(first: int, count: int) -> list[float]:
    """``-1/first!``, and of every other term the next ones."""
    return [(-1) ** (k + 1) / factorial(first + 2 * k) for k in range(count)]


def _chunks_of_2_over_pi() -> list[float]:
    """2/pi as a sum of numbers, each of some of its bits."""
    count = _CHUNK_BITS * _CHUNKS
    bits, ends = int(2 / PI * 2**count), range(count - _CHUNK_BITS, -1, -_CHUNK_BITS)
    return [(bits >> end) % 2**_CHUNK_BITS / 2.0 ** (count - end) for end in ends]
