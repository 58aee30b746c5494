"""HOW A NODE IS REVERSED: one row for each operation of ONNX, under each of the three rules.

"gradient" is the exact derivative; where the others differ from it, the row says so.

References
----------
Zeiler & Fergus 2014, arXiv:1311.2901 (deconvnet); Springenberg et al. 2015, arXiv:1412.6806
(guided); Simonyan et al. 2014, arXiv:1312.6034 (gradient).
"""

from collections.abc import Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tconv.deconvnet.rules.convolution_rules  # noqa: F401  (enters the rows of filters and poolings)
from tconv.deconvnet.network.network import Node
from tconv.deconvnet.network.runtime import Values
from tconv.deconvnet.rules.data_movement import transpose_of_copy, transpose_of_interpolation
from tconv.deconvnet.rules.derivatives import DERIVATIVES, Attributes, clip_limits
from tconv.deconvnet.rules.registry import (
    REVERSALS,
    RULES,
    InputMaps,
    NodeContext,
    Reversal,
    cast_like,
    row,
    sum_to_shape,
)
from tconv.deconvnet.rules.sparse_map import SparseMap
from tconv.errors import RuleError

__all__ = ["reversal_of"]

# ---- rectifiers: where the rules differ ----------------------------------------------------------


@row("Relu", "rectify", records=("gradient", "guided"))
def _relu(step: NodeContext, r: SparseMap) -> InputMaps:
    """``R [x > 0]``; deconvnet ``max(R, 0)``; guided both."""
    back = r.array
    if step.rule != "gradient":
        back = np.maximum(back, 0)
    if step.rule != "deconvnet":
        back = back * (r.part_of(step.value(0)) > 0)
    return {0: r.with_array(back)}


@row("Clip", "rectify", records=("gradient", "guided"))
def _clip(step: NodeContext, r: SparseMap) -> InputMaps:
    """As Relu, with ``[low < x < high]``; the rules other than gradient want low = 0."""
    low, high = clip_limits(*_limits(step.node, step.values))
    back = r.array
    if step.rule != "gradient":
        back = np.maximum(back, 0)
    if step.rule != "deconvnet":
        x = r.part_of(step.value(0))
        back = back * ((low < x) & (x < high))
    return {0: r.with_array(back)}


def _activation(step: NodeContext, r: SparseMap) -> InputMaps:
    """``R f'(x)``."""
    x = r.part_of(step.value(0))
    operands = [r.part_of(step.value(n)) for n in range(1, len(step.node.inputs))]
    slope = DERIVATIVES[step.node.op](x, step.node.attributes, *operands)
    return {0: r.with_array(r.array * cast_like(slope, r))}


for _op in DERIVATIVES:
    row(_op, "derivative", records=("gradient",), refused=("deconvnet", "guided"))(_activation)


# ---- normalisations ------------------------------------------------------------------------------


@row("BatchNormalization", "linear", note="linear")
def _batch_normalization(step: NodeContext, r: SparseMap) -> InputMaps:
    """``R gamma / sqrt(variance + epsilon)``, all of them known."""
    gamma, variance = cast_like(step.value(1), r), cast_like(step.value(4), r)
    factor = gamma / np.sqrt(variance + variance.dtype.type(step.get("epsilon", 1e-5)))
    return {0: r.with_array(r.array * factor.reshape(-1, *[1] * (r.array.ndim - 2)))}


@row("LRN", "contrast", records=("gradient", "guided"))
def _lrn(step: NodeContext, r: SparseMap) -> InputMaps:
    """The Jacobian; deconvnet R as it is, as contrast is not normalised on the way down."""
    if step.rule == "deconvnet":
        return {0: r}
    x = r.part_of(step.value(0)).astype(np.float64)
    size, beta = step.get("size"), step.get("beta", 0.75)
    alpha = step.get("alpha", 1e-4) / size
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    base = step.get("bias", 1.0) + alpha * _channel_sums(x * x, before, after)
    inner = _channel_sums(r.array * x * base ** (-beta - 1), after, before)
    found = r.array * base**-beta - 2 * alpha * beta * x * inner
    return {0: r.with_array(cast_like(found, r))}


def _channel_sums(x: NDArray[Any], before: int, after: int) -> NDArray[Any]:
    """Sum of the channels from so many before to so many after each."""
    padded = np.pad(x, ((0, 0), (before + 1, after), *[(0, 0)] * (x.ndim - 2)))
    total = padded.cumsum(axis=1)
    found: NDArray[Any] = total[:, before + after + 1 :] - total[:, : x.shape[1]]
    return found


# ---- sums and products ---------------------------------------------------------------------------


@row("Add Sub Sum Mean", "sum")
def _add(step: NodeContext, r: SparseMap) -> InputMaps:
    """R to every term."""
    share = r
    if step.node.op == "Mean":
        share = r.with_array(r.array / r.array.dtype.type(len(step.node.inputs)))
    minus = r.with_array(-r.array) if step.node.op == "Sub" else r
    return {
        n: sum_to_shape(minus if step.node.op == "Sub" and n == 1 else share, step.shape(n))
        for n in step.activation_inputs()
    }


@row("Neg", "sum")
def _neg(step: NodeContext, r: SparseMap) -> InputMaps:
    """``-R``."""
    return {0: r.with_array(-r.array)}


