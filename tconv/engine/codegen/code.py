"""HOW GENERATED CODE READS: a vocabulary over instructions, so that it reads like its loops.

Values are LLVM's; wherever one is an index, a Python int will do.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tconv.engine.codegen import values as ir
from tconv.engine.codegen.builder import IRBuilder
from tconv.engine.target.isa import architecture_row

__all__ = ["I16", "I32", "I64", "PTR", "Code", "Number", "begin"]

I16 = ir.IntType(16)
I32, I64, PTR = ir.IntType(32), ir.IntType(64), ir.PointerType()
_VOID = ir.VoidType()
_HALVES = ("float16", "bfloat16")
_MOVED_BITS = 128  # of vectors that are only moved: all processors shuffle within them in one step
# Type, bytes, bits of a vector if these are not the processor's, and how LLVM calls it.
_KINDS = {
    "float32": (ir.FloatType(), 4, None, "f32"),
    "float64": (ir.DoubleType(), 8, None, "f64"),
    "int16": (I16, 2, _MOVED_BITS, "i16"),
}
Value = Any  # a number of Python, too, wherever one is an index


class Number:
    """The numbers that are computed with: one, a vector of them, and how two are multiplied.

    x, y and the weight hold `cell`s, which are such numbers or, if float16 or bfloat16 is what is
    `stored`, 16 bits for each. "int16" are bits that are only moved.

    >>> from tconv.engine.target.target import named_target
    >>> number = Number("float32", named_target("skylake-avx512"))
    >>> number.lanes, number.bytes, str(number.vector)
    (16, 4, '<16 x float>')
    """

    def __init__(self, dtype: str, target: Any) -> None:
        self.stored, self.is_half, self.has_fma = dtype, dtype in _HALVES, target.has_fma
        self.converts_float16 = target.converts_float16
        self.gathers = target.isa.has_gather
        self.dtype = "float32" if self.is_half else dtype
        self.kind, self.bytes, bits, self.suffix = _KINDS[self.dtype]
        self.lanes = (bits or target.vector_bits) // 8 // self.bytes
        self.vector = ir.VectorType(self.kind, self.lanes)
        self.zeros = ir.Constant(self.vector, None)
        self.streamed_lanes = _MOVED_BITS // 16 if self.is_half else self.lanes
        self.cell, self.cell_bytes = (I16, 2) if self.is_half else (self.kind, self.bytes)


def begin(
    module: ir.Module, name: str, arguments: Mapping[str, Any], number: Number
) -> tuple["Code", dict[str, Value]]:
    """Begin a function without result; return its code and its arguments by name."""
    kind = ir.FunctionType(_VOID, list(arguments.values()))
    function = ir.Function(module, kind, name)
    values = {}
    for value, label in zip(function.args, arguments, strict=True):
        value.name = label
        values[label] = value
    return Code(IRBuilder(function.append_basic_block("entry")), number), values


def write(emit: Any, name: str, dtype: str, target: Any, module: ir.Module) -> None:
    """Write a function into a module, for numbers of a type and a processor."""
    emit(module, name, Number(dtype, target))


class Code:
    """The place where the next instruction is written."""

    number: Number
    """None where all that is handled are words."""

    def __init__(self, builder: IRBuilder, number: Any = None) -> None:
        self.builder, self.number = builder, number

    # ---- indices ---------------------------------------------------------------------------------

    def index(self, value: Value) -> Value:
        """An index as a value."""
        return ir.Constant(I64, value) if isinstance(value, int) else value

    def add(self, first: Value, *others: Value) -> Value:
        """Sum of indices."""
        total = self.index(first)
        for other in others:
            total = self.builder.add(total, self.index(other))
        return total

    def sub(self, a: Value, b: Value) -> Value:
        """``a - b``."""
        return self.builder.sub(self.index(a), self.index(b))

    def mul(self, first: Value, *others: Value) -> Value:
        """Product of indices."""
        product = self.index(first)
        for other in others:
            product = self.builder.mul(product, self.index(other))
        return product

    def divmod(self, a: Value, b: Value) -> tuple[Value, Value]:
        """``divmod(a, b)`` of indices that are not negative."""
        a, b = self.index(a), self.index(b)
        return self.builder.udiv(a, b), self.builder.urem(a, b)

    def div(self, a: Value, b: Value) -> Value:
        """``a // b`` of indices that are not negative."""
        return self.builder.udiv(self.index(a), self.index(b))

    def least(self, a: Value, b: Value) -> Value:
        """``min(a, b)``."""
        return self.pick(self.is_less(a, b), a, b)

    def most(self, a: Value, b: Value) -> Value:
        """``max(a, b)``."""
        return self.pick(self.is_less(a, b), b, a)

    def is_less(self, a: Value, b: Value) -> Value:
        """``a < b``."""
        return self.builder.icmp_signed("<", self.index(a), self.index(b))

    def is_equal(self, a: Value, b: Value) -> Value:
        """``a == b``."""
        return self.builder.icmp_signed("==", self.index(a), self.index(b))

    def is_given(self, pointer: Value) -> Value:
        """Whether a pointer is not null."""
        return self.builder.icmp_unsigned("!=", pointer, ir.Constant(PTR, None))

    def is_within(self, a: Value, size: Value) -> Value:
        """``0 <= a < size``."""
        return self.builder.icmp_unsigned("<", self.index(a), self.index(size))

    def both(self, a: Value, b: Value) -> Value:
        """``a and b``."""
        return self.builder.and_(a, b)

    def pick(self, condition: Value, a: Value, b: Value) -> Value:
        """``a if condition else b``."""
        return self.builder.select(condition, self.index(a), self.index(b))

    # ---- memory ----------------------------------------------------------------------------------

    def at(self, pointer: Value, index: Value, kind: Any = None) -> Value:
        """``&pointer[index]``, counted in numbers or in what `kind` says."""
        kind = self.number.kind if kind is None else kind
        return self.builder.gep(pointer, [self.index(index)], source_etype=kind)

    def cell(self, pointer: Value, index: Value) -> Value:
        """``&pointer[index]`` of x, y or the weight."""
        return self.at(pointer, index, self.number.cell)

    def room(self, kind: Any, count: int) -> Value:
        """Where so many of a kind can be kept until the function ends."""
        return self.builder.alloca(ir.ArrayType(kind, count))

    def load(self, pointer: Value, index: Value = 0, kind: Any = None) -> Value:
        """``pointer[index]``, a number or what `kind` says."""
        kind = self.number.kind if kind is None else kind
        return self.builder.load(self.at(pointer, index, kind), typ=kind)

    def record(
        self, pointer: Value, words: Sequence[str], pointers: Sequence[str] = ()
    ) -> dict[str, Value]:
        """What stands at a pointer, by name: addresses, then words of 64 bits."""
        kinds = [PTR] * len(pointers) + [I64] * len(words)
        names = (*pointers, *words)
        return {name: self.load(pointer, n, kinds[n]) for n, name in enumerate(names)}

    def store(self, value: Value, pointer: Value, index: Value = 0) -> None:
        """``pointer[index] = value``."""
        self.builder.store(value, self.at(pointer, index, value.type))

    def load_vector(self, pointer: Value, index: Value = 0) -> Value:
        """A vector from ``pointer[index]`` on, wherever that lies."""
        number = self.number
        return self.builder.load(self.at(pointer, index), align=number.bytes, typ=number.vector)

    def store_vector(self, value: Value, pointer: Value, index: Value = 0) -> None:
        """Write a vector from ``pointer[index]`` on."""
        self.builder.store(value, self.at(pointer, index), align=self.number.bytes)

    def first_lanes(self, count: Value) -> Value:
        """A mask: true for lanes below `count`."""
        lanes = self.number.lanes
        kind = ir.VectorType(I32, lanes)
        number = self.builder.trunc(self.index(count), I32)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), number, I32(0))
        counts = self.shuffle(one, one, [0] * lanes)
        return self.builder.icmp_signed("<", ir.Constant(kind, list(range(lanes))), counts)

    def load_lanes(self, pointer: Value, lanes: Value) -> Value:
        """A vector from a pointer on, of which only the lanes of a mask are read; else zeros."""
        number, align = self.number, I32(self.number.bytes)
        kinds = [PTR, I32, lanes.type, number.vector]
        load = self._masked("load", number.vector, kinds)
        return self.builder.call(load, [pointer, align, lanes, number.zeros])

    def store_lanes(self, value: Value, pointer: Value, lanes: Value) -> None:
        """Write the lanes of a mask of a vector from a pointer on."""
        align = I32(self.number.bytes)
        store = self._masked("store", _VOID, [value.type, PTR, I32, lanes.type])
        self.builder.call(store, [value, pointer, align, lanes])

    def _masked(self, what: str, result: Any, kinds: list[Any]) -> ir.Function:
        name = f"llvm.masked.{what}.v{self.number.lanes}{self.number.suffix}.p0"
        return self.builder.module.declared(name, result, kinds)

    def stream_vector(self, value: Value, pointer: Value, index: Value = 0) -> None:
        """Write a vector from ``pointer[index]`` on, a multiple of its size, past the caches."""
        bytes_ = self.number.bytes * self.number.lanes
        notes = f", !nontemporal {self.builder.module.noted(I32(1))}"
        self.builder.store(value, self.at(pointer, index), bytes_, notes)

    def fence(self) -> None:
        """Let nobody see what is written later before what has been streamed."""
        module = self.builder.module
        name = architecture_row(module.triple).fence
        if name:
            self.builder.call(module.declared(name, _VOID, []), [])

    def prefetch(self, pointer: Value, writes: bool = False) -> None:
        """Ask for the cache line at a pointer, which need not be one that can be read."""
        kinds = [PTR, I32, I32, I32]
        function = self.builder.module.declared("llvm.prefetch.p0", _VOID, kinds)
        self.builder.call(function, [pointer, I32(int(writes)), I32(3), I32(1)])  # near, data

    # ---- arithmetic ------------------------------------------------------------------------------

    def splat(self, value: Value) -> Value:
        """A number in every lane."""
        empty = ir.Constant(self.number.vector, ir.Undefined)
        one = self.builder.insert_element(empty, value, ir.Constant(I32, 0))
        return self.shuffle(one, one, [0] * self.number.lanes)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes of a (0 ...) and of b (number.lanes ...)."""
        order = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(a, b, order)

    def plus(self, a: Value, b: Value) -> Value:
        """Sum of numbers or vectors."""
        return self.builder.fadd(a, b)

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """``a*b + c`` of vectors, rounded once where the processor can."""
        if not self.number.has_fma:  # llvm.fma would call a library
            return self.builder.fadd(self.builder.fmul(a, b), c)
        name = f"llvm.fma.v{self.number.lanes}{self.number.suffix}"
        vector = self.number.vector
        fma = self.builder.module.declared(name, vector, [vector] * 3)
        return self.builder.call(fma, [a, b, c])

    def reduced(self, how: str, vector: Value) -> Value:
        """The largest ("smax") or least ("smin") of a vector of integers of 32 bits."""
        name = f"llvm.vector.reduce.{how}.v{vector.type.count}i32"
        return self.builder.call(self.builder.module.declared(name, I32, [vector.type]), [vector])

    # ---- control ---------------------------------------------------------------------------------

    @contextmanager
    def loop(self, stop: Value, start: Value = 0, step: Value = 1) -> Iterator[Value]:
        """``for n in range(start, stop, step)``."""
        builder, before = self.builder, self.builder.block
        head, body, done = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        n = builder.phi(I64)
        n.add_incoming(self.index(start), before)
        builder.cbranch(self.is_less(n, stop), body, done)
        builder.position_at_end(body)
        yield n
        n.add_incoming(self.add(n, step), builder.block)
        builder.branch(head)
        builder.position_at_end(done)

    @contextmanager
    def loop_carrying(
        self, count: Value, values: Sequence[Value]
    ) -> Iterator[tuple[list[Value], list[Value]]]:
        """``for _ in range(count)``, with values that stay in registers from turn to turn.

        The body gets the values and a list to put the next ones into; after the loop that list
        holds the last ones.
        """
        builder, before = self.builder, self.builder.block
        body, done = builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(self.is_less(0, count), body, done)
        builder.position_at_end(body)
        n = builder.phi(I64)
        carried = [builder.phi(value.type) for value in values]
        n.add_incoming(self.index(0), before)
        for phi, value in zip(carried, values, strict=True):
            phi.add_incoming(value, before)
        following: list[Value] = []
        yield carried, following
        end, after = builder.block, self.add(n, 1)
        n.add_incoming(after, end)
        for phi, value in zip(carried, following, strict=True):
            phi.add_incoming(value, end)
        builder.cbranch(self.is_less(after, count), body, done)
        builder.position_at_end(done)
        for place, value in enumerate(values):
            last = builder.phi(value.type)
            last.add_incoming(value, before)
            last.add_incoming(following[place], end)
            following[place] = last

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """``if condition``."""
        with self.builder.if_then(condition):
            yield

    @contextmanager
    def forever(self) -> Iterator[Value]:
        """``while True``; gives the block to go to by `leave_when`."""
        body, done = self.builder.append_basic_block(), self.builder.append_basic_block()
        self.builder.branch(body)
        self.builder.position_at_end(body)
        yield done
        self.builder.branch(body)
        self.builder.position_at_end(done)

    @contextmanager
    def items(self, counter: Value, count: Value) -> Iterator[Value]:
        """``while (item := counter++) < count``, for all threads that count with it."""
        with self.forever() as done:
            item = self.builder.atomic_rmw("add", counter, self.index(1), "monotonic")
            self.leave_when(self.is_less(self.sub(count, 1), item), done)
            yield item

    def leave_when(self, condition: Value, done: Value) -> None:
        """``if condition: break``."""
        following = self.builder.append_basic_block()
        self.builder.cbranch(condition, done, following)
        self.builder.position_at_end(following)

    def call(self, pointer: Value, *arguments: Value, result: Any = _VOID) -> Value:
        """Call a function through its address; return its result, if it has one."""
        values = [self.index(each) for each in arguments]
        kind = ir.FunctionType(result, [each.type for each in values])
        return self.builder.call(pointer, values, kind)

    def end(self) -> None:
        """``return``."""
        self.builder.ret_void()
