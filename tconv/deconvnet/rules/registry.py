"""Registry of reversals: for each operator of ONNX, its backward function and its box law.

A backward function maps the attribution that arrives at a node's output to attributions of its
inputs, under each rule. A box law maps a box of the output to the box of an input that it depends
on; `receptive_field` chains box laws. One row holds both, so that neither can be forgotten.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from tconv.deconvnet.network.network import Node
from tconv.deconvnet.network.runtime import Values
from tconv.deconvnet.rules.sparse_map import SparseMap
from tconv.deconvnet.rules.windows import Box

__all__ = [
    "REVERSALS",
    "RULES",
    "BoxLaw",
    "InputMaps",
    "NodeContext",
    "Reversal",
    "register",
]

RULES = ("deconvnet", "gradient", "guided")

InputMaps = Mapping[int, SparseMap]
"""Attribution of each input, by its place."""


class NodeContext(NamedTuple):
    """A node, and the known values that it reads.

    ``values`` holds constants, and for a backward pass the recorded values; ``activations`` are the
    names of all values that depend on the image. ``output`` is the output in question, ``rule``
    that of a backward pass.
    """

    node: Node
    values: Values
    shapes: Mapping[str, tuple[int, ...]]
    activations: frozenset[str]
    opset: int
    output: str
    rule: str = ""

    def has(self, n: int) -> bool:
        """Whether the node has an input n."""
        return n < len(self.node.inputs) and bool(self.node.inputs[n])

    def value(self, n: int) -> NDArray[Any]:
        """Return the value of input n."""
        return self.values[self.node.inputs[n]]

    def known(self, n: int) -> NDArray[Any] | None:
        """Return the value of input n; None if there is no such input, or only a run tells it."""
        return self.values.get(self.node.inputs[n]) if self.has(n) else None

    def shape(self, n: int) -> tuple[int, ...]:
        """Return the shape of input n."""
        return self.shapes[self.node.inputs[n]]

    def is_activation(self, n: int) -> bool:
        """Whether input n depends on the image."""
        return self.has(n) and self.node.inputs[n] in self.activations

    def activation_inputs(self) -> list[int]:
        """Return the places of the inputs that depend on the image."""
        return [n for n in range(len(self.node.inputs)) if self.is_activation(n)]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.node.attributes.get(name, default)


Backward = Callable[[NodeContext, SparseMap], InputMaps]
"""Attributions of a node's inputs from the attribution R of its output."""

BoxLaw = Callable[[NodeContext, int, Box], Box | None]
"""The box of input n that a box of the output depends on; None for all of the input.

`receptive_field` calls it only where the input has the spatial axes of the box.
"""


class Reversal(NamedTuple):
    """How an operator is reversed.

    Parameters
    ----------
    backward : Backward
    box : BoxLaw
    word : str, kind of the operator, as the summary of a backward pass names it
    records : rules whose backward function reads the node's activations
    refused : rules that are not defined for the operator
    note : str, for an operator that the deconvnet paper does not have
    """

    backward: Backward
    box: BoxLaw
    word: str
    records: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    note: str = ""


REVERSALS: dict[str, Reversal] = {}
"""By operator; one of another domain than ONNX's own is called "domain.operator"."""


def register(
    operators: str,
    word: str,
    *,
    box: BoxLaw,
    domain: str = "",
    records: tuple[str, ...] = (),
    refused: tuple[str, ...] = (),
    note: str = "",
) -> Callable[[Backward], Backward]:
    """Enter the decorated backward function for one operator or several."""

    def enter(backward: Backward) -> Backward:
        reversal = Reversal(backward, box, word, records, refused, note)
        for operator in operators.split():
            REVERSALS[f"{domain}.{operator}" if domain else operator] = reversal
        return backward

    return enter
