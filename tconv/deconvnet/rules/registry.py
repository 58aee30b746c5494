"""WHAT A ROW OF THE TABLE IS: a function from what arrives at a node to what leaves it.

A row gets a step, which knows what its node read and was told, and the signal R that arrives at the
node's output. It gives the signals that leave at the node's inputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from tconv.deconvnet.network.network import Node
from tconv.deconvnet.network.runtime import Values
from tconv.deconvnet.rules.sparse_map import SparseMap
from tconv.deconvnet.rules.windows import Interval

__all__ = [
    "REVERSALS",
    "RULES",
    "InputMaps",
    "Reversal",
    "NodeContext",
    "overhang",
    "sum_to_shape",
    "cast_like",
    "map_at",
    "row",
    "unbroadcast",
]

RULES = ("deconvnet", "gradient", "guided")

InputMaps = Mapping[int, SparseMap]
"""Which signal leaves at which input."""


@dataclass(frozen=True)
class NodeContext:
    """One node to be reversed.

    ``values`` holds what it read that is known: constants, and the signals that `records` asks for.
    R arrives at ``output``.
    """

    node: Node
    rule: str
    values: Values
    shapes: Mapping[str, tuple[int, ...]]
    activations: frozenset[str]
    opset: int
    output: str

    def has(self, n: int) -> bool:
        """Whether input n is there."""
        return n < len(self.node.inputs) and bool(self.node.inputs[n])

    def value(self, n: int) -> NDArray[Any]:
        """What input n held."""
        return self.values[self.node.inputs[n]]

    def shape(self, n: int) -> tuple[int, ...]:
        """Shape of input n."""
        return self.shapes[self.node.inputs[n]]

    def is_activation(self, n: int) -> bool:
        """Whether input n is a signal."""
        return self.has(n) and self.node.inputs[n] in self.activations

    def activation_inputs(self) -> list[int]:
        """The inputs that are signals."""
        return [n for n in range(len(self.node.inputs)) if self.is_activation(n)]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.node.attributes.get(name, default)


class Reversal(NamedTuple):
    """A row of the table.

    ``records`` names the rules under which the signals that the node read are needed; ``refused``
    those under which there is no answer.
    """

    back: Callable[[NodeContext, SparseMap], InputMaps]
    word: str
    records: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    note: str = ""


REVERSALS: dict[str, Reversal] = {}


def row(
    ops: str,
    word: str,
    *,
    records: tuple[str, ...] = (),
    refused: tuple[str, ...] = (),
    note: str = "",
) -> Callable[
    [Callable[[NodeContext, SparseMap], InputMaps]], Callable[[NodeContext, SparseMap], InputMaps]
]:
    """Enter a function into the table, for one operation or several."""

    def enter(
        back: Callable[[NodeContext, SparseMap], InputMaps],
    ) -> Callable[[NodeContext, SparseMap], InputMaps]:
        REVERSALS.update((op, Reversal(back, word, records, refused, note)) for op in ops.split())
        return back

    return enter


def cast_like(array: NDArray[Any], r: SparseMap) -> NDArray[Any]:
    """Give an array in the signal's type."""
    return array.astype(r.array.dtype, copy=False)


def map_at(array: NDArray[Any], box: tuple[Interval, ...], shape: tuple[int, ...]) -> SparseMap:
    """Set an array at the beginning of a box."""
    return SparseMap(array, tuple(first for first, _ in box), shape)


def overhang(reach: list[Interval], inside: tuple[Interval, ...]) -> tuple[tuple[int, int], ...]:
    """How many cells of a box lie outside of another, before and after."""
    return tuple((into[0] - of[0], of[1] - into[1]) for of, into in zip(reach, inside, strict=True))


def sum_to_shape(r: SparseMap, shape: tuple[int, ...]) -> SparseMap:
    """Sum a signal over what was broadcast from an operand of this shape."""
    if r.shape == shape:
        return r
    return SparseMap.whole(unbroadcast(r.dense(), shape))


def unbroadcast(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Sum over what was broadcast from an operand of this shape.

    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    extra = array.ndim - len(shape)
    array = array.sum(axis=tuple(range(extra))) if extra > 0 else array
    axes = tuple(n for n, size in enumerate(shape) if size == 1 and array.shape[n] != 1)
    return array.sum(axis=axes, keepdims=True) if axes else array
