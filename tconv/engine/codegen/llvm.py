"""LLVM's assembly language: types, values, functions, and a builder that writes instructions.

Everything is text at once. llvmlite's `ir` can do more and takes longer: with it a third of the
first call of a shape went into text. What follows from constants is not left to LLVM: the builder
adds no 0 and multiplies nothing by 1.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

__all__ = [
    "DOUBLE",
    "FLOAT",
    "HALF",
    "I8",
    "I16",
    "I32",
    "I64",
    "PTR",
    "VOID",
    "Argument",
    "Block",
    "Builder",
    "Constant",
    "Function",
    "FunctionType",
    "Index",
    "IntType",
    "Module",
    "Phi",
    "Type",
    "Undefined",
    "Value",
    "VectorType",
]

# ---- types ---------------------------------------------------------------------------------------


class Type:
    """A type, by LLVM's name for it; called with a number it is a constant."""

    count = 0
    """Lanes of a vector, of whose type `element` is; 0 for all other types."""
    element: "Type"

    def __init__(self, text: str, number_format: str = "") -> None:
        self.text, self._format = text, number_format

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __call__(self, value: Any) -> "Constant":
        """Return a constant of this type."""
        return Constant(self, value)

    def literal(self, value: Any) -> str:
        """Return a number as LLVM's text has it; floating-point ones as the bits of a float64."""
        if not self._format:
            return str(int(value))
        (rounded,) = struct.unpack(self._format, struct.pack(self._format, value))
        return f"0x{struct.pack('>d', rounded).hex()}"


class IntType(Type):
    """An integer of some bits."""

    def __init__(self, bits: int) -> None:
        super().__init__(f"i{bits}")


class VectorType(Type):
    """A vector of some lanes."""

    def __init__(self, element: Type, count: int) -> None:
        super().__init__(f"<{count} x {element.text}>")
        self.element, self.count = element, count

    def literal(self, value: Any) -> str:
        """Return numbers, one for each lane, as LLVM's text has them."""
        kind, element = self.element.text, self.element
        return f"<{', '.join([f'{kind} {element.literal(each)}' for each in value])}>"


I1, I8, I16, I32, I64 = map(IntType, (1, 8, 16, 32, 64))
HALF, FLOAT, DOUBLE = Type("half", "e"), Type("float", "f"), Type("double", "d")
PTR, VOID = Type("ptr"), Type("void")


class FunctionType:
    """The types of a function's result and of its arguments."""

    def __init__(self, result: Type, kinds: Sequence[Type]) -> None:
        self.result, self.kinds = result, list(kinds)


# ---- values --------------------------------------------------------------------------------------


class Value:
    """The result of an instruction: its type, and the name that other instructions call it by."""

    __slots__ = ("known", "text", "type")

    def __init__(self, kind: Type, text: str, known: int | None = None) -> None:
        self.type, self.text = kind, text
        self.known = known  # the integer that it is, if it is a constant


Index: TypeAlias = Value | int
"""An integer of 64 bits, known or not."""

Undefined = object()
"""The value of a constant that nothing reads."""


class Constant(Value):
    """A number, one for each lane, zeros if it is None, or `Undefined`."""

    __slots__ = ()

    def __init__(self, kind: Type, value: Any) -> None:
        if value is None:
            text = "null" if kind == PTR else "zeroinitializer"
        else:
            text = "undef" if value is Undefined else kind.literal(value)
        super().__init__(kind, text, value if isinstance(value, int) else None)


class Argument(Value):
    """An argument of a function, with its attributes."""

    __slots__ = ("attributes",)

    def __init__(self, kind: Type, text: str) -> None:
        super().__init__(kind, text)
        self.attributes = ""

    def add_attribute(self, name: str) -> None:
        """Promise LLVM something about it."""
        self.attributes += f" {name}"


