"""Extents of a network's values: which of their axes lie along the axes that pieces cut.

They are found by trial: a graph is lowered for two sizes of an input, and the axis whose size
differs lies along it. So no operator needs a rule of its own for that.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tconv.errors import UnsupportedError
from tconv.graph.graph import Graph
from tconv.graph.lowering import lower
from tconv.graph.values import UnknownOperator

__all__ = ["PROBE", "Extents", "extents_of"]

PROBE = 2**8 * 3 * 5 * 7
"""A size that most strides divide."""


class Extents(NamedTuple):
    """Shapes of all values for the sizes that were tried, and axes along each direction of cuts.

    ``axes[name][d]`` is the axis of a value along direction d; None where it has none.
    """

    shapes: Mapping[str, tuple[int, ...]]
    axes: Mapping[str, tuple[int | None, ...]]


def extents_of(
    graph: Graph,
    shapes: Mapping[str, tuple[int | None, ...]],
    cut: Sequence[Mapping[str, int]],
    probe: int = PROBE,
) -> Extents:
    """Find the axes of every value along each direction.

    Parameters
    ----------
    shapes : of the inputs; sizes along directions are None
    cut : for each direction, the axis of each input along it

    Raises
    ------
    UnsupportedError : a node cannot be computed for other sizes, or a value varies along two axes
    """

    def lowered(longer: int | None) -> dict[str, tuple[int, ...]]:
        sizes = {}
        for name, shape in shapes.items():
            known = list(shape)
            for direction, axes in enumerate(cut):
                if name in axes:
                    known[axes[name]] = probe * (1 + (direction == longer))
            sizes[name] = tuple(size or 1 for size in known)
        try:
            return lower(graph, sizes, {}).shapes
        except UnknownOperator as error:
            raise UnsupportedError(
                f"the network cannot be computed piece by piece: {str(error).rstrip('.')}, for "
                f"inputs of shapes {', '.join(map(str, sizes.values()))}; leave these sizes open "
                "in the model, or end it before this node."
            ) from None

    base = lowered(None)
    found: dict[str, list[int | None]] = {name: [] for name in base}
    for direction in range(len(cut)):
        for name, shape in lowered(direction).items():
            both = zip(base[name], shape, strict=True) if len(shape) == len(base[name]) else ()
            differing = [axis for axis, (old, new) in enumerate(both) if old != new]
            if len(differing) > 1 or len(shape) != len(base[name]):
                raise UnsupportedError(
                    f"value {name!r} has shape {base[name]} and {shape} for inputs of other "
                    "lengths: it varies along more than one axis, so it has no pieces; end the "
                    "model before it."
                )
            found[name].append(differing[0] if differing else None)
    return Extents(base, {name: tuple(axes) for name, axes in found.items()})
