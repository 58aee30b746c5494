"""WHAT GENERATED CODE IS MADE OF: types, values, blocks, functions, each as LLVM's text.

The names are those of llvmlite's `ir`, which can do more and takes longer: with it a third of the
first call of a shape went into text.
"""

import struct
from collections.abc import Sequence
from typing import Any

__all__ = [
    "Argument",
    "ArrayType",
    "Block",
    "Constant",
    "DoubleType",
    "FloatType",
    "Function",
    "FunctionType",
    "HalfType",
    "IntType",
    "Module",
    "Phi",
    "PointerType",
    "Type",
    "Undefined",
    "Value",
    "VectorType",
    "VoidType",
]


class Type:
    """A type, which is what LLVM calls it; called with a number it is a constant."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __call__(self, value: Any) -> "Constant":
        """A number of this type."""
        return Constant(self, value)

    def written(self, value: Any) -> str:
        """A number, as LLVM's text has it."""
        return str(int(value))


class IntType(Type):
    """An integer of so many bits."""

    def __init__(self, bits: int) -> None:
        super().__init__(f"i{bits}")


class _Real(Type):
    """A number with a point, which is written as the bits of a float64."""

    format = "d"

    def written(self, value: Any) -> str:
        """A number, rounded to this type."""
        (rounded,) = struct.unpack(self.format, struct.pack(self.format, value))
        return f"0x{struct.pack('>d', rounded).hex()}"


class DoubleType(_Real):
    """float64."""

    def __init__(self) -> None:
        super().__init__("double")


class FloatType(_Real):
    """float32."""

    format = "f"

    def __init__(self) -> None:
        super().__init__("float")


class HalfType(_Real):
    """float16."""

    format = "e"

    def __init__(self) -> None:
        super().__init__("half")


class PointerType(Type):
    """An address."""

    def __init__(self) -> None:
        super().__init__("ptr")


class VoidType(Type):
    """No value."""

    def __init__(self) -> None:
        super().__init__("void")


class VectorType(Type):
    """So many values of a type."""

    def __init__(self, element: Type, count: int) -> None:
        super().__init__(f"<{count} x {element.text}>")
        self.element, self.count = element, count

    def written(self, value: Any) -> str:
        """A number for every lane."""
        kind, element = self.element.text, self.element
        return f"<{', '.join(f'{kind} {element.written(each)}' for each in value)}>"


class ArrayType(Type):
    """So many of a type one after the other, in memory."""

    def __init__(self, element: Type, count: int) -> None:
        super().__init__(f"[{count} x {element.text}]")


class FunctionType:
    """What a function gives, and what it takes."""

    def __init__(self, result: Type, kinds: Sequence[Type]) -> None:
        self.result, self.kinds = result, list(kinds)


class _Undefined:
    """Any value: what is never read."""


Undefined = _Undefined()

_PTR = PointerType()


class Value:
    """What an instruction gives: its type, and the name that others call it by."""

    __slots__ = ("text", "type")

    def __init__(self, kind: Type, text: str) -> None:
        self.type, self.text = kind, text


class Constant(Value):
    """A value that is known: a number, one for each lane, None for zeros, or `Undefined`."""

    __slots__ = ("known",)

    def __init__(self, kind: Type, value: Any) -> None:
        if value is None:
            text = "null" if kind == _PTR else "zeroinitializer"
        else:
            text = "undef" if value is Undefined else kind.written(value)
        super().__init__(kind, text)
        self.known = value


class Argument(Value):
    """What a function is told, with attributes."""

    __slots__ = ("attributes",)

    def __init__(self, kind: Type, text: str) -> None:
        super().__init__(kind, text)
        self.attributes = ""

    def add_attribute(self, name: str) -> None:
        """Say something about it that LLVM may rely on."""
        self.attributes += f" {name}"

    @property
    def name(self) -> str:
        """What it is called."""
        return self.text[1:]

    @name.setter
    def name(self, name: str) -> None:
        self.text = f"%{name}"


class Phi(Value):
    """A value that depends on where one comes from."""

    __slots__ = ("incoming",)

    def __init__(self, kind: Type, text: str) -> None:
        super().__init__(kind, text)
        self.incoming: list[str] = []

    def add_incoming(self, value: Value, block: "Block") -> None:
        """What it is if one comes from a block."""
        self.incoming.append(f"[{value.text}, {block.text}]")

    def __str__(self) -> str:
        return f"{self.text} = phi {self.type} {', '.join(self.incoming)}"


class Block:
    """Instructions one after the other; only the last goes elsewhere."""

    def __init__(self, function: "Function", name: str) -> None:
        self.function, self.name, self.text = function, name, f"%{name}"
        self.lines: list[Any] = []
        self.is_ended = False


class Function(Value):
    """A function of a module; without blocks one that is defined elsewhere."""

    __slots__ = ("_count", "args", "attributes", "blocks", "kind", "linkage", "module", "name")

    def __init__(self, module: "Module", kind: FunctionType, name: str) -> None:
        super().__init__(_PTR, f'@"{name}"')
        self.module, self.kind, self.name, self._count = module, kind, name, 0
        self.args = [Argument(each, self.new_name()) for each in kind.kinds]
        self.blocks: list[Block] = []
        self.linkage = self.attributes = ""
        if name in module.globals:
            raise ValueError(f"function {name} is defined twice")
        module.globals[name] = self

    def new_name(self) -> str:
        """A name for a value."""
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
        """A function that LLVM has."""
        return self.globals.get(name) or Function(self, FunctionType(result, kinds), name)

    def noted(self, constant: Constant) -> str:
        """How what is said beside instructions is referred to."""
        text = f"!{{{constant.type} {constant.text}}}"
        return self._metadata.setdefault(text, f"!{len(self._metadata)}")

    def __str__(self) -> str:
        head = f'target triple = "{self.triple}"\ntarget datalayout = "{self.data_layout}"\n'
        notes = "".join(f"{name} = {text}\n" for text, name in self._metadata.items())
        return head + "".join(map(str, self.globals.values())) + notes