class Phi(Value):
    """A value that depends on the block which was left last."""

    __slots__ = ("_incoming",)

    def __init__(self, kind: Type, text: str) -> None:
        super().__init__(kind, text)
        self._incoming: list[str] = []

    def add_incoming(self, value: Value, block: "Block") -> None:
        """Say what it is after a block."""
        self._incoming.append(f"[{value.text}, {block.text}]")

    def __str__(self) -> str:
        return f"{self.text} = phi {self.type} {', '.join(self._incoming)}"


# ---- functions -----------------------------------------------------------------------------------


class Block:
    """A basic block: instructions, of which only the last one branches."""

    def __init__(self, function: "Function", name: str) -> None:
        self.function, self.name, self.text = function, name, f"%{name}"
        self.lines: list[str | Phi] = []
        self.is_ended = False


class Function(Value):
    """A function of a module; one without blocks is declared only."""

    __slots__ = ("_count", "args", "attributes", "blocks", "kind", "linkage", "module", "name")

    def __init__(self, module: "Module", kind: FunctionType, name: str) -> None:
        super().__init__(PTR, f'@"{name}"')
        self.module, self.kind, self.name, self._count = module, kind, name, 0
        self.args = [Argument(each, self.new_name()) for each in kind.kinds]
        self.blocks: list[Block] = []
        self.linkage = self.attributes = ""
        if name in module.globals:
            raise ValueError(f"function {name} is defined twice")
        module.globals[name] = self

    def new_name(self) -> str:
        """Return a name for a value."""
        self._count += 1
        return f"%v{self._count}"

    def append_basic_block(self, name: str = "") -> Block:
        """Add a block after all others."""
        self.blocks.append(Block(self, f"{name or 'b'}.{len(self.blocks)}"))
        return self.blocks[-1]

    def __str__(self) -> str:
        if not self.blocks:
            kinds = ", ".join(each.text for each in self.kind.kinds)
            return f"declare {self.kind.result} {self.text}({kinds})\n"
        taken = ", ".join(f"{each.type}{each.attributes} {each.text}" for each in self.args)
        head = f"{self.linkage} {self.kind.result} {self.text}"
        lines = [f"define {head}({taken}){self.attributes} {{"]
        for block in self.blocks:
            lines.append(f"{block.name}:")
            lines += map(str, block.lines)
        return "\n".join([*lines, "}\n"])


class Module:
    """Functions that are compiled together, for one processor."""

    def __init__(self, triple: str = "", data_layout: str = "") -> None:
        self.triple, self.data_layout = triple, data_layout
        self.globals: dict[str, Function] = {}
        self._metadata: dict[str, str] = {}

    def declared(self, name: str, result: Type, kinds: Sequence[Type]) -> Function:
        """Return one of LLVM's own functions."""
        return self.globals.get(name) or Function(self, FunctionType(result, kinds), name)

    def metadata(self, constant: Constant) -> str:
        """Return the name of a node of metadata."""
        text = f"!{{{constant.type} {constant.text}}}"
        return self._metadata.setdefault(text, f"!{len(self._metadata)}")

    def __str__(self) -> str:
        head = f'target triple = "{self.triple}"\ntarget datalayout = "{self.data_layout}"\n'
        notes = "".join(f"{name} = {text}\n" for text, name in self._metadata.items())
        return head + "".join(map(str, self.globals.values())) + notes


# ---- instructions --------------------------------------------------------------------------------

_ORDERS = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_Binary: TypeAlias = Callable[["Builder", Value, Value], Value]
_Cast: TypeAlias = Callable[["Builder", Value, Type], Value]
_Compare: TypeAlias = Callable[["Builder", str, Value, Value], Value]


def _binary(name: str) -> _Binary:
    def write(self: "Builder", a: Value, b: Value) -> Value:
        return self.new(a.type, f"{name} {a.type.text} {a.text}, {b.text}")

    return write


