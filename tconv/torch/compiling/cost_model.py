"""Cost model of PyTorch on a CPU: predicted times of operators, in the scale of the engine's plans.

The constants were fitted to PyTorch 2.13 with oneDNN on AVX-512 (Zen 5), with one and two threads:
190 convolutions of `bench/convolutions.py`. Predictions are below the measured times where they are
wrong: by a tenth for dense convolutions, by a third for depthwise ones.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tconv.engine import CYCLES_PER_US, host_target
from tconv.graph import Graph, Node

__all__ = ["CALL_US", "graph_us", "operator_us"]

CALL_US = 20.0  # of a call of a region beyond its program
_OPERATOR_US, _VIEW_US, _LAYER_US = 3.0, 1.0, 8.0  # overhead of operators by kind
_VIEWS = frozenset(
    {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Slice", "Split", "Expand", "Gather", "Shape"}
    | {"Identity"}
)
_BYTES_PER_CYCLE = 14.0
_SHARED_US = 20.0  # work that is worth a thread
_SHARES = {1: 1.2, 2: 1.2, 3: 0.5}  # of the peak, by the number of axes
_TRANSPOSED_SHARE, _COLUMN_CYCLES = 0.6, 2.0
_FEW = 16.0  # products of a sum, or output channels: a layer of that few is slower
_DEPTHWISE_CYCLES = 0.1  # for each product
_GEMM_SHARE = 0.8
_PASSES = {  # times of a pass that reads and writes
    "AveragePool": 3.0,
    "Cos": 4.0,
    "Elu": 2.0,
    "Erf": 2.0,
    "Exp": 1.5,
    "Gelu": 2.5,
    "InstanceNormalization": 2.0,
    "LayerNormalization": 2.0,
    "Log": 2.0,
    "MaxPool": 3.0,
    "Mish": 6.0,
    "Sigmoid": 1.5,
    "Sin": 4.0,
    "Softmax": 2.0,
    "Softplus": 4.0,
    "Swish": 1.5,
    "Tanh": 2.5,
}


class _Processor(NamedTuple):
    flops_per_us: float  # of float32 and one core, at most
    threads: int

    def shared(self, us: float) -> float:
        """Time of work that as many threads share as it is worth."""
        return us / min(self.threads, max(1.0, us / _SHARED_US))


@cache
def _processor(threads: int) -> _Processor:
    here = host_target()
    lanes = here.vector_bits // 32 / here.steps
    flops = lanes * (4 if here.has_fma else 2) * CYCLES_PER_US
    return _Processor(flops, max(1, min(threads, here.cores)))


def graph_us(graph: Graph, shapes: Mapping[str, Sequence[int]], threads: int) -> float:
    """Predict PyTorch's microseconds of a graph, operator by operator.

    `shapes` has those of its values; one that is missing was folded into the layer before it, and
    has the shape of what was made of it.
    """
    here, known, total = _processor(threads), dict(shapes), 0.0
    for node in reversed(graph.nodes):
        y = known.get(node.outputs[0])
        if y is None:
            continue
        for name in node.inputs[:1]:
            known.setdefault(name, y)
    for name, array in graph.constants.items():
        known[name] = array.shape
    for node in graph.nodes:
        total += _node_us(node, known, here)
    return total


def _node_us(node: Node, shapes: Mapping[str, Sequence[int]], here: _Processor) -> float:
    kind, y = node.operator, shapes.get(node.outputs[0])
    if kind in _VIEWS or y is None:
        return _VIEW_US
    x = shapes.get(node.reads(0), y)
    if kind in ("Conv", "ConvTranspose"):
        weight, groups = shapes[node.reads(1)], node.argument("group", 1)
        us = _layer_us(kind, x, weight, y, groups, here)
        return _LAYER_US + here.shared(us) + _pass_us(prod(weight))
    if kind == "MatMul":
        us = 2 * prod(y) * x[-1] / (_GEMM_SHARE * here.flops_per_us)
        return _OPERATOR_US + here.shared(us)
    read = sum(prod(shapes.get(name, ())) for name in node.inputs if name)
    written = sum(prod(shapes.get(name, ())) for name in node.outputs)
    passes = _PASSES.get(kind, 1.0)
    return _OPERATOR_US + here.shared(passes * _pass_us(read + written))


def _layer_us(
    kind: str,
    x: Sequence[int],
    weight: Sequence[int],
    y: Sequence[int],
    groups: int,
    here: _Processor,
) -> float:
    """Microseconds of a convolution on one thread."""
    taps, cells = prod(weight[2:]), prod(y[2:])
    moved = _pass_us(prod(x) + prod(y))
    if kind == "ConvTranspose":
        columns = x[0] * prod(x[2:]) * prod(weight[1:]) * groups
        depth = weight[0] // groups
        fill = depth / (depth + _FEW)
        products = 2 * columns * depth / (_TRANSPOSED_SHARE * fill * here.flops_per_us)
        return products + columns * _COLUMN_CYCLES / CYCLES_PER_US + moved
    if weight[1] == 1 and groups > 1:
        return _DEPTHWISE_CYCLES * prod(y) * taps / CYCLES_PER_US + moved
    depth, outputs = weight[1] * taps, weight[0] // groups
    share = _SHARES.get(len(x) - 2, 1.2) * depth / (depth + _FEW) * min(1.0, outputs / _FEW)
    return 2 * y[0] * weight[0] * cells * depth / (share * here.flops_per_us) + moved


def _pass_us(elements: float) -> float:
    """Microseconds of reading or writing so many elements on one thread."""
    return 4 * elements / _BYTES_PER_CYCLE / CYCLES_PER_US


def operator_us(
    target: Callable[..., Any], args: Any, kwargs: Any, result: Any, threads: int
) -> float:
    """Predict the microseconds of one of PyTorch's operators, by its operands and its result."""
    here = _processor(threads)
    if not isinstance(target, torch._ops.OpOverload) or target.is_view:
        return _VIEW_US
    tensors = [each for each in _leaves([args, result]) if isinstance(each, Tensor)]
    us = sum(each.nbytes for each in tensors) / _BYTES_PER_CYCLE / CYCLES_PER_US
    count = _flop_counts().get(target.overloadpacket)
    if count is not None:
        us += count(*args, **kwargs, out_val=result) / (_GEMM_SHARE * here.flops_per_us)
    return _OPERATOR_US + here.shared(us)


@cache
def _flop_counts() -> Mapping[Any, Callable[..., int]]:
    from torch.utils.flop_counter import flop_registry

    return flop_registry


def _leaves(values: Any) -> list[Any]:
    if isinstance(values, (tuple, list)):
        return [leaf for each in values for leaf in _leaves(each)]
    return [values]
