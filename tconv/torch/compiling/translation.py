"""Registry of translations, and what they write nodes of a graph with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node as FxNode

from tconv.graph import Node, UnknownOperator

__all__ = ["TRANSLATORS", "Translator", "translate"]

Translation = Callable[..., None]
TRANSLATORS: dict[str, Translation] = {}
"""By the name of an operator: the function that writes its nodes, with the schema's arguments."""

_Function = TypeVar("_Function", bound=Translation)


def translate(*names: str) -> Callable[[_Function], _Function]:
    """Register a function for operators, ".default" unless they name an overload."""

    def wrapped(function: _Function) -> _Function:
        for name in names:
            TRANSLATORS[name if "." in name else f"{name}.default"] = function
        return function

    return wrapped


class Translator:
    """The graph that is being written.

    `integers` are nodes whose values are integers, known when a program is made; `sizes` the
    operands that depend on them, each a list of integers and of the names of such nodes.
    """

    def __init__(self, constants: Mapping[str, NDArray[Any]]) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = dict(constants)
        self.sizes: dict[str, tuple[int | str, ...]] = {}
        self.integers: set[FxNode] = set()
        self._results: dict[FxNode, list[str]] = {}  # of the nodes that are done
        self._node: FxNode | None = None

    # ---- what a translation reads ----------------------------------------------------------------

    def read(self, value: Any) -> str:
        """The name of an operand: a value, or a number as a constant."""
        if value is None:
            return ""
        if isinstance(value, (bool, int, float)):
            return self.constant(np.full((), value, np.float32))
        if not isinstance(value, FxNode) or value in self.integers:
            raise UnknownOperator(f"an operand {value}")
        found = self._results.get(value)
        return value.name if found is None else found[0]

    def array(self, value: Any) -> NDArray[Any] | None:
        """The array of an operand that is a constant; None if it is left out."""
        if value is None:
            return None
        found = self.constants.get(self.read(value))
        if found is None:
            raise UnknownOperator("an operand that is computed")
        return found

    def is_constant(self, value: Any) -> bool:
        """Whether an operand is a constant."""
        return isinstance(value, FxNode) and self.read(value) in self.constants

    def shape(self, value: Any) -> tuple[Any, ...]:
        """The shape of an operand, some sizes of which may be symbols."""
        return tuple(value.meta["val"].shape)

    def rank(self, value: Any) -> int:
        """The number of axes of an operand."""
        return len(self.shape(value))

    # ---- what it writes --------------------------------------------------------------------------

    def begin(self, node: FxNode) -> None:
        """Write the nodes of this one from now on."""
        self._node = node

    def add(
        self, operator: str, operands: Sequence[Any], results: int = 1, **attributes: Any
    ) -> list[str]:
        """Write a node of names, or of what `read` takes; return the names of its results."""
        assert self._node is not None
        names = tuple([each if isinstance(each, str) else self.read(each) for each in operands])
        base = f"{self._node.name}.{len(self.nodes)}"
        made = tuple([f"{base}.{n}" for n in range(results)])
        self.nodes.append(Node(operator, names, made, attributes, self._node.name))
        return list(made)

    def give(self, *results: str) -> None:
        """Say what the results of the current node are."""
        assert self._node is not None
        self._results[self._node] = list(results)

    def write(self, operator: str, operands: Sequence[Any], **attributes: Any) -> None:
        """Write a node whose only result is that of the current one."""
        self.give(*self.add(operator, operands, **attributes))

    def take_result(self, node: FxNode, source: Any, place: Any) -> None:
        """Let a node be one of the results of another."""
        found = self._results.get(source, [])
        if not isinstance(place, int) or not 0 <= place < len(found):
            raise UnknownOperator(f"result {place} of {source}", node.name)
        self._results[node] = [found[place]]

    def constant(self, array: NDArray[Any]) -> str:
        """The name of a new constant."""
        name = f"constant.{len(self.constants)}"
        self.constants[name] = array
        return name

    def numbers(self, values: Sequence[Any]) -> str:
        """The name of an operand of integers, some of which may be known for each program only."""
        if all(isinstance(each, int) for each in values):
            return self.constant(np.array(values, np.int64))
        found = list[int | str]()
        for each in values:
            if isinstance(each, FxNode) and each in self.integers:
                found.append(each.name)
            elif isinstance(each, int):
                found.append(each)
            else:
                raise UnknownOperator(f"a size {each}")
        name = f"sizes.{len(self.sizes)}"
        self.sizes[name] = tuple(found)
        return name

    def known(self, values: Any) -> list[int]:
        """Integers that are the same for all programs, such as strides."""
        found = list(values)
        if any(not isinstance(each, int) for each in found):
            raise UnknownOperator(f"a size of {found}, which each call may change")
        return found


def tensor_type(node: FxNode) -> torch.dtype | None:
    """The type of the dense tensor on the CPU that a node gives; None if it gives none."""
    value = node.meta.get("val")
    is_dense = (
        isinstance(value, torch.Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
    )
    return value.dtype if is_dense else None
