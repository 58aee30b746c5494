"""Backward pass from a layer to the image: the nodes between them, reversed one by one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tconv.deconvnet.network.interruption import check_interrupted
from tconv.deconvnet.network.network import Network, Node
from tconv.deconvnet.network.runtime import Values
from tconv.deconvnet.rules.registry import NodeContext, Reversal
from tconv.deconvnet.rules.rules import reversal_of
from tconv.deconvnet.rules.sparse_map import SparseMap, add_maps
from tconv.errors import RuleError
from tconv.system.fork_lock import cached_property

__all__ = ["BackwardPass", "ReversalSummary"]


@dataclass(frozen=True)
class ReversalSummary:
    """Reversed operators with their kinds and counts, in the order of the network.

    >>> print(ReversalSummary((("Conv", "filter", 2), ("Relu", "rectify", 2)), ()))
    reversed 4 nodes: Conv×2 filter, Relu×2 rectify
    """

    entries: tuple[tuple[str, str, int], ...]
    outside_the_paper: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = sum(count for *_, count in self.entries)
        listed = ", ".join(f"{op}×{count} {word}" for op, word, count in self.entries)
        nodes = "node" if total == 1 else "nodes"
        line = f"reversed {total} {nodes}: {listed}" if total else "reversed 0 nodes"
        outside = ", ".join(self.outside_the_paper)
        return f"{line} · outside the paper: {outside}" if outside else line


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """Backward pass from a layer of a network to its image under one rule.

    Raises
    ------
    RuleError : a node between them has no reversal under this rule
    """

    network: Network
    layer: str
    rule: str

    def __post_init__(self) -> None:
        self._rows  # noqa: B018  which raises

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes between the image and the layer, in the order of the network."""
        return self.network.between(self.layer)

    @cached_property
    def recorded(self) -> tuple[str, ...]:
        """Names of the values that a forward pass must record for `project`."""
        network, names = self.network, []
        for node in self.nodes:
            needed = self.rule in self._rows[node.index].records
            for name in filter(None, node.inputs):
                is_activation, has_shape = name in network.activations, name in network.shapes
                if name not in network.constants and (needed or not is_activation or not has_shape):
                    names.append(name)
        return tuple(dict.fromkeys([*names, self.layer]))

    @cached_property
    def ledger(self) -> ReversalSummary:
        """Summary of the reversed nodes."""
        counts: Counter[tuple[str, str]] = Counter()
        notes: Counter[tuple[str, str]] = Counter()
        for node in self.nodes:
            row = self._rows[node.index]
            counts[node.op, _word(node, row)] += 1
            if row.note and self.rule != "gradient":
                notes[node.op, row.note] += 1
        return ReversalSummary(
            tuple((op, word, count) for (op, word), count in counts.items()),
            tuple(f"{op}×{count} {note}" for (op, note), count in notes.items()),
        )

    def project(self, seed: SparseMap, values: Values, to: str | None = None) -> SparseMap:
        """Project a map of the layer back to the image, or to the value `to` between them.

        ``values`` are the recorded values of the image's forward pass.
        """
        network = self.network
        shapes = {**network.shapes, **{name: each.shape for name, each in values.items()}}
        known = {**network.constants, **values}
        maps: dict[str, SparseMap] = {self.layer: seed}
        target = network.input if to is None else to
        for node in reversed(self.nodes):
            check_interrupted()
            if target in node.outputs:
                break
            backward = self._rows[node.index].backward
            for output in node.outputs:
                if output not in maps:
                    continue
                r = maps.pop(output)
                context = NodeContext(
                    node, known, shapes, network.activations, network.opset, output, self.rule
                )
                with self._naming(node):
                    found = backward(context, r)
                for n, each in found.items():
                    name = node.inputs[n]
                    maps[name] = add_maps(maps[name], each) if name in maps else each
        shape = network.input_shape if to is None else shapes[to]
        zeros = SparseMap.whole(np.zeros(shape, seed.array.dtype))
        return maps.get(target, zeros)

    @cached_property
    def _rows(self) -> dict[int, Reversal]:
        """The row of each node, by the node's index."""
        found, network = {}, self.network
        for node in self.nodes:
            with self._naming(node):
                found[node.index] = reversal_of(
                    node, self.rule, network.activations, network.constants
                )
        return found

    @contextmanager
    def _naming(self, node: Node) -> Iterator[None]:
        """Add to an error which node it is about."""
        try:
            yield
        except RuleError as error:
            error.add_note(
                f'at: {self.network.name}, {node}, between layer "{self.layer}" and the image'
            )
            raise


def _word(node: Node, row: Reversal) -> str:
    """The kind of an operator; of max pooling with its window."""
    if node.op != "MaxPool":
        return row.word
    kernel = node.attributes["kernel_shape"]
    strides = node.attributes.get("strides") or [1] * len(kernel)
    size = "×".join(map(str, kernel))
    by = "×".join(map(str, strides)) if len(set(strides)) > 1 else str(strides[0])
    overlaps = any(s < k for s, k in zip(strides, kernel, strict=True))
    return f"{row.word} ({size}/{by}{' overlapping, added' if overlaps else ''})"
