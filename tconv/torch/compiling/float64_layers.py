"""Layers of float64: each is a region of its own, since programs compute in float32."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tconv import engine
from tconv.errors import TConvError
from tconv.geometry.geometry import Geometry, Letter
from tconv.geometry.onnx_attributes import ConvAttributes, NodeAttributes
from tconv.graph import Graph, UnknownOperator
from tconv.ops.dispatch import native
from tconv.ops.planned_call import Packed, PackedWeights
from tconv.system.fork_lock import cached_property

__all__ = ["Float64Layer", "Float64Layers"]

_KINDS = {"Conv": ConvAttributes, "ConvTranspose": NodeAttributes}
_MOST_SIZES = 16

_Shapes = tuple[tuple[int, ...], ...]


class Float64Layer:
    """A layer of float64 for one shape of its input, called as a `Program` is.

    Attributes
    ----------
    shapes, output_shapes, expected_us, block_bytes, steps : as those of a `Program`
    """

    block_bytes = 0

    def __init__(self, layers: "Float64Layers", geometry: Geometry, expected_us: float) -> None:
        want, node = layers.settings.want, layers.node
        self._layers, self.expected_us, self.steps = layers, expected_us, (node.operator,)
        self._geometry = geometry
        read: Letter = "x" if want == "y" else "y"
        self.output_shapes = (geometry.shape_of(want),)
        self.shapes = {
            node.reads(0): geometry.shape_of(read),
            node.outputs[0]: geometry.shape_of(want),
        }

    @cached_property
    def _plan(self) -> Any:
        layers = self._layers
        return native(self._geometry, layers.settings.want, "float64", layers.threads)

    def __call__(self, inputs: Sequence[NDArray[Any]], out: Sequence[NDArray[Any]]) -> None:
        """Compute the layer into `out`; all arrays are C-contiguous."""
        plan, layers = self._plan, self._layers
        packed = layers.packed(self._geometry, plan)
        plan(inputs[0], packed.values, plan.pack_bias(layers.bias), out[0])


class Float64Layers:
    """The sizes of a layer of float64, found as those of `Programs` are.

    Parameters
    ----------
    graph : a single convolution, transposed or not
    threads : int
    """

    def __init__(self, graph: Graph, threads: int) -> None:
        (self.node,) = graph.nodes
        self.graph, self.threads = graph, threads
        self.settings = _KINDS[self.node.operator].of(dict(self.node.attributes))
        self.weight = graph.constants[self.node.reads(1)]
        self.bias = graph.constants.get(self.node.reads(2))
        self._packed = PackedWeights()
        self._found: dict[_Shapes, Float64Layer] = {}

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed weight, for all sizes."""
        return self._packed.byte_count

    def packed(self, geometry: Geometry, plan: Any) -> Packed:
        """Return the weight in the order in which a plan reads it."""
        found = self._packed.packed_for(plan)
        if found is None:
            want = self.settings.want
            found = self._packed.of(geometry, self.weight, 0, self.threads, want=want, plan=plan)
        return found  # type: ignore[no-any-return]

    def program(self, shapes: _Shapes, _: object = ()) -> Float64Layer:
        """Return the layer for an input of this shape.

        Raises
        ------
        UnknownOperator : the engine has no kernel for it, or the sizes do not fit
        """
        found = self._found.get(shapes)
        if found is None:
            node, want = self.node, self.settings.want
            try:
                geometry = self.settings.geometry(shapes[0], self.weight.shape)
            except TConvError as error:
                raise UnknownOperator(f"{node.operator}: {error}", node.name) from None
            us = engine.expected_us(geometry, want, "float64", self.threads)
            if us is None:
                raise UnknownOperator(f"{node.operator} without a kernel of float64", node.name)
            if len(self._found) >= _MOST_SIZES:
                self._found.clear()
            found = self._found[shapes] = Float64Layer(self, geometry, us)
        return found
