"""Cost model of ONNX Runtime: predicted times of nodes, and what cutting a model costs.

The numbers were fitted to ONNX Runtime 1.32 on AVX-512, with one and two threads, in the cycles
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
    "PIECE_US",
    "RUN_US",
    "WAKE_US",
    "Machine",
    "node_us",
    "passes_us",
    "transposed_us",
]

_NODE_US, _VIEW_US = 1.6, 0.8  # of any node; and of one that moves no numbers
_VIEWS = frozenset(
    {"Constant", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"}
)
# A matrix product's and a convolution's share of the peak.
_GEMM, _CONV, _RECURRENT = 0.85, 0.85, 0.3
_FEW = 16  # channels, with which a convolution's sums are too short
_DEPTHWISE = 0.1  # cycles per output and tap of a depthwise convolution
_BYTES_PER_CYCLE = 14.0  # of what a node reads and writes that goes through its values once
_TIMES = {"Gelu": 2.5, "Erf": 3.0, "Tanh": 2.5, "Sigmoid": 1.5}
_ONE_THREAD = frozenset(
    {"Concat", "Slice", "Split", "Pad", "Expand", "Tile", "ScatterND", "Transpose", "Resize"}
)
_SHARED_US = 10.0  # what is worth a thread
# A ConvTranspose multiplies to columns, and adds these to the image on one thread: cycles for each
# number of a group's columns where the caches hold them, and where not; of images, and of others.
_COLUMN_CYCLES = {True: (1.2, 3.2), False: (2.4, 4.0)}
_GROUP_US = 0.15
# Of a run of ONNX Runtime, of one for a piece, of waking its threads and ours, and of a call of a
# layer. Whoever comes after the other finds caches that hold nothing of its own.
RUN_US, PIECE_US, WAKE_US, CALL_US, COLD_US = 10.0, 25.0, 30.0, 10.0, 60.0


@dataclass(frozen=True)
class Machine:
    """What times depend on: multiplications and additions that a core can do, caches, threads."""

    flops_per_us: float  # of float32, at most
    cache_bytes: int
    threads: int

    @classmethod
    def of(cls, here: Target, threads: int | None) -> "Machine":
        """A processor, and as many threads as `Session` was told."""
        lanes = here.vector_bits // 32 / here.steps
        flops = lanes * (4 if here.has_fma else 2) * CYCLES_PER_US
        return cls(flops, here.l3_bytes // 2, min(threads or here.threads, here.cores))

    def shared(self, us: float) -> float:
        """A time of which each thread takes its part, if it is worth one."""
        return us / min(self.threads, max(1.0, us / _SHARED_US))


ANY_MACHINE = Machine(32.0 * CYCLES_PER_US, 2**23, 1)
"""A machine that is guessed, since to ask this one loads LLVM: 256 bits, FMA."""


def node_us(node: NodeProto, shapes: Shapes, machine: Machine, cells: int) -> float:
    """Microseconds of a node within a model that ONNX Runtime runs.

    `cells` is how many a value has along its spatial axes whose shape is not known.
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
            return _NODE_US + transposed_us(x, weight, groups, machine)
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
    us = _TIMES.get(kind, 1.0) * sum(_pass_us(shape) for shape in values if shape is not None)
    return _NODE_US + (us if kind in _ONE_THREAD else machine.shared(us))


def passes_us(shape: Sequence[int], machine: Machine) -> float:
    """Microseconds of two passes over a value, each of which reads and writes it."""
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


def transposed_us(x: Sequence[int], weight: Sequence[int], groups: int, machine: Machine) -> float:
    """Microseconds of a ConvTranspose in ONNX Runtime: products, then sums of their columns."""
    columns = prod(weight[1:]) * prod(x[2:])  # of a group
    products = machine.shared(2 * columns * (x[1] // groups) / (_GEMM * machine.flops_per_us))
    is_far = 4 * columns > machine.cache_bytes
    sums = columns * _COLUMN_CYCLES[len(x) == 4][is_far] / CYCLES_PER_US
    return x[0] * groups * (_GROUP_US + products + sums)
