"""Cost model of graphs: predicted times of PyTorch's operators, in the scale of programs."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tconv.graph import Graph, Node
from tconv.torch.cost_model import Processor, layer_us, pass_us, processor

__all__ = ["CALL_US", "graph_us", "operator_us"]

CALL_US = 20.0  # of a call of a region beyond its program
_OPERATOR_US, _VIEW_US = 3.0, 1.0  # overhead of operators by kind
_VIEWS = frozenset(
    {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Slice", "Split", "Expand", "Gather", "Shape"}
    | {"Identity"}
)
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


def graph_us(graph: Graph, shapes: Mapping[str, Sequence[int]], threads: int) -> float:
    """Predict PyTorch's microseconds of a graph, operator by operator.

    `shapes` has those of its values; one that is missing was folded into the layer before it, and
    has the shape of what was made of it.
    """
    item_bytes = max(np.dtype(each.dtype).itemsize for each in graph.inputs)
    here, known = processor(threads, item_bytes), dict(shapes)
    for node in reversed(graph.nodes):
        y = known.get(node.outputs[0])
        if y is not None and node.inputs:
            known.setdefault(node.inputs[0], y)
    known.update((name, array.shape) for name, array in graph.constants.items())
    return sum(_node_us(node, known, here) for node in graph.nodes)


def _node_us(node: Node, shapes: Mapping[str, Sequence[int]], here: Processor) -> float:
    kind, y = node.operator, shapes.get(node.outputs[0])
    if kind in _VIEWS or y is None:
        return _VIEW_US
    x = shapes.get(node.reads(0), y)
    if kind in ("Conv", "ConvTranspose"):
        weight, groups = shapes[node.reads(1)], node.argument("group", 1)
        return layer_us(kind == "ConvTranspose", x, weight, y, groups, here)
    if kind == "MatMul":
        us = 2 * prod(y) * x[-1] / (_GEMM_SHARE * here.flops_per_us)
        return _OPERATOR_US + here.shared(us)
    elements = sum(prod(shapes.get(n, ())) for n in (*node.inputs, *node.outputs) if n)
    return _OPERATOR_US + here.shared(_PASSES.get(kind, 1.0) * here.pass_us(elements))


def operator_us(
    target: Callable[..., Any], args: Any, kwargs: Any, result: Any, threads: int
) -> float:
    """Predict the microseconds of one of PyTorch's operators, by its operands and its result."""
    here = processor(threads)
    if not isinstance(target, torch._ops.OpOverload) or target.is_view:
        return _VIEW_US
    tensors = [each for each in _leaves([args, result]) if isinstance(each, Tensor)]
    us = pass_us(sum(each.nbytes for each in tensors))
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
