"""List of a network's layers: receptive field of each, or the reason why it has no projection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from tconv.deconvnet.default_layer import activated_convolutions
from tconv.deconvnet.network.network import Network
from tconv.deconvnet.rules.backward import BackwardPass
from tconv.deconvnet.rules.receptive_field import receptive_field
from tconv.deconvnet.rules.registry import RULES
from tconv.errors import ParameterError, RuleError
from tconv.geometry.arguments import integer_of
from tconv.messages import show
from tconv.tables import Column, Table, Tabular

__all__ = ["LayerRow", "Layers", "find_layer", "find_rule", "list_layers"]

_LONGEST_NAME = 1000  # characters; longer names are not compared with those of layers
_FAR = 64  # units over which a jump is measured; after ConvTranspose it is a fraction


@dataclass(frozen=True)
class LayerRow:
    """A layer: one value of the network.

    ``field`` is the size of a unit's receptive field, ``jump`` the distance between the fields of
    neighbours, in pixels per axis; both are None if the field is the whole image. ``reason`` says
    why the rule has no projection, if it has none.
    """

    index: int
    name: str
    op: str
    shape: tuple[int, ...] | None
    field: tuple[int, ...] | None
    jump: tuple[float, ...] | None
    reason: str = ""


@dataclass(frozen=True)
class Layers(Tabular):
    """All layers of a network under one rule; prints itself as a table.

    ``default`` is the layer that `see` shows unless it is told another one. ``supposed`` is the
    size of the image for which shapes stand, where the network takes any and none was given.
    """

    model: str
    rule: str
    rows: tuple[LayerRow, ...]
    default: str | None = None
    supposed: tuple[int, ...] | None = None

    def table(self) -> Table:
        """Return the table."""
        columns = (
            Column("index", right=True),
            Column("layer", folds=True),
            Column("op"),
            Column("shape"),
            Column("sees", right=True),
            Column("jump", right=True),
            Column("rule " + self.rule, folds=True),
        )
        rows = tuple(
            (
                str(row.index),
                row.name,
                row.op,
                "?" if row.shape is None else _by(row.shape),
                "all" if row.field is None else _by(row.field),
                "" if row.jump is None else _by(row.jump),
                row.reason or "ok",
            )
            for row in self.rows
        )
        fine = sum(not row.reason for row in self.rows)
        layers = "layer" if len(rows) == 1 else "layers"
        footer = f"{len(rows)} {layers}, {fine} that rule {self.rule} can look at"
        if self.default is not None:
            footer += f"\ndefault layer: {self.default}"
        if self.supposed is not None:
            size = "x".join(map(str, self.supposed))
            footer += f"\nshapes are those for an image of {size}, as the network takes any size"
        good = tuple(not row.reason for row in self.rows)
        return Table(columns, rows, footer, len(columns) - 1, good)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain values."""
        rows = [{**vars(row), "reason": row.reason or None} for row in self.rows]
        return {
            "model": self.model,
            "rule": self.rule,
            "default": self.default,
            "supposed_size": self.supposed,
            "layers": rows,
        }


def list_layers(
    network: Network, rule: str | None, supposed: tuple[int, ...] | None = None
) -> Layers:
    """List every value that depends on the image, by default for the rule that `see` chooses."""
    default = next(iter(activated_convolutions(network)), None)
    if default is not None:
        default = find_layer(network, None, rule)
    if rule is None:
        rule = RULES[0] if default is None else find_rule(network, default, None)[0]
    names = [n for node in network.nodes for n in node.outputs if n in network.activations]
    rows = []
    for index, name in enumerate(names):
        shape, node = network.shapes.get(name), network.producers[name]
        field = jump = None
        if shape is not None and len(shape) > 2:
            field, jump = _field(network, name, len(shape) - 2, network.shapes)
        rows.append(
            LayerRow(index, name, node.op, shape, field, jump, _reason(network, name, rule))
        )
    return Layers(network.name, rule, tuple(rows), default, supposed)


def _field(
    network: Network, name: str, rank: int, shapes: Mapping[str, Any]
) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    try:
        here = receptive_field(network, name, ((0, 0),) * rank, shapes)
        there = receptive_field(network, name, ((_FAR, _FAR),) * rank, shapes)
    except KeyError:  # a size that only a run gives
        return None, None
    if here is None or there is None:
        return None, None
    size = tuple(last - first + 1 for first, last in here)
    return size, tuple((q[0] - p[0]) / _FAR for p, q in zip(here, there, strict=True))


def _reason(network: Network, name: str, rule: str) -> str:
    shape = network.shapes.get(name)
    if shape is not None and (len(shape) < 2 or shape[0] != 1):
        return "no channels"
    try:
        BackwardPass(network, name, rule)
    except RuleError as error:
        return str(error).partition("; ")[0]
    return ""


def find_layer(network: Network, layer: Any, rule: str | None) -> str:
    """Find a layer by its index, its name or a part of its name; None is the default layer.

    The default is the activation of the last convolution; of a rule that the user chose, the last
    one that it can project.

    Raises
    ------
    ParameterError : there is no such layer, or there are several
    """
    names = [n for node in network.nodes for n in node.outputs if n in network.activations]
    if layer is None:
        return _default(network, rule)
    index = integer_of(layer)
    if index is not None:
        if 0 <= index < len(names):
            return names[index]
        raise ParameterError(
            f"layer={show(index)} must be from 0 to {len(names) - 1}; see_layers shows them."
        )
    if not isinstance(layer, str):
        raise ParameterError(
            f"layer={show(layer)} must be an index or a name of a layer; pass one of these."
        )
    if layer in names:
        return str(layer)
    if len(layer) < _LONGEST_NAME:
        if layer.isdecimal() and int(layer) < len(names):
            return names[int(layer)]
        matches = [name for name in names if layer in name] if layer else []
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(map(repr, matches[:5])) + (", …" if len(matches) > 5 else "")
            raise ParameterError(
                f"layer={show(layer)} must name one layer, but {len(matches)} have it in their "
                f"names: {listed}; write one of them in full."
            )
    close = get_close_matches(layer[:_LONGEST_NAME], names, 1)
    fix = f"did you mean {close[0]!r}?" if close else "see_layers shows them."
    raise ParameterError(f"layer={show(layer)} must be a layer of the network; {fix}")


def find_rule(network: Network, layer: str, rule: str | None) -> tuple[str, str]:
    """Return a rule for a layer and why it is that one; None is deconvnet where that is defined.

    Where it is not, the rule is gradient, which is defined for every activation. A rule that the
    user chose stays, and then there is nothing to explain.
    """
    if rule is not None:
        return rule, ""
    why = _reason(network, layer, "deconvnet")
    return ("gradient", f"rule gradient, as {why}") if why else ("deconvnet", "")


def _default(network: Network, rule: str | None) -> str:
    """Return the activation of the last convolution that the rule, or some rule, can project."""
    first = None
    for name in activated_convolutions(network):
        first = first or name
        if not _reason(network, name, rule or "gradient"):  # which goes wherever deconvnet does
            return name
    if first is None:
        raise ParameterError(
            "layer must be named, as the network has no convolution, whose activation is shown by "
            "default; choose one (see_layers shows them)."
        )
    return first  # for the error that says why the rule does not fit


def _by(sizes: Sequence[float]) -> str:
    return "×".join(f"{size:g}" for size in sizes)
