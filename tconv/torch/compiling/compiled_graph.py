"""A compiled graph: regions that programs compute, and PyTorch's operators around them."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Interpreter
from torch.fx import Node as FxNode

from tconv.system.fork_lock import ForkLock
from tconv.torch.compiling.cost_model import operator_us
from tconv.torch.compiling.regions import Forecast, Region, fuse_regions, operator_counts
from tconv.torch.compiling.static_part import State, States, StaticPart, split_static

__all__ = ["CompiledGraph", "Outlook"]

_MOST_TRIES = 12  # to find regions, each without some nodes more
_LEAST_GAIN = 1.03


class Outlook(NamedTuple):
    """What the first call of a graph found.

    Attributes
    ----------
    forecasts : of each region
    other_us : predicted microseconds of PyTorch's operators around them
    check_us : predicted microseconds of checking the parameters for changes
    excluded : why nodes that might have been in a region are in none, by their names
    """

    forecasts: tuple[Forecast, ...]
    other_us: float
    check_us: float
    excluded: dict[str, str]

    @property
    def pytorch_us(self) -> float:
        """Predicted microseconds of the graph by PyTorch alone."""
        return self.other_us + sum(each.pytorch_us for each in self.forecasts)

    @property
    def tconv_us(self) -> float:
        """Predicted microseconds of the graph with the regions that are worth it."""
        return self.other_us + self.check_us + sum(each.best_us for each in self.forecasts)

    @property
    def is_worth(self) -> bool:
        """Whether the whole graph gains 3 %."""
        return self.pytorch_us > _LEAST_GAIN * self.tconv_us


class CompiledGraph:
    """A functional graph of ATen, called with its inputs in a list.

    Regions are found at the first call, when sizes and weights are known.

    Parameters
    ----------
    module : the graph
    parameters : numbers of the inputs that are parameters or buffers
    is_frozen : whether changes of parameters are detected without reading them

    Attributes
    ----------
    states : of the parameters that have arrived
    outlook : None before the first call
    """

    def __init__(self, module: GraphModule, parameters: Sequence[int], is_frozen: bool) -> None:
        self._original, self._part = module, split_static(module, parameters)
        self.states = States(self._part, is_frozen)
        self.outlook: Outlook | None = None
        self._lock = ForkLock()
        self._main: GraphModule | None = None
        self._has_many_sizes = False

    @property
    def regions(self) -> list[Region]:
        """The regions, in order."""
        if self._main is None:
            return []
        modules = dict(self._main.named_modules())
        calls = self._main.graph.find_nodes(op="call_module")
        return [modules[str(node.target)] for node in calls]  # type: ignore[misc]

    def other_operators(self) -> dict[str, int]:
        """PyTorch's operators around the regions, with how many there are of each."""
        if self._main is None:
            return {}
        return operator_counts(self._main)

    @property
    def why_left(self) -> str:
        """Why nothing of this is used, "" if it is.

        A graph for many sizes may gain with others than the first.
        """
        if self.states.is_refused:
            return "a parameter is shared with other processes, or not dense in memory"
        outlook = self.outlook
        if outlook is None or outlook.is_worth or self._has_many_sizes:
            return ""
        return "nothing in it is predicted to gain 3 %"

    def __call__(self, arguments: list[Any]) -> Any:
        """Compute the graph; the list is emptied, so that its tensors can be freed."""
        given = list(arguments)
        arguments.clear()
        state = self.states.find(given)
        if state is None:
            return self._original(*given)
        main = self._main or self._first_main(state, given)
        return self._original(*given) if self.why_left else main(state, *given)

    def _first_main(self, state: State, arguments: Sequence[Any]) -> GraphModule:
        with self._lock:
            if self._main is None:
                self._main = self._with_regions(state, arguments)
            return self._main

    def _with_regions(self, state: State, arguments: Sequence[Any]) -> GraphModule:
        """The graph with regions that have programs for the sizes of the first call."""
        excluded: dict[str, str] = {}
        for _ in range(_MOST_TRIES):
            main = _fused(self._original, self._part, set(excluded))
            trial = _Trial(main)
            trial.run(state, *arguments)
            faults = {each.fault: each.why for each in trial.forecasts if each.fault}
            if not faults:
                break
            excluded |= faults
        self._has_many_sizes = bool(trial.forecasts) and any(
            isinstance(node.meta.get("val"), torch.SymInt)
            for node in self._original.graph.find_nodes(op="placeholder")
        )
        check_us = self.states.check_us(state)
        self.outlook = Outlook(tuple(trial.forecasts), trial.other_us, check_us, excluded)
        return main


class _Trial(Interpreter):
    """A run by PyTorch that predicts the times of regions and of what is around them."""

    def __init__(self, main: GraphModule) -> None:
        super().__init__(main)
        self.forecasts: list[Forecast] = []
        self.other_us = 0.0

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Run the graph; what it would write to its inputs is left out, and draws are undone."""
        with torch.no_grad(), torch.random.fork_rng([]):
            return super().run(*arguments, **options)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Predict a region, and let PyTorch compute it."""
        region, (state, *operands) = self.fetch_attr(target), args
        tensors, numbers = region.parted(operands)
        self.forecasts.append(region.forecast(state, tensors, numbers))
        return region.by_pytorch(state, tensors, numbers)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Predict an operator while PyTorch computes it."""
        if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable:
            return args[0]
        found = super().call_function(target, args, kwargs)
        if target is not _static_value:
            self.other_us += operator_us(target, args, kwargs, found, torch.get_num_threads())
        return found


# ---- the graph with regions ----------------------------------------------------------------------


def _fused(original: GraphModule, part: StaticPart, excluded: set[str]) -> GraphModule:
    """A copy of a graph whose regions are modules, and whose first input is the state."""
    main = GraphModule(original, deepcopy(original.graph))
    places = {node.name: place for node, place in part.places.items()}
    fuse_regions(main, excluded, _by_name(main, places))
    graph, static = main.graph, _by_name(main, places)  # fusing made a new graph
    with graph.inserting_before(next(iter(graph.nodes))):
        state = graph.placeholder("tconv_state")
    for node in graph.find_nodes(op="call_module"):
        _make_region(main, node, state, static)
    for node, place in static.items():
        if node.op != "placeholder":
            with graph.inserting_before(node):
                value = graph.call_function(_static_value, (state, place))
            node.replace_all_uses_with(value)
    graph.eliminate_dead_code()
    graph.lint()
    main.recompile()
    return main


def _by_name(module: GraphModule, places: dict[str, int]) -> dict[FxNode, int]:
    return {node: places[node.name] for node in module.graph.nodes if node.name in places}


def _static_value(state: State, place: int) -> torch.Tensor:
    return state.values[place]


def _make_region(main: GraphModule, node: FxNode, state: FxNode, static: dict[FxNode, int]) -> None:
    """Let a node call a region with the state, tensors and integers."""
    kinds, tensors, numbers = list[str | int](), list[Any](), list[Any]()
    for each in node.args:
        value = each.meta.get("val") if isinstance(each, FxNode) else each
        if isinstance(each, FxNode) and each in static:
            kinds.append(static[each])
        elif isinstance(value, torch.Tensor):
            kinds.append("tensor")
            tensors.append(each)
        else:
            kinds.append("number")
            numbers.append(each)
    original = main.get_submodule(str(node.target))
    assert isinstance(original, GraphModule)
    main.set_submodule(str(node.target), Region(original, kinds))
    node.args = (state, *tensors, *numbers)
