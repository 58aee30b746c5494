"""Backward functions of operators other than filters and pooling; `reversal_of` a node.

"gradient" is the exact derivative; a docstring says where the other rules differ from it.

References
----------
Zeiler & Fergus 2014, arXiv:1311.2901 (deconvnet); Springenberg et al. 2015, arXiv:1412.6806
(guided); Simonyan et al. 2014, arXiv:1312.6034 (gradient).
"""

from collections.abc import Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tconv.deconvnet.rules.convolution_rules  # noqa: F401  (enters its rows)
from tconv.deconvnet.network.network import Node
from tconv.deconvnet.network.runtime import Values
from tconv.deconvnet.rules.box_laws import (
    entire_input,
    padded,
    resize_scales,
    resized,
    same_cells,
    same_cells_along_channels,
)
from tconv.deconvnet.rules.data_movement import transpose_of_copy, transpose_of_interpolation
from tconv.deconvnet.rules.derivatives import DERIVATIVES, Attributes, clip_limits
from tconv.deconvnet.rules.registry import (
    REVERSALS,
    RULES,
    InputMaps,
    NodeContext,
    Reversal,
    register,
)
from tconv.deconvnet.rules.sparse_map import SparseMap, cast_like, sum_to_shape
from tconv.errors import RuleError

__all__ = ["reversal_of"]

# ---- rectifiers: where the rules differ ----------------------------------------------------------


@register("Relu", "rectify", box=same_cells, records=("gradient", "guided"))
def _relu(context: NodeContext, r: SparseMap) -> InputMaps:
    """``R [x > 0]``; deconvnet ``max(R, 0)``; guided both."""
    back = r.array
    if context.rule != "gradient":
        back = np.maximum(back, 0)
    if context.rule != "deconvnet":
        back = back * (r.part_of(context.value(0)) > 0)
    return {0: r.with_array(back)}


@register("Clip", "rectify", box=same_cells, records=("gradient", "guided"))
def _clip(context: NodeContext, r: SparseMap) -> InputMaps:
    """As Relu, with ``[low < x < high]``; rules other than gradient need low = 0."""
    low, high = clip_limits(*_limits(context.node, context.values))
    back = r.array
    if context.rule != "gradient":
        back = np.maximum(back, 0)
    if context.rule != "deconvnet":
        x = r.part_of(context.value(0))
        back = back * ((low < x) & (x < high))
    return {0: r.with_array(back)}


def _activation(context: NodeContext, r: SparseMap) -> InputMaps:
    """``R f'(x)``."""
    x = r.part_of(context.value(0))
    operands = [r.part_of(context.value(n)) for n in range(1, len(context.node.inputs))]
    slope = DERIVATIVES[context.node.op](x, context.node.attributes, *operands)
    return {0: r.with_array(r.array * cast_like(slope, r))}


for _op in DERIVATIVES:
    register(
        _op, "derivative", box=same_cells, records=("gradient",), refused=("deconvnet", "guided")
    )(_activation)


# ---- normalisations ------------------------------------------------------------------------------


@register("BatchNormalization", "linear", box=same_cells, note="linear")
def _batch_normalization(context: NodeContext, r: SparseMap) -> InputMaps:
    """``R gamma / sqrt(variance + epsilon)``, by the constants of inference."""
    gamma, variance = cast_like(context.value(1), r), cast_like(context.value(4), r)
    factor = gamma / np.sqrt(variance + variance.dtype.type(context.get("epsilon", 1e-5)))
    return {0: r.with_array(r.array * factor.reshape(-1, *[1] * (r.array.ndim - 2)))}


@register(
    "LayerNormalization",
    "derivative",
    box=entire_input,
    records=("gradient",),
    refused=("deconvnet", "guided"),
)
def _layer_normalization(context: NodeContext, r: SparseMap) -> InputMaps:
    """R times the Jacobian of ``scale (x - mean) / deviation``, both of the last axes."""
    x = context.value(0).astype(np.float64)
    axes = tuple(range(context.get("axis", -1) % x.ndim, x.ndim))
    back = r.dense() * context.value(1).astype(np.float64)
    return {0: _through_normalization(x, back, axes, context.get("epsilon", 1e-5), r)}


