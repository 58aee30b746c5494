"""Vocabulary of generated code: loops, conditions, indices and vectors, over LLVM's instructions.

With it generated code reads like the loop that it makes. Wherever a value is an index, a Python int
will do.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tconv.engine.codegen.llvm import (
    DOUBLE,
    FLOAT,
    I16,
    I32,
    I64,
    PTR,
    VOID,
    Argument,
    Block,
    Builder,
    Constant,
    Function,
    FunctionType,
    Index,
    Module,
    Type,
    Undefined,
    Value,
    VectorType,
)
from tconv.engine.target.target import architecture_row

__all__ = ["Code", "ElementType", "begin", "write"]

_HALVES = ("float16", "bfloat16")
_HALF_BITS = 32  # of a counter of tasks, which has two numbers
_MOVED_BITS = 128  # of vectors that are only moved: all processors shuffle within them in one step
# Type, bytes, bits of a vector if these are not the processor's, and LLVM's suffix for it.
_KINDS: dict[str, tuple[Type, int, int | None, str]] = {
    "float32": (FLOAT, 4, None, "f32"),
    "float64": (DOUBLE, 8, None, "f64"),
    "int16": (I16, 2, _MOVED_BITS, "i16"),
}


class ElementType:
    """The type that a kernel computes with, vectors of it, and how the processor multiplies them.

    x, y and the weight hold `cell`s: elements, or 16 bits for each where float16 or bfloat16 is
    `stored`. "int16" are bits that are only moved.

    >>> from tconv.engine.target.target import named_target
    >>> element = ElementType("float32", named_target("skylake-avx512"))
    >>> element.lanes, element.bytes, str(element.vector)
    (16, 4, '<16 x float>')
    """

    def __init__(self, dtype: str, target: Any) -> None:
        self.stored, self.is_half, self.has_fma = dtype, dtype in _HALVES, target.has_fma
        self.converts_float16 = target.converts_float16
        self.gathers, self.scale = target.isa.has_gather, target.isa.scale
        self.dtype = "float32" if self.is_half else dtype
        self.kind, self.bytes, bits, self.suffix = _KINDS[self.dtype]
        self.lanes = (bits or target.vector_bits) // 8 // self.bytes
        self.vector = VectorType(self.kind, self.lanes)
        self.zeros = Constant(self.vector, None)
        self.streamed_lanes = _MOVED_BITS // 16 if self.is_half else self.lanes
        self.cell, self.cell_bytes = (I16, 2) if self.is_half else (self.kind, self.bytes)


def begin(
    module: Module, name: str, arguments: Mapping[str, Type], element: ElementType | None = None
) -> tuple["Code", dict[str, Argument]]:
    """Begin a function without result; return its code and its arguments by name."""
    function = Function(module, FunctionType(VOID, list(arguments.values())), name)
    values = dict(zip(arguments, function.args, strict=True))
    for label, value in values.items():
        value.text = f"%{label}"
    return Code(Builder(function.append_basic_block("entry")), element), values


def write(emit: Any, name: str, dtype: str, target: Any, module: Module) -> None:
    """Write a function into a module, for a type and a processor."""
    emit(module, name, ElementType(dtype, target))


class Code:
    """The place where the next instruction is written.

    `element` is the type that vectors are of; code that handles words only has none.
    """

    element: ElementType

    def __init__(self, builder: Builder, element: ElementType | None = None) -> None:
        self.builder = builder
        if element is not None:
            self.element = element

    # ---- indices ---------------------------------------------------------------------------------

    def index(self, value: Index) -> Value:
        """Return an index as a value."""
        return Constant(I64, value) if isinstance(value, int) else value

    def add(self, first: Index, *others: Index) -> Value:
        """Sum of indices."""
        total = self.index(first)
        for other in others:
            total = self.builder.add(total, self.index(other))
        return total

    def sub(self, a: Index, b: Index) -> Value:
        """``a - b``."""
        return self.builder.sub(self.index(a), self.index(b))

    def mul(self, first: Index, *others: Index) -> Value:
        """Product of indices."""
        product = self.index(first)
        for other in others:
            product = self.builder.mul(product, self.index(other))
        return product

    def divmod(self, a: Index, b: Index) -> tuple[Value, Value]:
        """``divmod(a, b)`` of indices that are not negative."""
        values = self.index(a), self.index(b)
        return self.builder.udiv(*values), self.builder.urem(*values)

    def div(self, a: Index, b: Index) -> Value:
        """``a // b`` of indices that are not negative."""
        return self.builder.udiv(self.index(a), self.index(b))

    def least(self, a: Index, b: Index) -> Value:
        """``min(a, b)``."""
        return self.pick(self.is_less(a, b), a, b)

    def most(self, a: Index, b: Index) -> Value:
        """``max(a, b)``."""
        return self.pick(self.is_less(a, b), b, a)

    def is_less(self, a: Index, b: Index) -> Value:
        """``a < b``."""
        return self.builder.icmp_signed("<", self.index(a), self.index(b))

    def is_equal(self, a: Index, b: Index) -> Value:
        """``a == b``."""
        return self.builder.icmp_signed("==", self.index(a), self.index(b))

    def is_given(self, pointer: Value) -> Value:
        """Whether a pointer is not null."""
        return self.builder.icmp_unsigned("!=", pointer, Constant(PTR, None))

    def is_within(self, a: Index, size: Index) -> Value:
        """``0 <= a < size``."""
        return self.builder.icmp_unsigned("<", self.index(a), self.index(size))

    def both(self, a: Value, b: Value) -> Value:
        """``a and b``."""
        return self.builder.and_(a, b)

    def pick(self, condition: Value, a: Index, b: Index) -> Value:
        """``a if condition else b``."""
        return self.builder.select(condition, self.index(a), self.index(b))

    # ---- memory ----------------------------------------------------------------------------------

    def at(self, pointer: Value, index: Index, kind: Type | None = None) -> Value:
        """``&pointer[index]``, in elements or in another type."""
        kind = self.element.kind if kind is None else kind
        return self.builder.gep(pointer, [self.index(index)], source_etype=kind)

    def cell(self, pointer: Value, index: Index) -> Value:
        """``&pointer[index]`` of x, y or the weight."""
        return self.at(pointer, index, self.element.cell)

    def room(self, kind: Type, count: int) -> Value:
        """Return memory for an array, until the function ends."""
        return self.builder.alloca(kind, count)

    def load(self, pointer: Value, index: Index = 0, kind: Type | None = None) -> Value:
        """``pointer[index]``, an element or of another type."""
        kind = self.element.kind if kind is None else kind
        return self.builder.load(self.at(pointer, index, kind), typ=kind)

    def store(self, value: Value, pointer: Value, index: Index = 0) -> None:
        """``pointer[index] = value``."""
        self.builder.store(value, self.at(pointer, index, value.type))

    def load_vector(self, pointer: Value, index: Index = 0) -> Value:
        """``pointer[index:][:lanes]``, aligned or not."""
        element = self.element
        return self.builder.load(self.at(pointer, index), align=element.bytes, typ=element.vector)

    def store_vector(self, value: Value, pointer: Value, index: Index = 0) -> None:
        """``pointer[index:][:lanes] = value``."""
        self.builder.store(value, self.at(pointer, index), align=self.element.bytes)

    def first_lanes(self, count: Index) -> Value:
        """Return a mask that is true for lanes below `count`."""
        numbers, counts = self._lane_numbers(count)
        return self.builder.icmp_signed("<", numbers, counts)

    def lanes_from(self, first: Index) -> Value:
        """Return a mask that is true for lanes from `first` on."""
        numbers, firsts = self._lane_numbers(first)
        return self.builder.icmp_signed(">=", numbers, firsts)

    def _lane_numbers(self, number: Index) -> tuple[Value, Value]:
        """The numbers of the lanes, and a number in every lane."""
        lanes = self.element.lanes
        kind = VectorType(I32, lanes)
        short = self.builder.trunc(self.index(number), I32)
        one = self.builder.insert_element(Constant(kind, Undefined), short, I32(0))
        return Constant(kind, list(range(lanes))), self.shuffle(one, one, [0] * lanes)

    def load_lanes(self, pointer: Value, lanes: Value) -> Value:
        """Read the lanes of a mask from a pointer on; the others are zeros."""
        element, align = self.element, I32(self.element.bytes)
        kinds = [PTR, I32, lanes.type, element.vector]
        load = self._masked("load", element.vector, kinds)
        return self.builder.call(load, [pointer, align, lanes, element.zeros])

    def store_lanes(self, value: Value, pointer: Value, lanes: Value) -> None:
        """Write those lanes of a vector that a mask has."""
        align = I32(self.element.bytes)
        store = self._masked("store", VOID, [value.type, PTR, I32, lanes.type])
        self.builder.call(store, [value, pointer, align, lanes])

    def _masked(self, what: str, result: Type, kinds: list[Type]) -> Function:
        name = f"llvm.masked.{what}.v{self.element.lanes}{self.element.suffix}.p0"
        return self.builder.module.declared(name, result, kinds)

    def stream_vector(self, value: Value, pointer: Value, index: Index = 0) -> None:
        """Write a vector by a non-temporal store; its address is a multiple of its size."""
        bytes_ = self.element.bytes * self.element.lanes
        notes = f", !nontemporal {self.builder.module.metadata(I32(1))}"
        self.builder.store(value, self.at(pointer, index), bytes_, notes)

    def fence(self) -> None:
        """Order non-temporal stores before all later stores."""
        module = self.builder.module
        name = architecture_row(module.triple).fence
        if name:
            self.builder.call(module.declared(name, VOID, []), [])

    def prefetch(self, pointer: Value, writes: bool = False) -> None:
        """Prefetch the cache line at a pointer, which need not be readable."""
        kinds = [PTR, I32, I32, I32]
        function = self.builder.module.declared("llvm.prefetch.p0", VOID, kinds)
        self.builder.call(function, [pointer, I32(int(writes)), I32(3), I32(1)])  # near, data

    # ---- arithmetic ------------------------------------------------------------------------------

    def splat(self, value: Value) -> Value:
        """Return a vector with an element in every lane."""
        empty = Constant(self.element.vector, Undefined)
        one = self.builder.insert_element(empty, value, Constant(I32, 0))
        return self.shuffle(one, one, [0] * self.element.lanes)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Return lanes of a, numbered from 0, and of b, numbered from `element.lanes`."""
        order = Constant(VectorType(I32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(a, b, order)

    def plus(self, a: Value, b: Value) -> Value:
        """``a + b`` of elements or vectors."""
        return self.builder.fadd(a, b)

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """``a*b + c`` of vectors, rounded once where the processor can."""
        if not self.element.has_fma:  # llvm.fma would call a library
            return self.builder.fadd(self.builder.fmul(a, b), c)
        name = f"llvm.fma.v{self.element.lanes}{self.element.suffix}"
        vector = self.element.vector
        fma = self.builder.module.declared(name, vector, [vector] * 3)
        return self.builder.call(fma, [a, b, c])

    def reduced(self, how: str, vector: Value) -> Value:
        """Return the largest ("smax") or least ("smin") lane of a vector of int32."""
        name = f"llvm.vector.reduce.{how}.v{vector.type.count}i32"
        return self.builder.call(self.builder.module.declared(name, I32, [vector.type]), [vector])

    # ---- control ---------------------------------------------------------------------------------

    @contextmanager
    def loop(self, stop: Index, start: Index = 0, step: Index = 1) -> Iterator[Value]:
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
        self, count: Index, values: Sequence[Value]
    ) -> Iterator[tuple[list[Value], list[Value]]]:
        """``for _ in range(count)``, with values that registers hold from turn to turn.

        Gives the values and a list, to which the body appends the values of the next turn; after
        the loop the list holds the last ones.
        """
        builder, before = self.builder, self.builder.block
        body, done = builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(self.is_less(0, count), body, done)
        builder.position_at_end(body)
        n = builder.phi(I64)
        phis = [builder.phi(value.type) for value in values]
        n.add_incoming(self.index(0), before)
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, before)
        following: list[Value] = []
        yield [*phis], following
        end, after = builder.block, self.add(n, 1)
        n.add_incoming(after, end)
        for phi, value in zip(phis, following, strict=True):
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
        builder = self.builder
        then, after = builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(condition, then, after)
        with self._within(then, after):
            yield
        builder.position_at_end(after)

    @contextmanager
    def if_else(
        self, condition: Value
    ) -> Iterator[tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
        """``if condition`` and ``else``."""
        then, other, after = (self.builder.append_basic_block() for _ in range(3))
        self.builder.cbranch(condition, then, other)
        yield self._within(then, after), self._within(other, after)
        self.builder.position_at_end(after)

    @contextmanager
    def _within(self, block: Block, after: Block) -> Iterator[None]:
        self.builder.position_at_end(block)
        yield
        if not self.builder.block.is_ended:
            self.builder.branch(after)

    @contextmanager
    def forever(self) -> Iterator[Block]:
        """``while True``; gives the block that `leave_when` leaves to."""
        body, done = self.builder.append_basic_block(), self.builder.append_basic_block()
        self.builder.branch(body)
        self.builder.position_at_end(body)
        yield done
        self.builder.branch(body)
        self.builder.position_at_end(done)

    @contextmanager
    def tasks(self, counter: Value, count: Index, thread: Index = 0) -> Iterator[Value]:
        """Take tasks until none is left: even threads from the first on, odd ones from the last.

        The counter, which threads share, has the tasks taken from the front in its lower half and
        those from the back in its upper half. So a thread that reads what was written before reads
        mostly what it wrote itself, which matters where threads share no cache. Operands that no
        cache holds are read in less time if all threads are at neighbouring places.
        """
        is_odd = self.is_equal(self.builder.and_(self.index(thread), self.index(1)), 1)
        step = self.pick(is_odd, 1 << _HALF_BITS, 1)
        with self.forever() as done:
            # Who sees that no task is left sees as well what others did before they took theirs.
            taken = self.builder.atomic_rmw("add", counter, step, "acq_rel")
            front = self.builder.and_(taken, self.index((1 << _HALF_BITS) - 1))
            back = self.builder.lshr(taken, self.index(_HALF_BITS))
            last = self.sub(count, 1)
            self.leave_when(self.is_less(last, self.add(front, back)), done)
            yield self.pick(is_odd, self.sub(last, back), front)

    def leave_when(self, condition: Value, done: Block) -> None:
        """``if condition: break``."""
        following = self.builder.append_basic_block()
        self.builder.cbranch(condition, done, following)
        self.builder.position_at_end(following)

    def call(self, pointer: Value, *arguments: Index, result: Type = VOID) -> Value:
        """Call a function by its address; return its result, if it has one."""
        values = [self.index(each) for each in arguments]
        kind = FunctionType(result, [each.type for each in values])
        return self.builder.call(pointer, values, kind)

    def pause(self) -> None:
        """Give way to the core's other hardware thread, and leave the loop without a stall."""
        module = self.builder.module
        row = architecture_row(module.triple)
        if row.pause:
            pause = module.declared(row.pause, VOID, [I32] * len(row.pause_hints))
            self.builder.call(pause, [I32(hint) for hint in row.pause_hints])

    def end(self) -> None:
        """``return``."""
        self.builder.ret_void()