@row("Mul", "product", records=RULES)
def _mul(step: NodeContext, r: SparseMap) -> InputMaps:
    """R times the other factor; of two signals under the rule gradient only."""
    return {
        n: sum_to_shape(
            r.with_array(r.array * cast_like(r.part_of(step.value(1 - n)), r)), step.shape(n)
        )
        for n in step.activation_inputs()
    }


@row("Div", "product", records=RULES)
def _div(step: NodeContext, r: SparseMap) -> InputMaps:
    """R through the divisor; if that is a signal, under the rule gradient only."""
    b = cast_like(r.part_of(step.value(1)), r)
    back = {}
    if step.is_activation(0):
        back[0] = sum_to_shape(r.with_array(r.array / b), step.shape(0))
    if step.is_activation(1):
        a = cast_like(r.part_of(step.value(0)), r)
        back[1] = sum_to_shape(r.with_array(-r.array * a / (b * b)), step.shape(1))
    return back


@row("Softmax LogSoftmax", "derivative", refused=RULES)
def _softmax(step: NodeContext, r: SparseMap) -> InputMaps:
    raise AssertionError


# ---- copies --------------------------------------------------------------------------------------


@row("Identity Dropout Cast", "copy")
def _same(step: NodeContext, r: SparseMap) -> InputMaps:
    """R as it is."""
    return {0: r}


@row(
    "Concat DepthToSpace Expand Flatten Gather Pad Reshape Slice SpaceToDepth Split Squeeze Tile "
    "Transpose Unsqueeze",
    "copy",
)
def _copy(step: NodeContext, r: SparseMap) -> InputMaps:
    """What a cell was copied to comes back to it, and adds."""
    known = [
        step.value(n) if step.has(n) and not step.is_activation(n) else None
        for n in range(len(step.node.inputs))
    ]
    shapes = {n: step.shape(n) for n in step.activation_inputs()}
    output = step.node.outputs.index(step.output), len(step.node.outputs)
    node = step.node
    return transpose_of_copy(node.op, node.attributes, known, shapes, output, r, step.opset)


@row("Resize Upsample", "interpolation")
def _resize(step: NodeContext, r: SparseMap) -> InputMaps:
    """The transpose of the interpolation."""
    node, shape = step.node, step.shape(0)
    n = 1 if node.op == "Upsample" or step.opset < 11 else 2
    scales = step.value(n).tolist() if step.has(n) else step.get("scales")
    if axes := step.get("axes"):
        given = dict(zip((axis % len(shape) for axis in axes), scales or (), strict=False))
        scales = [given.get(axis, 1.0) for axis in range(len(shape))] if scales else None
    back = transpose_of_interpolation(
        node.op, node.attributes, scales or None, shape, r, step.opset
    )
    return {0: back}


# ---- which row -----------------------------------------------------------------------------------


def reversal_of(node: Node, rule: str, activations: Set[str], constants: Values) -> Reversal:
    """The row of a node.

    Raises
    ------
    RuleError : there is none, or it does not hold under this rule
    """
    found_row, activation_inputs = (
        REVERSALS.get(node.op),
        [n for n in node.inputs if n in activations],
    )
    if found_row is None:
        raise RuleError(
            f"no rule says how {node.op} is reversed; choose a layer below it (--list shows which)."
        )
    if set(RULES) == set(found_row.refused):
        raise RuleError(
            f"{node.op} lies on the path, where every output depends on all; pick the logits, "
            "which go into it."
        )
    found = node.op
    if node.op == "Clip":
        low, high = clip_limits(*_limits(node, constants))
        found = node.op if low == 0 else f"Clip from {low:g} to {high:g}"
    if rule in found_row.refused or (rule != "gradient" and found != node.op):
        raise RuleError(
            f"rule {rule!r} is defined for ReLU only, found {found}; use rule='gradient' "
            "(--rule gradient), or a layer below it (--list shows which)."
        )
    if len(activation_inputs) > 1 and found_row.word in ("filter", "product", "derivative"):
        if rule == "gradient" and found_row.word == "product":
            return found_row
        what = (
            "filters that depend on the image"
            if found_row.word == "filter"
            else "products of signals"
        )
        fix = "use rule='gradient' (--rule gradient), or " if found_row.word == "product" else ""
        raise RuleError(
            f"rule {rule!r} is not defined for {what}, found {node.op}; {fix}choose a layer below "
            "it (--list shows which)."
        )
    if node.op == "Div" and rule != "gradient" and node.inputs[1] in activations:
        raise RuleError(
            f"rule {rule!r} is not defined for division by a signal; use rule='gradient' "
            "(--rule gradient), or a layer below it (--list shows which)."
        )
    if (
        found_row.word in ("filter", "linear", "derivative")
        and node.inputs[0] not in activations
        and (node.op not in ("Gemm", "MatMul"))
    ):
        raise RuleError(
            f"the parameters of {node.op} depend on the image, must be known; choose a layer below "
            "it (--list shows which)."
        )
    return found_row


def _limits(node: Node, values: Values) -> tuple[dict[int, NDArray[Any]], Attributes]:
    """The operands of Clip by their places, and its attributes."""
    given = {n: name for n, name in enumerate(node.inputs) if n and name}
    return {n: values[name] for n, name in given.items() if name in values}, node.attributes
