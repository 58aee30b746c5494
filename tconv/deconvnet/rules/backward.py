"""WHAT GOES BACK TO THE IMAGE: the nodes between a layer and the image, reversed one by one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tconv.deconvnet.network.network import Network, Node
from tconv.deconvnet.network.runtime import Values
from tconv.deconvnet.rules.registry import NodeContext, Reversal
from tconv.deconvnet.rules.rules import reversal_of
from tconv.deconvnet.rules.sparse_map import SparseMap, add_maps
from tconv.errors import RuleError
from tconv.system.fork_lock import cached_property

__all__ = ["ReversalSummary", "BackwardPass"]


@dataclass(frozen=True)
class ReversalSummary:
    """What was reversed, and how: (operation, word, how many) in the order of the network.

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
    """The way from a layer back to the image under one rule.

    Raises
    ------
    RuleError : a node on it has no reversal under this rule
    """

    network: Network
    layer: str
    rule: str

    def __post_init__(self) -> None:
        self._rows  # noqa: B018  which raises

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """What lies between, in the order of the network."""
        return self.network.between(self.layer)

    @cached_property
    def recorded(self) -> tuple[str, ...]:
        """The values that must be known of a run."""
        network, names = self.network, []
        for node in self.nodes:
            needed = self.rule in self._rows[node.index].records
            for name in filter(None, node.inputs):
                is_signal, has_shape = name in network.activations, name in network.shapes
                if name not in network.constants and (needed or not is_signal or not has_shape):
                    names.append(name)
        return tuple(dict.fromkeys([*names, self.layer]))

    @cached_property
    def ledger(self) -> ReversalSummary:
        """What is reversed, and how."""
        counts: Counter[tuple[str, str]] = Counter()
        notes: Counter[tuple[str, str]] = Counter()
        for node in self.nodes:
            row = self._rows[node.index]
            counts[node.op, self._word(node, row)] += 1
            if row.note and self.rule != "gradient":
                notes[node.op, row.note] += 1
        return ReversalSummary(
            tuple((op, word, count) for (op, word), count in counts.items()),
            tuple(f"{op}×{count} {note}" for (op, note), count in notes.items()),
        )

    def back(self, seed: SparseMap, values: Values) -> SparseMap:
        """Carry a signal of the layer back to the image.

        ``values`` are those that `recorded` names.
        """
        network = self.network
        shapes = {**network.shapes, **{name: each.shape for name, each in values.items()}}
        known = {**network.constants, **values}
        arrived: dict[str, SparseMap] = {self.layer: seed}
        for node in reversed(self.nodes):
            row = self._rows[node.index]
            for output in node.outputs:
                if output not in arrived:
                    continue
                r = arrived.pop(output)
                step = NodeContext(
                    node, self.rule, known, shapes, network.activations, network.opset, output
                )
                with self._place(node):
                    leaving = row.back(step, r)
                for n, signal in leaving.items():
                    name = node.inputs[n]
                    before = arrived.get(name)
                    arrived[name] = signal if before is None else add_maps(before, signal)
        shape = network.input_shape
        nothing = SparseMap.whole(np.zeros(shape, seed.array.dtype))
        return arrived.get(network.input, nothing)

    @cached_property
    def _rows(self) -> dict[int, Reversal]:
        """How each of the nodes is reversed."""
        found, network = {}, self.network
        for node in self.nodes:
            with self._place(node):
                found[node.index] = reversal_of(
                    node, self.rule, network.activations, network.constants
                )
        return found

    def _word(self, node: Node, row: Reversal) -> str:
        if node.op != "MaxPool":
            return row.word
        kernel = node.attributes["kernel_shape"]
        strides = node.attributes.get("strides") or [1] * len(kernel)
        size = "×".join(map(str, kernel))
        by = "×".join(map(str, strides)) if len(set(strides)) > 1 else str(strides[0])
        overlaps = any(s < k for s, k in zip(strides, kernel, strict=True))
        return f"{row.word} ({size}/{by}{' overlapping, add_maps' if overlaps else ''})"

    @contextmanager
    def _place(self, node: Node) -> Iterator[None]:
        """Let an error say which node it is about."""
        try:
            yield
        except RuleError as error:
            error.add_note(
                f'at: {self.network.name}, {node}, between layer "{self.layer}" and the image'
            )
            raise
