"""HOW INSTRUCTIONS ARE WRITTEN: one after the other, into blocks, as LLVM's text.

What follows from constants is not left to LLVM: 0 is not added, and nothing multiplied by 1.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from tconv.engine.codegen.values import (
    Block,
    Constant,
    Function,
    FunctionType,
    IntType,
    Phi,
    PointerType,
    Type,
    Value,
    VectorType,
    VoidType,
)

__all__ = ["IRBuilder"]

_ORDERS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_BIT, _PTR, _VOID = IntType(1), PointerType(), VoidType()


def _known(value: Value) -> int | None:
    """The integer that a value is, if it is the same one whenever code runs."""
    if isinstance(value, Constant) and isinstance(value.known, int):
        return value.known
    return None


class IRBuilder:
    """Where the next instruction is written."""

    def __init__(self, block: Block) -> None:
        self.function, self.module = block.function, block.function.module
        self.position_at_end(block)

    def position_at_end(self, block: Block) -> None:
        """Write behind what a block has."""
        self.block, self._write = block, block.lines.append

    def append_basic_block(self, name: str = "") -> Block:
        """Add a block to the function."""
        return self.function.append_basic_block(name)

    def _new(self, kind: Type, text: str) -> Value:
        name = self.function.new_name()
        self._write(f"{name} = {text}")
        return Value(kind, name)

    # ---- numbers ---------------------------------------------------------------------------------

    def _two(self, name: str, a: Value, b: Value) -> Value:
        return self._new(a.type, f"{name} {a.type.text} {a.text}, {b.text}")

    def add(self, a: Value, b: Value) -> Value:
        """``a + b``."""
        known_a, known_b = _known(a), _known(b)
        if known_a == 0:
            return b
        if known_b == 0:
            return a
        if known_a is not None and known_b is not None:
            return Constant(a.type, known_a + known_b)
        return self._two("add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """``a - b``."""
        known_a, known_b = _known(a), _known(b)
        if known_b == 0:
            return a
        if known_a is not None and known_b is not None:
            return Constant(a.type, known_a - known_b)
        return self._two("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """``a * b``."""
        known_a, known_b = _known(a), _known(b)
        if known_a == 1 or known_b == 0:
            return b
        if known_b == 1 or known_a == 0:
            return a
        if known_a is not None and known_b is not None:
            return Constant(a.type, known_a * known_b)
        return self._two("mul", a, b)

    def udiv(self, a: Value, b: Value) -> Value:
        """``a // b``, neither being negative."""
        known_a, known_b = _known(a), _known(b)
        if known_b == 1:
            return a
        if known_a is not None and known_b:
            return Constant(a.type, known_a // known_b)
        return self._two("udiv", a, b)

    def urem(self, a: Value, b: Value) -> Value:
        """``a % b``, neither being negative."""
        return self._two("urem", a, b)

    def and_(self, a: Value, b: Value) -> Value:
        """``a & b``."""
        return self._two("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        """``a | b``."""
        return self._two("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        """``a ^ b``."""
        return self._two("xor", a, b)

    def not_(self, a: Value) -> Value:
        """The other of two truths."""
        return self._new(a.type, f"xor {a.type} {a.text}, true")

    def shl(self, a: Value, b: Value) -> Value:
        """``a << b``."""
        return self._two("shl", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        """``a >> b``, zeros coming in."""
        return self._two("lshr", a, b)

    def ashr(self, a: Value, b: Value) -> Value:
        """``a >> b``, the sign coming in."""
        return self._two("ashr", a, b)

    def fadd(self, a: Value, b: Value) -> Value:
        """``a + b``."""
        return self._two("fadd", a, b)

    def fsub(self, a: Value, b: Value) -> Value:
        """``a - b``."""
        return self._two("fsub", a, b)

    def fmul(self, a: Value, b: Value) -> Value:
        """``a * b``."""
        return self._two("fmul", a, b)

    def fdiv(self, a: Value, b: Value) -> Value:
        """``a / b``."""
        return self._two("fdiv", a, b)

    def fneg(self, a: Value) -> Value:
        """``-a``."""
        return self._new(a.type, f"fneg {a.type} {a.text}")

    def _compared(self, name: str, a: Value, b: Value) -> Value:
        kind = VectorType(_BIT, a.type.count) if isinstance(a.type, VectorType) else _BIT
        return self._new(kind, f"{name} {a.type.text} {a.text}, {b.text}")

    def icmp_signed(self, order: str, a: Value, b: Value) -> Value:
        """Whether two integers are in an order."""
        name = _ORDERS[order]
        return self._compared(f"icmp {name}" if name in ("eq", "ne") else f"icmp s{name}", a, b)

    def icmp_unsigned(self, order: str, a: Value, b: Value) -> Value:
        """The same where all bits count: negative ones are the largest; for addresses, too."""
        name = _ORDERS[order]
        return self._compared(f"icmp {name}" if name in ("eq", "ne") else f"icmp u{name}", a, b)

    def fcmp_ordered(self, order: str, a: Value, b: Value) -> Value:
        """Whether two numbers are in an order; NaN is in none."""
        return self._compared(f"fcmp o{_ORDERS[order]}", a, b)

    def fcmp_unordered(self, order: str, a: Value, b: Value) -> Value:
        """Whether two numbers are in an order; NaN is in each."""
        return self._compared(f"fcmp u{_ORDERS[order]}", a, b)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """``a if condition else b``."""
        which = f"{condition.type.text} {condition.text}"
        return self._new(a.type, f"select {which}, {a.type.text} {a.text}, {b.type.text} {b.text}")

    # ---- other types, and lanes ------------------------------------------------------------------

    def _as(self, name: str, a: Value, kind: Type) -> Value:
        if a.type == kind:
            return a
        return self._new(kind, f"{name} {a.type.text} {a.text} to {kind.text}")

    def bitcast(self, a: Value, kind: Type) -> Value:
        """The same bits as another type."""
        return self._as("bitcast", a, kind)

    def sext(self, a: Value, kind: Type) -> Value:
        """The same integer, of more bits."""
        return self._as("sext", a, kind)

    def zext(self, a: Value, kind: Type) -> Value:
        """The same integer without a sign, of more bits."""
        return self._as("zext", a, kind)

    def trunc(self, a: Value, kind: Type) -> Value:
        """The last bits of an integer."""
        return self._as("trunc", a, kind)

    def fpext(self, a: Value, kind: Type) -> Value:
        """The same number, of more bits."""
        return self._as("fpext", a, kind)

    def fptrunc(self, a: Value, kind: Type) -> Value:
        """A number rounded to fewer bits."""
        return self._as("fptrunc", a, kind)

    def ptrtoint(self, a: Value, kind: Type) -> Value:
        """An address as an integer."""
        return self._as("ptrtoint", a, kind)

    def extract_element(self, vector: Value, lane: Value) -> Value:
        """The value in a lane of a vector."""
        assert isinstance(vector.type, VectorType)
        place = f"{lane.type.text} {lane.text}"
        kind = vector.type.element
        return self._new(kind, f"extractelement {vector.type.text} {vector.text}, {place}")

    def insert_element(self, vector: Value, value: Value, lane: Value) -> Value:
        """A vector with another value in a lane."""
        place = f"{value.type.text} {value.text}, {lane.type.text} {lane.text}"
        return self._new(vector.type, f"insertelement {vector.type.text} {vector.text}, {place}")

    def shuffle_vector(self, a: Value, b: Value, order: Value) -> Value:
        """Lanes of two vectors, as a constant says."""
        assert isinstance(a.type, VectorType)
        assert isinstance(order.type, VectorType)
        kind = a.type.text
        return self._new(
            VectorType(a.type.element, order.type.count),
            f"shufflevector {kind} {a.text}, {kind} {b.text}, {order.type.text} {order.text}",
        )

    def extract_value(self, pair: Value, place: int) -> Value:
        """One of the two that `cmpxchg` gives, whether it was exchanged being the second."""
        assert place == 1
        return self._new(_BIT, f"extractvalue {pair.type.text} {pair.text}, {place}")

    # ---- memory ----------------------------------------------------------------------------------

    def gep(self, pointer: Value, indices: Sequence[Value], source_etype: Type) -> Value:
        """The address of an entry, or of one for each lane."""
        (index,) = indices
        if _known(index) == 0:
            return pointer
        lanes = index.type.count if isinstance(index.type, VectorType) else 0
        kind = VectorType(_PTR, lanes) if lanes else _PTR
        place = f"{index.type.text} {index.text}"
        return self._new(kind, f"getelementptr {source_etype.text}, ptr {pointer.text}, {place}")

    def alloca(self, kind: Type) -> Value:
        """Memory of this call of the function."""
        return self._new(_PTR, f"alloca {kind.text}")

    def load(self, pointer: Value, typ: Type, align: int | None = None) -> Value:
        """What stands at an address."""
        aligned = f", align {align}" if align else ""
        return self._new(typ, f"load {typ.text}, ptr {pointer.text}{aligned}")

    def store(
        self, value: Value, pointer: Value, align: int | None = None, notes: str = ""
    ) -> None:
        """Write to an address."""
        aligned = f", align {align}" if align else ""
        self._write(f"store {value.type.text} {value.text}, ptr {pointer.text}{aligned}{notes}")

    def load_atomic(self, pointer: Value, order: str, align: int, typ: Type) -> Value:
        """What stands at an address that other threads write to."""
        return self._new(typ, f"load atomic {typ}, ptr {pointer.text} {order}, align {align}")

    def atomic_rmw(self, name: str, pointer: Value, value: Value, order: str) -> Value:
        """Change what stands at an address, and give what stood there, in one step."""
        changed = f"ptr {pointer.text}, {value.type} {value.text}"
        return self._new(value.type, f"atomicrmw {name} {changed} {order}")

    def cmpxchg(self, pointer: Value, old: Value, new: Value, done: str, failed: str) -> Value:
        """Exchange what stands at an address if it is the old; give what stood, and whether."""
        kind = new.type.text
        words = f"ptr {pointer.text}, {kind} {old.text}, {kind} {new.text}"
        return self._new(Type(f"{{{kind}, i1}}"), f"cmpxchg {words} {done} {failed}")

    # ---- where it goes on ------------------------------------------------------------------------

    def phi(self, kind: Type) -> Phi:
        """A value that depends on the block before."""
        found = Phi(kind, self.function.new_name())
        self._write(found)
        return found

    def call(
        self, function: Value, values: Sequence[Value], kind: FunctionType | None = None
    ) -> Value:
        """Call a function; one that is only known by its address is of some kind."""
        if isinstance(function, Function):
            kind = function.kind
        assert kind is not None
        told = ", ".join([f"{value.type.text} {value.text}" for value in values])
        text = f"call {kind.result.text} {function.text}({told})"
        if kind.result != _VOID:
            return self._new(kind.result, text)
        self._write(text)
        return Value(_VOID, "")

    def branch(self, block: Block) -> None:
        """Go on in a block."""
        self._write(f"br label {block.text}")
        self.block.is_ended = True

    def cbranch(self, condition: Value, block: Block, other: Block) -> None:
        """Go on in one block or the other."""
        self._write(f"br i1 {condition.text}, label {block.text}, label {other.text}")
        self.block.is_ended = True

    def ret(self, value: Value) -> None:
        """Return a value."""
        self._write(f"ret {value.type.text} {value.text}")
        self.block.is_ended = True

    def ret_void(self) -> None:
        """Return."""
        self._write("ret void")
        self.block.is_ended = True

    @contextmanager
    def if_then(self, condition: Value) -> Iterator[None]:
        """``if condition``."""
        then, after = self.append_basic_block(), self.append_basic_block()
        self.cbranch(condition, then, after)
        with self._within(then, after):
            yield
        self.position_at_end(after)

    @contextmanager
    def if_else(
        self, condition: Value
    ) -> Iterator[tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
        """``if condition`` and ``else``."""
        then, other, after = (self.append_basic_block() for _ in range(3))
        self.cbranch(condition, then, other)
        yield self._within(then, after), self._within(other, after)
        self.position_at_end(after)

    @contextmanager
    def _within(self, block: Block, after: Block) -> Iterator[None]:
        self.position_at_end(block)
        yield
        if not self.block.is_ended:
            self.branch(after)