def _folding(
    name: str, of_integers: Callable[[int, int], int], left: int | None, right: int
) -> _Binary:
    """Like `_binary`, without an instruction where an operand is neutral or both are constants."""
    write = _binary(name)

    def fold(self: "Builder", a: Value, b: Value) -> Value:
        known, other = a.known, b.known
        if other == right or (known == 0 and name == "mul"):
            return a
        if (known is not None and known == left) or (other == 0 and name == "mul"):
            return b
        if known is None or other is None:
            return write(self, a, b)
        return Constant(a.type, of_integers(known, other))

    return fold


def _cast(name: str) -> _Cast:
    def write(self: "Builder", a: Value, kind: Type) -> Value:
        if a.type == kind:
            return a
        return self.new(kind, f"{name} {a.type.text} {a.text} to {kind.text}")

    return write


def _compare(name: str, prefix: str) -> _Compare:
    def write(self: "Builder", order: str, a: Value, b: Value) -> Value:
        word = _ORDERS[order]
        if name == "fcmp" or word not in ("eq", "ne"):  # which have no sign
            word = prefix + word
        kind = VectorType(I1, a.type.count) if a.type.count else I1
        return self.new(kind, f"{name} {word} {a.type.text} {a.text}, {b.text}")

    return write


class Builder:
    """Writes instructions at the end of a block, named as LLVM names them."""

    def __init__(self, block: Block) -> None:
        self.function, self.module = block.function, block.function.module
        self.position_at_end(block)

    def position_at_end(self, block: Block) -> None:
        """Write behind what a block has."""
        self.block, self._write = block, block.lines.append

    def append_basic_block(self, name: str = "") -> Block:
        """Add a block to the function."""
        return self.function.append_basic_block(name)

    def new(self, kind: Type, text: str) -> Value:
        """Write an instruction; return its result."""
        name = self.function.new_name()
        self._write(f"{name} = {text}")
        return Value(kind, name)

    # Integers: those that are divided or compared without sign are not negative, or addresses.
    add, sub = _folding("add", int.__add__, 0, 0), _folding("sub", int.__sub__, None, 0)
    mul, udiv = _folding("mul", int.__mul__, 1, 1), _folding("udiv", int.__floordiv__, None, 1)
    urem, and_, or_, xor = map(_binary, ("urem", "and", "or", "xor"))
    shl, lshr, ashr = map(_binary, ("shl", "lshr", "ashr"))
    fadd, fsub, fmul, fdiv = map(_binary, ("fadd", "fsub", "fmul", "fdiv"))
    icmp_signed, icmp_unsigned = _compare("icmp", "s"), _compare("icmp", "u")
    fcmp_ordered, fcmp_unordered = _compare("fcmp", "o"), _compare("fcmp", "u")  # NaN: no, yes
    bitcast, ptrtoint, trunc, fptrunc = map(_cast, ("bitcast", "ptrtoint", "trunc", "fptrunc"))
    sext, zext, fpext = map(_cast, ("sext", "zext", "fpext"))

    def not_(self, a: Value) -> Value:
        """``not a``."""
        return self.new(a.type, f"xor {a.type} {a.text}, true")

    def fneg(self, a: Value) -> Value:
        """``-a``."""
        return self.new(a.type, f"fneg {a.type} {a.text}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """``a if condition else b``."""
        which = f"{condition.type.text} {condition.text}"
        return self.new(a.type, f"select {which}, {a.type.text} {a.text}, {b.type.text} {b.text}")

    def extract_element(self, vector: Value, lane: Value) -> Value:
        """``vector[lane]``."""
        place = f"{lane.type.text} {lane.text}"
        kind = vector.type.element
        return self.new(kind, f"extractelement {vector.type.text} {vector.text}, {place}")

    def insert_element(self, vector: Value, value: Value, lane: Value) -> Value:
        """Return a vector with another value in a lane."""
        place = f"{value.type.text} {value.text}, {lane.type.text} {lane.text}"
        return self.new(vector.type, f"insertelement {vector.type.text} {vector.text}, {place}")

    def shuffle_vector(self, a: Value, b: Value, order: Constant) -> Value:
        """Return lanes of two vectors, by their numbers."""
        kind = a.type.text
        return self.new(
            VectorType(a.type.element, order.type.count),
            f"shufflevector {kind} {a.text}, {kind} {b.text}, {order.type.text} {order.text}",
        )

    def extract_value(self, pair: Value, place: int) -> Value:
        """Return whether `cmpxchg` exchanged, the second of the two values that it gives."""
        assert place == 1
        return self.new(I1, f"extractvalue {pair.type.text} {pair.text}, {place}")

    def gep(self, pointer: Value, indices: Sequence[Value], source_etype: Type) -> Value:
        """``&pointer[index]``, of a vector of indices for each lane."""
        (index,) = indices
        if index.known == 0:
            return pointer
        kind = VectorType(PTR, index.type.count) if index.type.count else PTR
        place = f"{index.type.text} {index.text}"
        return self.new(kind, f"getelementptr {source_etype.text}, ptr {pointer.text}, {place}")

    def alloca(self, kind: Type, count: int = 1) -> Value:
        """Return memory of this call of the function."""
        return self.new(PTR, f"alloca {kind.text if count == 1 else f'[{count} x {kind.text}]'}")

    def load(self, pointer: Value, typ: Type, align: int | None = None) -> Value:
        """``*pointer``."""
        aligned = f", align {align}" if align else ""
        return self.new(typ, f"load {typ.text}, ptr {pointer.text}{aligned}")

    def store(
        self, value: Value, pointer: Value, align: int | None = None, notes: str = ""
    ) -> None:
        """``*pointer = value``."""
        aligned = f", align {align}" if align else ""
        self._write(f"store {value.type.text} {value.text}, ptr {pointer.text}{aligned}{notes}")

    def load_atomic(self, pointer: Value, order: str, align: int, typ: Type) -> Value:
        """``*pointer``, to which other threads write."""
        return self.new(typ, f"load atomic {typ}, ptr {pointer.text} {order}, align {align}")

    def atomic_rmw(self, name: str, pointer: Value, value: Value, order: str) -> Value:
        """Change what stands at an address, and return what stood there, in one step."""
        changed = f"ptr {pointer.text}, {value.type} {value.text}"
        return self.new(value.type, f"atomicrmw {name} {changed} {order}")

    def cmpxchg(self, pointer: Value, old: Value, new: Value, done: str, failed: str) -> Value:
        """Exchange what stands at an address if it is the old; return what stood, and whether."""
        kind = new.type.text
        words = f"ptr {pointer.text}, {kind} {old.text}, {kind} {new.text}"
        return self.new(Type(f"{{{kind}, i1}}"), f"cmpxchg {words} {done} {failed}")

    def phi(self, kind: Type) -> Phi:
        """Return a value that depends on the block which was left last."""
        found = Phi(kind, self.function.new_name())
        self._write(found)
        return found

    def call(
        self, function: Value, values: Sequence[Value], kind: FunctionType | None = None
    ) -> Value:
        """Call a function; `kind` is that of one which is known by its address only."""
        if isinstance(function, Function):
            kind = function.kind
        assert kind is not None
        taken = ", ".join([f"{value.type.text} {value.text}" for value in values])
        text = f"call {kind.result.text} {function.text}({taken})"
        if kind.result != VOID:
            return self.new(kind.result, text)
        self._write(text)
        return Value(VOID, "")

    def _end(self, text: str) -> None:
        self._write(text)
        self.block.is_ended = True

    def branch(self, block: Block) -> None:
        """Go on in a block."""
        self._end(f"br label {block.text}")

    def cbranch(self, condition: Value, block: Block, other: Block) -> None:
        """Go on in one block or the other."""
        self._end(f"br i1 {condition.text}, label {block.text}, label {other.text}")

    def ret(self, value: Value) -> None:
        """``return value``."""
        self._end(f"ret {value.type.text} {value.text}")

    def ret_void(self) -> None:
        """``return``."""
        self._end("ret void")
