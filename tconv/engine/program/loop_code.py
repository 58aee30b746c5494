"""Generated code of elementwise loops and of reductions: drivers whose threads take tasks.

Arguments are 64-bit words: the counter, the addresses of operands and outputs, then the numbers of
`LoopShape.words`.
"""

from collections.abc import Callable, Sequence

from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Constant, Module, Undefined, Value
from tconv.engine.program.elementary_functions import ElementaryFunctions
from tconv.engine.program.loops import Expression

__all__ = ["OPERATORS", "run_loop", "run_reduction"]

_HEAD = ("tasks", "rows", "row_block", "columns", "column_block", "column_blocks")


class _Words:
    """The arguments of a driver, read one after the other."""

    def __init__(self, code: Code, arguments: Value) -> None:
        self.code, self.arguments, self.place = code, arguments, 0

    def pointers(self, count: int) -> list[Value]:
        """The next addresses."""
        return [self._read(True) for _ in range(count)]

    def words(self, count: int) -> list[Value]:
        """The next numbers."""
        return [self._read(False) for _ in range(count)]

    def _read(self, is_pointer: bool) -> Value:
        self.place += 1
        kind = PTR if is_pointer else I64
        return self.code.load(self.code.at(self.arguments, self.place - 1, I64), kind=kind)


# ---- elementwise loops ---------------------------------------------------------------------------


