"""Streams of PyTorch's modules: exported for two lengths, of which one graph for all is made."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Graph as FxGraph
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from tconv.engine import host_target
from tconv.errors import DTypeError, ParameterError, ShapeError, UnsupportedError
from tconv.geometry.arguments import as_integer, as_threads
from tconv.graph import UnknownOperator
from tconv.messages import show
from tconv.streams.network_runner import NetworkRunner
from tconv.streams.stream import Stream
from tconv.system.memory import check_room
from tconv.torch.compiling.front_end import region_graph, translates
from tconv.torch.compiling.translation import TRANSLATORS

__all__ = ["TorchStream", "stream"]

_LONGER = 2  # times the example, for the second export
_END = 2**63 - 1


class TorchStream(Stream):
    """A `Stream` whose arrays are tensors."""

    def push(self, *x: Any, active: Any = None) -> Any:
        """Take tensors of input; return the results that they complete, as `Stream.push` does."""
        return _as_tensors(super().push(*map(_as_array, x), active=active))

    def flush(self, active: Any = None) -> Any:
        """Say that the input has ended; return the results that are left."""
        return _as_tensors(super().flush(active))


def _as_array(x: Any) -> Any:
    """An array that shares the memory of a tensor; other values as they are."""
    if not isinstance(x, Tensor):
        return x
    _check_tensor("x", x)
    return x.detach().resolve_neg().numpy()


def _check_tensor(name: str, x: Tensor) -> None:
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.layout != torch.strided:
        raise DTypeError(
            f"{name} is of {x.dtype}, {x.layout} on {x.device}, must be of torch.float32, strided "
            "on the CPU; convert it."
        )


def _as_tensors(found: Any) -> Any:
    if isinstance(found, list):
        return [torch.from_numpy(each) for each in found]
    return torch.from_numpy(found)


def stream(
    module: nn.Module,
    example: Any,
    *,
    axis: int = -1,
    threads: int | None = None,
    frames: int | None = None,
) -> TorchStream:
    """Return a stream of a module along time, which computes as its input arrives.

    The module is exported by torch.export, in eval mode, for the example and for one of twice its
    length; sizes that differ between the two are those that follow from the length. Weights are
    those of now. Joined, the results equal those of the whole input but for rounding.

    Parameters
    ----------
    module : torch.nn.Module of convolutions, transposed ones and elementwise operators along time
    example : tensor of float32, or a tuple of tensors, as the module takes them; the first axis is
        the batch of streams. Long enough for the module.
    axis : of time in each of them
    threads : int; None for all cores
    frames : int or None; with it all pushes are of that length and return as many results each
        time, the first ``latency`` of which are zeros

    Raises
    ------
    UnsupportedError : the module cannot be exported, or a node needs more of time than its
        neighbourhood, or is one that tconv has no program for; its name, and why
    DTypeError, ShapeError, ParameterError : the example is none of the above

    References
    ----------
    torch.export, PyTorch 2.13.

    >>> module = torch.nn.Sequential(torch.nn.ConvTranspose1d(2, 1, 4, 2, 1), torch.nn.Tanh())
    >>> x = torch.randn(1, 2, 9)
    >>> s = stream(module, x)
    >>> y = torch.cat([s.push(x[:, :, :5]), s.push(x[:, :, 5:]), s.flush()], 2)
    >>> s.latency, bool(torch.allclose(y, module(x), atol=1e-6))
    (1, True)
    """
    if not isinstance(module, nn.Module):
        raise ParameterError(f"module={show(module)} must be a torch.nn.Module; pass one.")
    given = (example,) if isinstance(example, Tensor) else example
    if not isinstance(given, list | tuple) or not given:
        raise ParameterError(
            f"example={show(example)} must be a tensor or a tuple of tensors; pass what the module "
            "takes."
        )
    given = tuple(given)
    axes = _checked(given, axis)
    longer = tuple(
        torch.cat([each] * _LONGER, along) for each, along in zip(given, axes, strict=True)
    )
    was_training = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        first, second = _exported(module, given), _exported(module, longer)
    finally:
        for each, training in was_training:
            each.training = training
    _let_lengths_vary(first, second)
    graph_module, constants = first
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and not translates(node):
            raise UnsupportedError(
                f"node {node.name!r} of the module, {node.target}, is none of a program; stream "
                "the part of the module before it."
            )
    try:
        graph = region_graph(graph_module, constants, []).graph
    except UnknownOperator as error:
        raise UnsupportedError(
            f"the module cannot be computed piece by piece: {error}, which tconv has no program "
            "for; stream the part of the module that it has."
        ) from None
    names = [each.name for each in graph.inputs]
    if len(names) != len(given):
        raise UnsupportedError("the module does not use all of its inputs; leave the others out.")
    shapes = {
        name: tuple(None if n == along else size for n, size in enumerate(each.shape))
        for name, each, along in zip(names, given, axes, strict=True)
    }
    threads = as_threads(threads) or host_target().threads
    runner = NetworkRunner(graph, dict(zip(names, axes, strict=True)), shapes, threads)
    return TorchStream(runner, frames)


def _checked(given: Sequence[Any], axis: Any) -> list[int]:
    """The axis of time of every input."""
    found = []
    for each in given:
        if not isinstance(each, Tensor):
            raise ParameterError(f"example has {show(each)}, must be tensors; pass them.")
        _check_tensor("example", each)
        along = as_integer(axis, "axis", -each.ndim)
        along += each.ndim if along < 0 else 0
        if not 0 < along < each.ndim or not each.numel():
            raise ShapeError(
                f"example has shape {tuple(each.shape)}, must not be empty, and axis={axis} must "
                "be one of its axes after the first, which is the batch; pass another axis, or "
                "x[None]."
            )
        check_room("an example of twice the length", _LONGER * each.numel() * each.element_size())
        found.append(along)
    return found


_Exported = tuple[GraphModule, dict[str, NDArray[Any]]]
"""A graph of functional operators, and the arrays of those of its inputs that are constants."""


def _exported(module: nn.Module, given: tuple[Tensor, ...]) -> _Exported:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, about its own code and of the weight norm
            kept = {
                operator: function
                for operator, function in torch.export.default_decompositions().items()
                if str(operator).partition(".")[2] not in TRANSLATORS
            }
            program = torch.export.export(module, given).run_decompositions(kept)
    except Exception as error:  # of whatever kind the module's own code raises
        reason = str(error).strip().split("\n")[0]
        raise UnsupportedError(
            f"torch.export cannot export the module: {reason}; stream a part of it whose forward "
            "has tensors alone as arguments."
        ) from error
    signature = program.graph_signature
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    held: dict[str, Tensor] = {**program.state_dict, **program.constants}
    parameters = {name: held[full].detach() for name, full in named.items()}
    graph, constants = _without_parameters(program.graph_module, parameters)
    # Sizes that followed from numbers that the module computes are plain numbers now.
    inputs = [each for each in graph.graph.nodes if each.op == "placeholder"]
    own = iter(given)
    FakeTensorProp(graph).propagate(
        *[torch.from_numpy(constants[each.name]) if each.name in constants else next(own)
          for each in inputs]
    )  # fmt: skip
    return graph, constants


def _let_lengths_vary(first: _Exported, second: _Exported) -> None:
    """Write sizes that follow from the length in the first graph so that they fit any length."""
    nodes, others = list(first[0].graph.nodes), list(second[0].graph.nodes)
    same = zip(first[1].values(), second[1].values(), strict=False)
    if not all(a is b or np.array_equal(a, b, equal_nan=True) for a, b in same):
        raise UnsupportedError(
            "the module computes with numbers that follow from the length of its input; stream a "
            "part of it that does not."
        )
    if [str(node.target) for node in nodes] != [str(node.target) for node in others]:
        raise UnsupportedError(
            "the module computes an input of another length by other operators; stream a part of "
            "it that does not ask for the length."
        )
    for node, other in zip(nodes, others, strict=True):
        if node.op != "call_function":
            continue
        args = list(node.args)
        for n, (mine, theirs) in enumerate(zip(node.args, other.args, strict=True)):
            if _plain(mine) != _plain(theirs):
                args[n] = _varying(node, other, n)
        node.args = tuple(args)


def _plain(value: Any) -> Any:
    """A value of an argument, where all nodes count as the same."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, FxNode) else value


