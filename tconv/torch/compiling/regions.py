"""Regions of a compiled graph: connected operators that a program computes, or PyTorch."""

from collections import Counter
from collections.abc import Sequence
from operator import getitem as _getitem
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner, Partition
from torch.fx.passes.operator_support import OperatorSupportBase

from tconv.graph import Program, Programs, UnknownOperator
from tconv.torch.compiling.cost_model import CALL_US, graph_us
from tconv.torch.compiling.float64_layers import Float64Layer, Float64Layers
from tconv.torch.compiling.front_end import RegionGraph, region_graph, translates
from tconv.torch.compiling.static_part import State, States
from tconv.torch.compiling.translation import tensor_type
from tconv.torch.interop import as_array
from tconv.torch.openmp import torch_threads

__all__ = ["Forecast", "Region", "fuse_regions", "operator_counts"]

_MOST_CHOICES = 256  # of a region and a state, one for each set of sizes
_LAYERS = ("convolution.default", "contract.default")


class Forecast(NamedTuple):
    """Predicted microseconds of a region by PyTorch and by a program; None if it has none: why."""

    pytorch_us: float
    tconv_us: float | None
    why: str = ""
    fault: str = ""  # the name of the node that no program has
    steps: int = 0
    memory_bytes: int = 0

    @property
    def is_worth(self) -> bool:
        """Whether a program is faster."""
        return self.tconv_us is not None and self.tconv_us < self.pytorch_us

    @property
    def best_us(self) -> float:
        """The less of both."""
        return self.pytorch_us if self.tconv_us is None else min(self.pytorch_us, self.tconv_us)


class Kept(NamedTuple):
    """How many sets of sizes a region computes by programs, and bytes of its packed weights."""

    programs: int
    packed_bytes: int