@register(
    "InstanceNormalization",
    "derivative",
    box=entire_input,
    records=("gradient",),
    refused=("deconvnet", "guided"),
)
def _instance_normalization(context: NodeContext, r: SparseMap) -> InputMaps:
    """R times the Jacobian of ``scale (x - mean) / deviation``, both of each channel."""
    x = context.value(0).astype(np.float64)
    axes = tuple(range(2, x.ndim))
    back = r.dense() * context.value(1).astype(np.float64).reshape(-1, *[1] * len(axes))
    return {0: _through_normalization(x, back, axes, context.get("epsilon", 1e-5), r)}


def _through_normalization(
    x: NDArray[Any], back: NDArray[Any], axes: tuple[int, ...], epsilon: float, r: SparseMap
) -> SparseMap:
    """Apply to `back` the Jacobian of ``(x - mean) / sqrt(variance + epsilon)`` along axes."""
    centred = x - x.mean(axes, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axes, keepdims=True) + epsilon)
    normal = centred / deviation
    along = normal * (back * normal).mean(axes, keepdims=True)
    found = (back - back.mean(axes, keepdims=True) - along) / deviation
    return SparseMap.whole(cast_like(found, r))


@register("LRN", "contrast", box=same_cells, records=("gradient", "guided"))
def _lrn(context: NodeContext, r: SparseMap) -> InputMaps:
    """R times the Jacobian; deconvnet R itself, as it does not normalise contrast on the way."""
    if context.rule == "deconvnet":
        return {0: r}
    x = r.part_of(context.value(0)).astype(np.float64)
    size, beta = context.get("size"), context.get("beta", 0.75)
    alpha = context.get("alpha", 1e-4) / size
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    base = context.get("bias", 1.0) + alpha * _channel_sums(x * x, before, after)
    inner = _channel_sums(r.array * x * base ** (-beta - 1), after, before)
    found = r.array * base**-beta - 2 * alpha * beta * x * inner
    return {0: r.with_array(cast_like(found, r))}


def _channel_sums(x: NDArray[Any], before: int, after: int) -> NDArray[Any]:
    """Sum each channel with so many before it and so many after it."""
    padded = np.pad(x, ((0, 0), (before + 1, after), *[(0, 0)] * (x.ndim - 2)))
    total = padded.cumsum(axis=1)
    found: NDArray[Any] = total[:, before + after + 1 :] - total[:, : x.shape[1]]
    return found


# ---- sums and products ---------------------------------------------------------------------------


@register("Add Sub Sum Mean", "sum", box=same_cells)
def _add(context: NodeContext, r: SparseMap) -> InputMaps:
    """R to every term; Mean divides it, Sub negates it for its second term."""
    op, back = context.node.op, {}
    if op == "Mean":
        r = r.with_array(r.array / r.array.dtype.type(len(context.node.inputs)))
    for n in context.activation_inputs():
        term = r.with_array(-r.array) if op == "Sub" and n == 1 else r
        back[n] = sum_to_shape(term, context.shape(n))
    return back


@register("Neg", "sum", box=same_cells)
def _neg(context: NodeContext, r: SparseMap) -> InputMaps:
    """``-R``."""
    return {0: r.with_array(-r.array)}


@register("Mul", "product", box=same_cells, records=RULES)
def _mul(context: NodeContext, r: SparseMap) -> InputMaps:
    """R times the other factor; of two activations under the rule gradient only."""
    back = {}
    for n in context.activation_inputs():
        factor = cast_like(r.part_of(context.value(1 - n)), r)
        back[n] = sum_to_shape(r.with_array(r.array * factor), context.shape(n))
    return back


@register("Div", "product", box=same_cells, records=RULES)
def _div(context: NodeContext, r: SparseMap) -> InputMaps:
    """R through the divisor; an activation as the divisor under the rule gradient only."""
    b = cast_like(r.part_of(context.value(1)), r)
    back = {}
    if context.is_activation(0):
        back[0] = sum_to_shape(r.with_array(r.array / b), context.shape(0))
    if context.is_activation(1):
        a = cast_like(r.part_of(context.value(0)), r)
        back[1] = sum_to_shape(r.with_array(-r.array * a / (b * b)), context.shape(1))
    return back