def run_loop(
    expression: Expression, reads: Sequence[str], outer: int
) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of ``run(arguments, thread)`` for an expression.

    `reads` says how each operand is read, as in `LoopShape`; the outputs follow the operands.
    """
    count = expression.operands + len(expression.stored)

    def emit(module: Module, name: str, element: ElementType) -> None:
        code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
        words = _Words(code, a["arguments"])
        (counter, *pointers) = words.pointers(1 + count)
        head = dict(zip(_HEAD, words.words(len(_HEAD)), strict=True))
        sizes = words.words(outer)
        strides = [words.words(outer) for _ in range(count)]
        steps = words.words(count)
        with code.tasks(counter, head["tasks"], a["thread"]) as task:
            of_rows, of_columns = code.divmod(task, head["column_blocks"])
            start = code.mul(of_columns, head["column_block"])
            columns = code.least(head["column_block"], code.sub(head["columns"], start))
            first = code.mul(of_rows, head["row_block"])
            last = code.least(head["rows"], code.add(first, head["row_block"]))
            with code.loop(last, first) as row:
                offsets = _offsets(code, row, sizes, strides)
                operands = [
                    _Operand(code, code.at(pointer, offset), reading, step, start)
                    for pointer, offset, reading, step in zip(
                        pointers, offsets, reads, steps, strict=True
                    )
                ]
                _emit_row(code, expression, operands, columns)
        code.end()

    return emit


def _offsets(code: Code, row: Value, sizes: list[Value], strides: list[list[Value]]) -> list[Value]:
    """Where a row begins in each operand, in elements."""
    places, rest = list[Value](), row
    for n, size in enumerate(reversed(sizes)):
        if n + 1 < len(sizes):
            rest, place = code.divmod(rest, size)
        else:
            place = rest
        places.insert(0, place)
    return [
        code.add(0, *[code.mul(place, step) for place, step in zip(places, steps, strict=True)])
        for steps in strides
    ]


class _Operand:
    """An operand along one row."""

    def __init__(self, code: Code, row: Value, reading: str, step: Value, start: Value) -> None:
        self.code, self.step, self.lanes = code, step, code.element.lanes
        self.reading, _, times = reading.partition(" ")
        self.times = int(times or 1)
        if reading == "one":
            self.value = code.splat(code.load(row))
        elif reading == "row":
            row = code.at(row, start)
        elif reading == "pairs":
            row = code.at(row, code.mul(start, 2))
        elif reading == "any":
            row = code.at(row, code.mul(start, step))
        else:
            row = code.at(row, code.div(start, self.times))
        self.row = row

    def load(self, n: Value, count: Value | None) -> Value:
        """The vector from column n on; only the first `count` lanes, if that is given."""
        code, lanes = self.code, self.lanes
        if self.reading == "one":
            return self.value
        if self.reading == "row":
            return self._some(self.row, n, count)
        if self.reading == "pairs":  # of the second vector the odd lanes: nothing beyond is read
            place = code.mul(n, 2)
            least = count and code.sub(code.mul(count, 2), 1)
            rest = count and code.sub(code.mul(count, 2), lanes)
            low = self._some(self.row, place, least)
            high = self._some(self.row, code.add(place, lanes - 1), rest)
            half = lanes // 2
            order = [2 * lane for lane in range(half)]
            order += [lanes + 2 * lane + 1 for lane in range(half)]
            return code.shuffle(low, high, order)
        if self.reading == "each" and lanes % self.times == 0:
            some = lanes // self.times
            if count is not None:
                some = code.div(code.add(count, self.times - 1), self.times)
            at = code.at(self.row, code.div(n, self.times))
            loaded = code.load_lanes(at, code.first_lanes(some))
            return code.shuffle(loaded, loaded, [lane // self.times for lane in range(lanes)])
        return self._one_by_one(n, count)

    def _some(self, row: Value, n: Value, count: Value | None) -> Value:
        if count is None:
            return self.code.load_vector(row, n)
        return self.code.load_lanes(self.code.at(row, n), self.code.first_lanes(count))

    def _one_by_one(self, n: Value, count: Value | None) -> Value:
        code, builder = self.code, self.code.builder
        vector: Value = Constant(code.element.vector, Undefined)
        for lane in range(self.lanes):
            index = code.add(n, lane if count is None else code.least(lane, code.sub(count, 1)))
            if self.reading == "each":
                index = code.div(index, self.times)
            else:
                index = code.mul(index, self.step)
            vector = builder.insert_element(vector, code.load(self.row, index), I32(lane))
        return vector


def _emit_row(code: Code, expression: Expression, operands: list[_Operand], columns: Value) -> None:
    lanes = code.element.lanes
    whole = code.mul(code.div(columns, lanes), lanes)
    with code.loop(whole, step=lanes) as n:
        for to, value in _results(code, expression, operands, n, None):
            code.store_vector(value, to.row, n)
    rest = code.sub(columns, whole)
    with code.when(code.is_less(0, rest)):
        mask = code.first_lanes(rest)
        for to, value in _results(code, expression, operands, whole, rest):
            code.store_lanes(value, code.at(to.row, whole), mask)


def _results(
    code: Code, expression: Expression, operands: list[_Operand], n: Value, count: Value | None
) -> list[tuple[_Operand, Value]]:
    operate = _Operators(code)
    values = [each.load(n, count) for each in operands[: expression.operands]]
    for name, places in expression.instructions:
        values.append(operate(name, [values[place] for place in places]))
    outputs = operands[expression.operands :]
    return [(to, values[at]) for to, at in zip(outputs, expression.stored, strict=True)]


# ---- operators -----------------------------------------------------------------------------------

_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_ROUNDED = {"floor": "floor", "ceil": "ceil", "round": "roundeven"}
_INTRINSICS = {"sqrt": "sqrt", "fabs": "fabs", **_ROUNDED}  # by LLVM's names
_FUNCTIONS = ("exp", "erf", "sin", "cos", "log", "softplus", "sign")
_WHOLE_FROM = 2.0**23  # all numbers of float32 from here on are whole
OPERATORS: dict[str, int] = {
    **dict.fromkeys((*_BINARY, "max", "min"), 2),
    **dict.fromkeys(("neg", "square", *_INTRINSICS, *_FUNCTIONS), 1),
    "where": 3,
}
"""Operators of expressions, by their number of operands; activations come beside them."""


class _Operators:
    """Instructions of an expression on vectors."""

    def __init__(self, code: Code) -> None:
        self.code, self.vectors = code, ElementaryFunctions(code)

    def __call__(self, name: str, values: list[Value]) -> Value:
        """Emit one instruction."""
        builder = self.code.builder
        if name in _BINARY:
            result: Value = getattr(builder, _BINARY[name])(*values)
            return result
        if name in ("max", "min"):
            return self.extreme(name, *values)
        if name == "neg":
            return builder.fneg(*values)
        if name == "where":  # the second where the first is above 0, else the third
            return self.vectors.pick(">", values[0], self.vectors.number(0), *values[1:])
        if name == "square":
            return builder.fmul(values[0], values[0])
        if name in _FUNCTIONS:
            found: Value = getattr(self.vectors, name)(*values)
            return found
        if name in _ROUNDED and not self.code.element.has_fma:
            return self._whole(name, *values)  # SSE2 has no instruction, and LLVM calls a library
        if name in _INTRINSICS:
            return self._intrinsic(_INTRINSICS[name], *values)
        return self.vectors.functions[name][1](*values)

    def extreme(self, name: str, a: Value, b: Value) -> Value:
        """The larger or lesser of two; NaN if one is."""
        found = self.vectors.pick("<" if name == "max" else ">", a, b, b, a)
        is_nan = self.code.builder.fcmp_unordered("!=", b, b)
        return self.code.builder.select(is_nan, b, found)

    def _whole(self, name: str, x: Value) -> Value:
        """The nearest whole number, or the next one below or above."""
        builder, vectors = self.code.builder, self.vectors
        size, large = self._intrinsic("fabs", x), vectors.number(_WHOLE_FROM)
        near = builder.fsub(builder.fadd(size, large), large)
        near = vectors.copysign(vectors.pick("<", size, large, near, size), x)
        if name == "round":
            return near
        one, zero = vectors.number(1), vectors.number(0)
        if name == "floor":
            whole = builder.fsub(near, vectors.pick(">", near, x, one, zero))
        else:
            whole = builder.fadd(near, vectors.pick("<", near, x, one, zero))
        return vectors.copysign(whole, x)

    def _intrinsic(self, name: str, value: Value) -> Value:
        element = self.code.element
        full = f"llvm.{name}.v{element.lanes}{element.suffix}"
        function = self.code.builder.module.declared(full, element.vector, [element.vector])
        return self.code.builder.call(function, [value])


# ---- reductions ----------------------------------------------------------------------------------

_NEUTRAL = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}


def run_reduction(how: str, along_rows: bool) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of ``run(arguments, thread)`` for a sum, largest or least element.

    ``along_rows``: y[o] is that of the contiguous x[o, :]. Else y[o, :] is that of the rows of
    x[o, :, :]. All results are divided by a number. Arguments are the counter, x, that number's
    address, y; tasks, size (reduced), x_outer (elements from o to o), step (from row to row),
    columns (of y), column_block, column_blocks.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
        words = _Words(code, a["arguments"])
        counter, x, divisor, y = words.pointers(4)
        tasks, size, x_outer, step, columns, column_block, column_blocks = words.words(7)
        with code.tasks(counter, tasks, a["thread"]) as task:
            outer, block = code.divmod(task, column_blocks)
            row = code.at(x, code.mul(outer, x_outer))
            if along_rows:
                total = code.builder.fdiv(_reduced_row(code, how, row, size), code.load(divisor))
                code.store(total, y, task)
            else:
                start = code.mul(block, column_block)
                count = code.least(column_block, code.sub(columns, start))
                to = code.at(y, code.add(code.mul(outer, columns), start))
                _reduce_rows(code, how, code.at(row, start), (size, step, count), divisor, to)
        code.end()

    return emit


def _combined(code: Code, how: str, a: Value, b: Value) -> Value:
    return code.plus(a, b) if how == "sum" else _Operators(code).extreme(how, a, b)


def _reduced_row(code: Code, how: str, row: Value, size: Value) -> Value:
    """Reduce a row by four vectors, these to one, and this lane by lane."""
    element, lanes = code.element, code.element.lanes
    neutral = Constant(element.vector, [_NEUTRAL[how]] * lanes)
    many = 4 * lanes
    whole = code.div(size, many)
    with code.loop_carrying(whole, [neutral] * 4 + [row]) as ((*totals, at), following):
        for n, total in enumerate(totals):
            following.append(_combined(code, how, total, code.load_vector(at, n * lanes)))
        following.append(code.at(at, many))
    *totals, at = following
    rest = code.sub(size, code.mul(whole, many))
    for n in range(4):
        mask = code.first_lanes(code.sub(rest, n * lanes))
        some = code.load_lanes(code.at(at, n * lanes), mask)
        some = code.builder.select(mask, some, neutral)
        totals[n] = _combined(code, how, totals[n], some)
    total = _combined(
        code,
        how,
        _combined(code, how, totals[0], totals[1]),
        _combined(code, how, totals[2], totals[3]),
    )
    width = lanes
    while width > 1:
        width //= 2
        order = [lane + width if lane < width else lane for lane in range(lanes)]
        total = _combined(code, how, total, code.shuffle(total, total, order))
    return code.builder.extract_element(total, I32(0))


def _reduce_rows(
    code: Code,
    how: str,
    x: Value,
    sizes: tuple[Value, Value, Value],
    divisor: Value,
    to: Value,
) -> None:
    """Reduce rows that are a step apart, some columns at a time."""
    size, step, columns = sizes
    element, lanes = code.element, code.element.lanes
    neutral = Constant(element.vector, [_NEUTRAL[how]] * lanes)
    divisors = code.splat(code.load(divisor))
    with code.loop(columns, step=lanes) as column:
        mask = code.first_lanes(code.sub(columns, column))
        start = code.at(x, column)
        with code.loop_carrying(size, [neutral, start]) as ((total, at), following):
            following.append(_combined(code, how, total, code.load_lanes(at, mask)))
            following.append(code.at(at, step))
        total = code.builder.fdiv(following[0], divisors)
        code.store_lanes(total, code.at(to, column), mask)