class Region(nn.Module):
    """A region: for each set of sizes a program computes it if that is faster, else PyTorch.

    Its operands are the state, tensors, and integers.

    Parameters
    ----------
    original : the region as PyTorch computes it
    operands : of each of its inputs, "tensor", "number", or its place among the static values
    """

    def __init__(self, original: GraphModule, operands: Sequence[str | int]) -> None:
        super().__init__()
        self.original, self._operands = original, tuple(operands)
        names = [node.name for node in original.graph.find_nodes(op="placeholder")]
        self._numbers = [n for n, kind in zip(names, operands, strict=True) if kind == "number"]
        pairs = zip(names, operands, strict=True)
        self._constants = {n: place for n, place in pairs if isinstance(place, int)}
        self._tensor_count = self._operands.count("tensor")
        (output,) = original.graph.find_nodes(op="output")
        self._is_single = not isinstance(output.args[0], (tuple, list))

    def forward(self, state: State, *operands: Any) -> Any:
        """Compute the region."""
        tensors, numbers = self.parted(operands)
        program = self._program(state, tensors, numbers)
        if program is None:
            return self.by_pytorch(state, tensors, numbers)
        inputs = [as_array(each if each.is_contiguous() else each.contiguous()) for each in tensors]
        found = [_empty(shape, tensors[0].dtype) for shape in program.output_shapes]
        with torch_threads(torch.get_num_threads()):
            program(inputs, [as_array(each) for each in found])
        return found[0] if self._is_single else tuple(found)

    def forecast(self, state: State, tensors: Sequence[Tensor], numbers: Sequence[int]) -> Forecast:
        """Predict the times of a call with these operands."""
        try:
            program = self._program_of(state, tensors, numbers)
        except UnknownOperator as why:
            return Forecast(0.0, None, str(why), why.node)
        made, _ = self._programs(state)
        us = graph_us(made.graph, program.shapes, torch.get_num_threads())
        expected_us = program.expected_us + CALL_US
        return Forecast(us, expected_us, "", "", len(program.steps), program.block_bytes)

    def operators(self) -> dict[str, int]:
        """PyTorch's operators that it takes the place of, with how many there are of each."""
        return operator_counts(self.original)

    def kept(self, states: States) -> Kept:
        """What there is for all sets of parameters."""
        taken, packed_bytes = set[Any](), 0
        for state in states:
            kept = dict(state.kept)
            taken |= {key for key, is_taken in kept.get(self, {}).items() if is_taken}
            packed_bytes += sum(
                made[1].packed_bytes
                for key, made in kept.items()
                if isinstance(key, tuple) and key[0] is self
            )
        return Kept(len(taken), packed_bytes)

    def _program(
        self, state: State, tensors: Sequence[Tensor], numbers: Sequence[int]
    ) -> Program | Float64Layer | None:
        """The program of a call with these operands; None if PyTorch is to compute it."""
        key = tuple([each.shape for each in tensors]), tuple(numbers), torch.get_num_threads()
        choices = state.kept.setdefault(self, {})
        is_taken = choices.get(key)
        if is_taken is None:
            if len(choices) >= _MOST_CHOICES:
                choices.clear()
            is_taken = choices[key] = self.forecast(state, tensors, numbers).is_worth
        return self._program_of(state, tensors, numbers) if is_taken else None

    def _program_of(
        self, state: State, tensors: Sequence[Tensor], numbers: Sequence[int]
    ) -> Program | Float64Layer:
        made, programs = self._programs(state)
        shapes = tuple([tuple(each.shape) for each in tensors])
        named = dict(zip(self._numbers, numbers, strict=True))
        return programs.program(shapes, made.sizes_of(named))

    def _programs(self, state: State) -> tuple[RegionGraph, Programs | Float64Layers]:
        key = self, torch.get_num_threads()
        found: tuple[RegionGraph, Programs | Float64Layers] | None = state.kept.get(key)
        if found is None:
            with state.lock:
                found = state.kept.get(key)
                if found is None:
                    found = state.kept[key] = self._make_programs(state, key[1])
        return found

    def _make_programs(
        self, state: State, threads: int
    ) -> tuple[RegionGraph, Programs | Float64Layers]:
        arrays = {name: as_array(state.values[place]) for name, place in self._constants.items()}
        made = region_graph(self.original, arrays, self._numbers)
        is_double = any(each.dtype == "float64" for each in made.graph.inputs)
        return made, (Float64Layers if is_double else Programs)(made.graph, threads)

    def parted(self, operands: Sequence[Any]) -> tuple[Sequence[Tensor], Sequence[int]]:
        """The tensors and the integers of the operands after the state."""
        return operands[: self._tensor_count], operands[self._tensor_count :]

    def by_pytorch(self, state: State, tensors: Sequence[Tensor], numbers: Sequence[int]) -> Any:
        """Compute the region by PyTorch."""
        of_kind = {"tensor": iter(tensors), "number": iter(numbers)}
        operands = [
            state.values[kind] if isinstance(kind, int) else next(of_kind[kind])
            for kind in self._operands
        ]
        return self.original(*operands)


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor on the CPU, whatever the default device is."""
    return torch.empty(shape, dtype=dtype, device="cpu")


# ---- finding them --------------------------------------------------------------------------------


class _Support(OperatorSupportBase):
    """Which nodes may be in a region."""

    def __init__(self, excluded: set[str], static: dict[FxNode, int]) -> None:
        self._excluded, self._static = excluded, static

    def is_node_supported(self, submodules: Any, node: FxNode) -> bool:
        """Whether a node may be in a region."""
        if node in self._static or node.name in self._excluded or not translates(node):
            return False
        if _is_double(node):
            operands = map(tensor_type, node.all_input_nodes)
            return _is_layer(node) and all(each is torch.float64 for each in operands)
        if node.target is _getitem:
            return self.is_node_supported(submodules, node.args[0])  # type: ignore[arg-type]
        picked = [user for user in node.users if user.target is _getitem]
        if picked:
            is_split = "split" in str(node.target)
            if any(user.name in self._excluded for user in picked) or len(picked) < len(node.users):
                return False
            if not is_split and any(user.args[1] != 0 for user in picked):
                return False
        results = picked or [node]
        is_float = all(tensor_type(each) is torch.float32 for each in results)
        return is_float and all(map(self._is_operand, node.all_input_nodes))

    def _is_operand(self, node: FxNode) -> bool:
        value = node.meta.get("val")
        is_tuple = isinstance(value, (tuple, list))
        return (
            node in self._static
            or tensor_type(node) is torch.float32
            or is_tuple
            or isinstance(value, (int, torch.SymInt))
        )


def fuse_regions(module: GraphModule, excluded: set[str], static: dict[FxNode, int]) -> None:
    """Let each region of a graph be one node, which calls a module.

    A region that gives other strides than contiguous ones ends before the node that has them.
    """
    support = _Support(excluded, static)
    partitioner = CapabilityBasedPartitioner(
        module, support, allows_single_node_partition=True, skip_horizontal_fusion=True
    )
    while True:
        proposed = partitioner.propose_partitions()
        partitions = [part for each in proposed if _has_layer(each.nodes) for part in _parts(each)]
        strided = {
            node.name
            for each in partitions
            for node in each.nodes
            if not set(node.users).issubset(each.nodes) and not _is_contiguous(node)
        }
        if not strided:
            break
        excluded.update(strided)
    partitioner.fuse_partitions(partitions, "region_")


def _has_layer(nodes: Any) -> bool:
    return any(map(_is_layer, nodes))


def _is_layer(node: FxNode) -> bool:
    return str(node.target).partition(".")[2] in _LAYERS


def _is_double(node: FxNode) -> bool:
    return tensor_type(node) is torch.float64


def _parts(partition: Partition) -> list[Partition]:
    """A partition as it is, or the layers of float64, each by itself."""
    nodes = list(partition.nodes)
    return [Partition(nodes=[each]) for each in nodes] if _is_double(nodes[0]) else [partition]


def operator_counts(module: GraphModule) -> dict[str, int]:
    """PyTorch's operators in a graph by name, with how many there are of each."""
    names = [
        str(node.target).split(".")[1]
        for node in module.graph.nodes
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
    ]
    return dict(Counter(names).most_common())


def _is_contiguous(node: FxNode) -> bool:
    """Whether what a node gives is contiguous, as far as its strides say."""
    value = node.meta.get("val")
    each = value if isinstance(value, (tuple, list)) else [value]
    return all(part.is_contiguous() for part in each if isinstance(part, torch.Tensor))