def _varying(node: FxNode, other: FxNode, place: int) -> Any:
    """An argument that differs between the two lengths, in a form that holds for both."""
    name = str(node.target).partition(".")[2]
    mine: Any = node.args[place]
    theirs: Any = other.args[place]
    if name in ("view.default", "reshape.default", "_unsafe_view.default") and place == 1:
        sizes = [-1 if a != b else a for a, b in zip(mine, theirs, strict=True)]
        if sizes.count(-1) == 1:
            return sizes
    if name == "slice.Tensor" and place == 3:
        ends = [_from_end(each) for each in (node, other)]
        if ends[0] == ends[1]:
            return ends[0] or _END
    raise UnsupportedError(
        f"node {node.name!r} of the module, {name}, has {show(mine)} for the example and "
        f"{show(theirs)} for one of twice its length, which is no rule for any length; stream the "
        "part of the module before it."
    )


def _from_end(node: FxNode) -> int:
    """The end of a slice, counted from the end of the axis."""
    given: tuple[Any, ...] = node.args
    x, dim, _, end, *_ = given
    assert isinstance(x, FxNode)
    shape: tuple[int, ...] = x.meta["val"].shape
    return min(end - shape[dim], 0)


def _without_parameters(
    module: GraphModule, parameters: Mapping[str, Tensor]
) -> tuple[GraphModule, dict[str, NDArray[Any]]]:
    """The graph of what depends on the input, and the arrays of all else that it reads."""
    known: dict[FxNode, Any] = {}
    made, kept = FxGraph(), dict[FxNode, FxNode]()
    constants = dict[str, NDArray[Any]]()

    def taken(node: FxNode) -> Any:
        value = known.get(node)
        if node in known and not isinstance(value, Tensor):
            return value  # a number that the module computes of its own
        if node not in kept:
            kept[node] = made.placeholder(f"weight_{len(constants)}")
            kept[node].meta["val"] = value
            constants[kept[node].name] = np.ascontiguousarray(known[node].detach().numpy())
        return kept[node]

    module.graph.eliminate_dead_code()
    given = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node in given:
        if node.name in parameters:
            known[node] = parameters[node.name]
        else:
            kept[node] = made.node_copy(node)
    for node in module.graph.nodes:
        if node.op == "call_function":
            if all(each in known for each in node.all_input_nodes):
                args = torch.fx.node.map_arg(node.args, known.__getitem__)
                keywords = torch.fx.node.map_arg(node.kwargs, known.__getitem__)
                with torch.no_grad():
                    known[node] = node.target(*args, **keywords)
                continue
            kept[node] = made.node_copy(node, taken)
        elif node.op == "output":
            made.output(torch.fx.node.map_arg(node.args[0], taken))
        elif node.op != "placeholder":
            raise UnsupportedError(f"the module has a node {node.op} {node.target}, no operator.")
    return GraphModule(module, made), constants
