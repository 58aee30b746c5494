"""Cost model of ONNX Runtime: predicted times of nodes, and the overhead of a partition.

The constants were fitted to ONNX Runtime 1.32 on AVX-512, with one and two threads, in the cycles
that the engine's plans count. Their ratios matter, not their scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from tconv.engine import CYCLES_PER_US, Target
from tconv.onnx.model.shape_inference import Shapes

__all__ = [
    "ANY_MACHINE",
    "CALL_US",
    "COLD_US",
    "PROGRAM_US",
    "RUN_US",
    "SUBGRAPH_US",
    "WAKE_US",
    "Machine",
    "conv_transpose_us",
    "node_us",
    "reorder_us",
]

_NODE_US, _VIEW_US = 1.6, 0.8  # overhead of any node; and of one that moves no elements
_VIEWS = frozenset(
    {"Constant", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"}
)
# Share of the peak that matrix products, convolutions and recurrent nodes reach.
_GEMM, _CONV, _RECURRENT = 0.85, 0.85, 0.3
_FEW = 16  # products of a sum, or output channels: a convolution of that few is slower
_DEPTHWISE = 0.1  # cycles per output and tap of a depthwise convolution
_BYTES_PER_CYCLE = 14.0  # read and written by an elementwise node
_PASSES = {  # time in passes over the values
    "Gelu": 2.5,
    "Erf": 3.0,
    "Tanh": 2.5,
    "Sigmoid": 1.5,
    "Sin": 6.0,
    "Cos": 6.0,
    "Log": 7.0,
    "Softplus": 40.0,
    "Mish": 40.0,
}
_ONE_THREAD = frozenset(
    {"Concat", "Slice", "Split", "Pad", "Expand", "Tile", "ScatterND", "Transpose", "Resize"}
)
_SHARED_US = 10.0  # work that is worth a thread
# A ConvTranspose is a GEMM, and col2im on one thread: cycles for each element of a group's columns
# in the cache and beyond it, for four axes (True) and for others.
_COLUMN_CYCLES = {True: (1.2, 3.2), False: (2.4, 4.0)}
_GROUP_US = 0.15
# Overhead of a run of ONNX Runtime, of a run of a subgraph, of waking its threads and tconv's, of a
# call of a layer, and of cold caches: each side finds them full of the other's data.
RUN_US, SUBGRAPH_US, WAKE_US, CALL_US, COLD_US = 10.0, 25.0, 30.0, 10.0, 60.0
PROGRAM_US = 18.0  # overhead of a run of a program


@dataclass(frozen=True)
class Machine:
    """Processor of the cost model: peak of a core, cache and threads."""

    flops_per_us: float  # of float32, at most
    cache_bytes: int
    threads: int

    @classmethod
    def of(cls, here: Target, threads: int | None) -> "Machine":
        """Describe a target with the number of threads that `Session` was given."""
        lanes = here.vector_bits // 32 / here.steps
        flops = lanes * (4 if here.has_fma else 2) * CYCLES_PER_US
        return cls(flops, here.l3_bytes // 2, min(threads or here.threads, here.cores))

    def shared(self, us: float) -> float:
        """Time of work that as many threads share as it is worth."""
        return us / min(self.threads, max(1.0, us / _SHARED_US))


ANY_MACHINE = Machine(32.0 * CYCLES_PER_US, 2**23, 1)
"""An assumed machine, since asking this one loads LLVM: vectors of 256 bits, FMA."""


def node_us(node: NodeProto, shapes: Shapes, machine: Machine, cells: int) -> float:
    """Microseconds of a node in a model that ONNX Runtime runs.

    `cells` is the assumed spatial size, in cells, of a value of unknown shape.
    """
    kind = node.op_type
    if kind in _VIEWS:
        return _VIEW_US
    values = [shapes.get(name) for name in (*node.input, *node.output) if name]
    weight = shapes.get(node.input[1]) if len(node.input) > 1 else None
    y = shapes.get(node.output[0]) if node.output else None
    if kind in ("Conv", "ConvTranspose") and weight is not None and len(weight) > 2:
        x = shapes.get(node.input[0])
        if kind == "ConvTranspose":
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            x = x or (1, weight[0], cells)
            return _NODE_US + conv_transpose_us(x, weight, groups, machine)
        return _NODE_US + _convolution_us(y or (1, weight[0], cells), weight, machine)
    if kind in ("MatMul", "Gemm", "FusedMatMul", "Einsum") and weight is not None and y:
        depth = next((size for size in shapes.get(node.input[0], (1,))[::-1]), 1)
        us = 2 * prod(y) * depth / (_GEMM * machine.flops_per_us)
        return _NODE_US + machine.shared(us)
    if kind in ("GRU", "LSTM", "RNN") and len(node.input) > 2:
        x = shapes.get(node.input[0]) or (1, 1, 1)
        weights = sum(prod(shapes.get(name, ())) for name in node.input[1:3])
        steps = prod(x[:2])
        return _NODE_US + 2 * weights * steps / (_RECURRENT * machine.flops_per_us)
    us = _PASSES.get(kind, 1.0) * sum(_pass_us(shape) for shape in values if shape is not None)
    return _NODE_US + (us if kind in _ONE_THREAD else machine.shared(us))


def reorder_us(shape: Sequence[int], machine: Machine) -> float:
    """Microseconds of reordering a value to NCHWc and back: two passes that read and write it."""
    return machine.shared(4 * _pass_us(shape))


def _pass_us(shape: Sequence[int]) -> float:
    """Microseconds of reading or writing a value on one thread."""
    return 4 * prod(shape) / _BYTES_PER_CYCLE / CYCLES_PER_US


def _convolution_us(y: Sequence[int], weight: Sequence[int], machine: Machine) -> float:
    outputs, channels, *kernel = weight
    flops = 2 * y[0] * prod(y[1:]) * channels * prod(kernel)
    if channels == 1 and outputs > 1:  # depthwise
        us = _DEPTHWISE * prod(y) * prod(kernel) / CYCLES_PER_US
        us += 2 * _pass_us(y)
        return machine.shared(us)
    share = _CONV * min(1.0, (channels * prod(kernel)) / (channels * prod(kernel) + _FEW))
    share *= min(1.0, outputs / _FEW)
    return machine.shared(flops / (share * machine.flops_per_us))


def conv_transpose_us(
    x: Sequence[int], weight: Sequence[int], groups: int, machine: Machine
) -> float:
    """Microseconds of a ConvTranspose in ONNX Runtime: a GEMM, then col2im."""
    columns = prod(weight[1:]) * prod(x[2:])  # of a group
    products = machine.shared(2 * columns * (x[1] // groups) / (_GEMM * machine.flops_per_us))
    is_far = 4 * columns > machine.cache_bytes
    sums = columns * _COLUMN_CYCLES[len(x) == 4][is_far] / CYCLES_PER_US
    return x[0] * groups * (_GROUP_US + products + sums)
