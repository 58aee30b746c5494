"""Static part of a graph: what follows from parameters alone, computed once for each set of them.

Parameters and buffers are inputs of a compiled graph, and two modules of one class share a graph.
So what is made of them, packed weights included, belongs to the tensors that arrive. They are found
by the places of their elements, and taken only if the elements are still the same.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode
from torch.nn import Parameter

from tconv.system.fork_lock import ForkLock
from tconv.torch.cost_model import hash_us
from tconv.torch.module_weights.fingerprints import Fingerprint, count_optimiser_steps
from tconv.torch.openmp import torch_threads

__all__ = ["State", "States", "StaticPart", "split_static"]

_MOST_STATES = 4  # sets of parameters of one graph
_CHECK_US = 1.5  # for each parameter

_Places = tuple[int, ...]
_Item = TypeVar("_Item")


class StaticPart(NamedTuple):
    """What a graph computes of parameters alone.

    Attributes
    ----------
    parameters : numbers of the inputs that are parameters or buffers, but for those that it writes
    compute : function of the parameters that returns the other static values
    places : of each static node of the graph, parameters first, its number among all of these
    """

    parameters: tuple[int, ...]
    compute: Callable[..., Sequence[Tensor]]
    places: dict[FxNode, int]


def split_static(module: GraphModule, parameters: Sequence[int]) -> StaticPart:
    """Find the static part of a graph; the graph stays as it is.

    What the graph returns is never static: a caller may write to it.
    """
    graph = module.graph
    placeholders = graph.find_nodes(op="placeholder")
    # Statistics that a normalisation writes in training differ from call to call.
    parameters = [n for n in parameters if not any(map(_is_write, placeholders[n].users))]
    given = [placeholders[n] for n in parameters]
    static = set(given)
    for node in graph.nodes:
        is_static = node.op == "call_function" and static.issuperset(node.all_input_nodes)
        if is_static and _is_repeatable(node):
            static.add(node)
    _drop_sources_of_results(graph, static, set(given))
    computed = [
        node
        for node in graph.nodes
        if node in static and node.op == "call_function" and not static.issuperset(node.users)
    ]
    part, copies = Graph(), dict[FxNode, FxNode]()
    for node in given:
        copies[node] = part.placeholder(node.name)
    for node in graph.nodes:
        if node in static and node not in copies:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple([copies[node] for node in computed]))
    part.eliminate_dead_code()
    places = {node: n for n, node in enumerate([*given, *computed])}
    return StaticPart(tuple(parameters), GraphModule(module, part), places)


def _drop_sources_of_results(graph: Graph, static: set[FxNode], given: set[FxNode]) -> None:
    """Leave out what a result may share its memory with: views are computed with it."""
    for node in reversed(graph.nodes):
        if node in static and node not in given:
            for user in node.users:
                is_result = user.op == "output"
                if is_result or (user not in static and _may_be_view(user)):
                    static.discard(node)
                    break


def _may_be_view(node: FxNode) -> bool:
    """Whether a result of an operator may share the memory of an operand."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    return any(each.alias_info is not None for each in node.target._schema.returns)


def _is_write(node: FxNode) -> bool:
    """Whether a node writes to an operand."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _is_repeatable(node: FxNode) -> bool:
    """Whether a node gives the same each time, and changes nothing."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return bool(node.all_input_nodes)  # getitem, of what is repeatable
    return not _is_write(node) and torch.Tag.nondeterministic_seeded not in target.tags


class State:
    """A set of parameters: their fingerprints, all static values, and what regions keep of them.

    Attributes
    ----------
    values : the parameters, then what is computed of them
    seen : fingerprints of the parameters
    kept : what regions keep for these values, by whatever they choose
    lock : held while something is made for `kept`
    """

    def __init__(self, values: Sequence[Tensor], seen: Sequence[Fingerprint]) -> None:
        self.values, self.seen = tuple(values), tuple(seen)
        self.kept: dict[Any, Any] = {}
        self.lock = ForkLock()


class States:
    """The states of a graph, by the places of the parameters' elements.

    Parameters that have changed may change with every call, and a state of them takes longer than a
    call. So they get one when they come a second time.

    Attributes
    ----------
    count : how many states were made
    is_refused : whether parameters came that no state can have: elements that are not in memory, or
        that other processes write
    """

    def __init__(self, part: StaticPart, is_frozen: bool) -> None:
        self._part, self._is_frozen = part, is_frozen
        self._states: dict[_Places, State] = {}
        self._changed: dict[_Places, Sequence[Fingerprint]] = {}  # that came once
        self._lock = ForkLock()
        self.count, self.is_refused = 0, False
        if is_frozen:
            count_optimiser_steps()

    def find(self, arguments: Sequence[Any]) -> State | None:
        """Return the state of the parameters among the arguments of a call.

        None if there is none, and PyTorch is to compute the call.
        """
        parameters = [arguments[n] for n in self._part.parameters]
        places = tuple([each.data_ptr() for each in parameters])
        threads = torch.get_num_threads()
        with torch_threads(threads):
            state = self._states.get(places)
            if state is not None and _are_same(state.seen, parameters, threads):
                return state
            with self._lock:
                return self._make(parameters, places, threads)

    def _make(self, parameters: Sequence[Tensor], places: _Places, threads: int) -> State | None:
        before = self._states.pop(places, None)
        if before is not None and _are_same(before.seen, parameters, threads):
            self._states[places] = before  # of another thread, meanwhile
            return before
        seen = self._changed.pop(places, None)
        has_changed = before is not None or seen is not None
        del before  # its memory is freed first
        if seen is None or not _are_same(seen, parameters, threads):
            seen = self._fingerprints(parameters, threads)
            if seen is None:
                self.is_refused = True
                return None
            if has_changed:
                _put(self._changed, places, seen)
                return None
        with torch.no_grad():
            values = [*parameters, *self._part.compute(*parameters)]
        state = State(values, seen)
        _put(self._states, places, state)
        self.count += 1
        return state

    def _fingerprints(
        self, parameters: Sequence[Tensor], threads: int
    ) -> Sequence[Fingerprint] | None:
        """Take fingerprints, before anything is made of the parameters.

        What another thread writes meanwhile makes the next call differ. Batch normalisation writes
        its buffers without a new version, so that no buffer is frozen.
        """
        if any(each.is_shared() for each in parameters):
            return None
        found = [
            Fingerprint.of(each, threads, self._is_frozen and isinstance(each, Parameter))
            for each in parameters
        ]
        whole = [each for each in found if each is not None]
        return whole if len(whole) == len(found) else None

    def check_us(self, state: State) -> float:
        """Predicted microseconds of finding a state."""
        parameters = state.values[: len(self._part.parameters)]
        read = [each for each in parameters if not self._is_frozen or type(each) is not Parameter]
        threads = torch.get_num_threads()
        return _CHECK_US * len(parameters) + hash_us(sum(each.nbytes for each in read), threads)

    def __iter__(self) -> Iterator[State]:
        return iter(list(self._states.values()))

    def places(self) -> set[int]:
        """The places of the elements of all parameters that have arrived."""
        return {place for places in list(self._states) for place in places}


def _are_same(seen: Sequence[Fingerprint], parameters: Sequence[Tensor], threads: int) -> bool:
    """Whether parameters are unchanged."""
    return all(a.matches(b, threads) for a, b in zip(seen, parameters, strict=True))


def _put(table: dict[_Places, _Item], places: _Places, item: _Item) -> None:
    """Keep something; of the sets of parameters the newest are kept."""
    while len(table) >= _MOST_STATES:
        table.pop(next(iter(table)))
    table[places] = item