@register("Softmax LogSoftmax", "derivative", box=entire_input, refused=RULES)
def _softmax(context: NodeContext, r: SparseMap) -> InputMaps:
    raise AssertionError("every rule refuses it")


# ---- copies --------------------------------------------------------------------------------------


@register("Identity Dropout Cast", "copy", box=same_cells)
def _same(context: NodeContext, r: SparseMap) -> InputMaps:
    """R as it is."""
    return {0: r}


@register("Concat Split", "copy", box=same_cells_along_channels)
@register("Pad", "copy", box=padded)
@register(
    "DepthToSpace Expand Flatten Gather Reshape Slice SpaceToDepth Squeeze Tile Transpose "
    "Unsqueeze",
    "copy",
    box=entire_input,
)
def _copy(context: NodeContext, r: SparseMap) -> InputMaps:
    """The sum of R over all copies of a cell."""
    node, count = context.node, len(context.node.inputs)
    known = [None if context.is_activation(n) else context.known(n) for n in range(count)]
    shapes = {n: context.shape(n) for n in context.activation_inputs()}
    output = node.outputs.index(context.output), len(node.outputs)
    return transpose_of_copy(node.op, node.attributes, known, shapes, output, r, context.opset)


@register("Resize Upsample", "interpolation", box=resized)
def _resize(context: NodeContext, r: SparseMap) -> InputMaps:
    """The transpose of the interpolation."""
    node, shape = context.node, context.shape(0)
    scales = resize_scales(context, len(shape))
    back = transpose_of_interpolation(node.op, node.attributes, scales, shape, r, context.opset)
    return {0: back}


# ---- a node's row --------------------------------------------------------------------------------


def reversal_of(node: Node, rule: str, activations: Set[str], constants: Values) -> Reversal:
    """Return the row of a node.

    Raises
    ------
    RuleError : there is none, or the rule is not defined for the node
    """
    found = REVERSALS.get(node.op)
    if found is None:
        raise RuleError(
            f"no rule says how {node.op} is reversed; choose a layer below it (see_layers shows "
            "which)."
        )
    if set(RULES) == set(found.refused):
        raise RuleError(
            f"{node.op} lies on the path, where every output depends on all; pick the logits, "
            "which go into it."
        )
    operator = node.op
    if node.op == "Clip":
        low, high = clip_limits(*_limits(node, constants))
        operator = node.op if low == 0 else f"Clip from {low:g} to {high:g}"
    if rule in found.refused or (rule != "gradient" and operator != node.op):
        raise RuleError(
            f"rule {rule!r} is defined for ReLU only, found {operator}; use rule='gradient', "
            "or a layer below it (see_layers shows which)."
        )
    several = sum(name in activations for name in node.inputs) > 1
    if several and found.word in ("filter", "product", "derivative"):
        if rule == "gradient" and found.word == "product":
            return found
        what = (
            "filters that depend on the image"
            if found.word == "filter"
            else "products of activations"
        )
        fix = "use rule='gradient', or " if found.word == "product" else ""
        raise RuleError(
            f"rule {rule!r} is not defined for {what}, found {node.op}; {fix}choose a layer below "
            "it (see_layers shows which)."
        )
    if node.op == "Div" and rule != "gradient" and node.inputs[1] in activations:
        raise RuleError(
            f"rule {rule!r} is not defined for division by an activation; use rule='gradient', "
            "or a layer below it (see_layers shows which)."
        )
    needs_first = found.word in ("filter", "linear", "derivative")
    if needs_first and node.op not in ("Gemm", "MatMul") and node.inputs[0] not in activations:
        raise RuleError(
            f"the parameters of {node.op} depend on the image, must be known; choose a layer below "
            "it (see_layers shows which)."
        )
    return found


def _limits(node: Node, values: Values) -> tuple[dict[int, NDArray[Any]], Attributes]:
    """Return the operands of Clip by their places, and its attributes."""
    given = {n: name for n, name in enumerate(node.inputs) if n and name}
    return {n: values[name] for n, name in given.items() if name in values}, node.attributes
