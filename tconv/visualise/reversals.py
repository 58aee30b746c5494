"""HOW A NODE IS REVERSED: one row for each operation of ONNX, under each of the three rules.

A row gets a step, which knows what its node read and was told, and the signal R that arrives at the
node's output. It gives the signals that leave at the node's inputs. "gradient" is the exact
derivative; where the others differ from it, the row says so.

References
----------
Zeiler & Fergus 2014, arXiv:1311.2901 (deconvnet); Springenberg et al. 2015, arXiv:1412.6806
(guided); Simonyan et al. 2014, arXiv:1312.6034 (gradient).
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.errors import RuleError
from tconv.ops import conv, conv_transpose
from tconv.switches import max_pool, max_unpool
from tconv.visualise.copying import copied_back, interpolated_back
from tconv.visualise.derivatives import DERIVATIVES, Attributes, clip_limits
from tconv.visualise.network import Node, Values
from tconv.visualise.signals import Signal, clipped
from tconv.visualise.windows import Interval, sliding_of, spread_of

__all__ = ["REVERSALS", "RULES", "Reversal", "Step", "reversal_of"]

RULES = ("deconvnet", "gradient", "guided")

Back = Mapping[int, Signal]
"""Which signal leaves at which input."""


@dataclass(frozen=True)
class Step:
    """One node to be reversed.

    ``values`` holds what it read that is known: constants, and the signals that `records` asks for.
    R arrives at ``output``.
    """

    node: Node
    rule: str
    values: Values
    shapes: Mapping[str, tuple[int, ...]]
    signals: frozenset[str]
    opset: int
    output: str

    def has(self, n: int) -> bool:
        """Whether input n is there."""
        return n < len(self.node.inputs) and bool(self.node.inputs[n])

    def value(self, n: int) -> NDArray[Any]:
        """What input n held."""
        return self.values[self.node.inputs[n]]

    def shape(self, n: int) -> tuple[int, ...]:
        """Shape of input n."""
        return self.shapes[self.node.inputs[n]]

    def carries(self, n: int) -> bool:
        """Whether input n is a signal."""
        return self.has(n) and self.node.inputs[n] in self.signals

    def carrying(self) -> list[int]:
        """The inputs that are signals."""
        return [n for n in range(len(self.node.inputs)) if self.carries(n)]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.node.attributes.get(name, default)


class Reversal(NamedTuple):
    """A row of the table.

    ``records`` names the rules under which the signals that the node read are needed; ``refused``
    those under which there is no answer.
    """

    back: Callable[[Step, Signal], Back]
    word: str
    records: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    note: str = ""


REVERSALS: dict[str, Reversal] = {}


def _row(
    ops: str,
    word: str,
    *,
    records: tuple[str, ...] = (),
    refused: tuple[str, ...] = (),
    note: str = "",
) -> Callable[[Callable[[Step, Signal], Back]], Callable[[Step, Signal], Back]]:
    """Enter a function into the table, for one operation or several."""

    def enter(back: Callable[[Step, Signal], Back]) -> Callable[[Step, Signal], Back]:
        REVERSALS.update((op, Reversal(back, word, records, refused, note)) for op in ops.split())
        return back

    return enter


# ---- filters: the same under every rule, and biases are dropped ----------------------------------


@_row("Conv", "filter")
def _conv(step: Step, r: Signal) -> Back:
    """``conv_transpose(R, W)``, cut to what lies on x."""
    weight, shape = _like(step.value(1), r), step.shape(0)
    axes = sliding_of(step.node.attributes, weight.shape[2:], shape[2:])
    reach = [axis.covers(box) for axis, box in zip(axes, r.box, strict=True)]
    inside = clipped(reach, shape[2:])
    x = conv_transpose(
        r.array,
        weight,
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=_cropping(reach, inside),
        groups=step.get("group", 1),
    )
    return {0: _at(x, inside, shape)}


@_row("ConvTranspose", "filter")
def _conv_transpose(step: Step, r: Signal) -> Back:
    """``conv(R, W)``, where its windows touch the signal."""
    weight, shape = _like(step.value(1), r), step.shape(0)
    axes = spread_of(step.node.attributes, shape, weight.shape)
    inside = clipped(
        [axis.reached_from(box) for axis, box in zip(axes, r.box, strict=True)], shape[2:]
    )
    if any(last < first for first, last in inside):  # the crop takes all
        return {0: Signal.whole(np.zeros(shape, r.array.dtype))}
    needed = [axis.covers(windows) for axis, windows in zip(axes, inside, strict=True)]
    around = tuple(
        (have[0] - want[0], want[1] - have[1]) for have, want in zip(r.box, needed, strict=True)
    )
    x = conv(
        r.array,
        weight,
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=around,
        groups=step.get("group", 1),
        input_size=tuple(last - first + 1 for first, last in inside),
    )
    return {0: _at(x, inside, shape)}


@_row("Gemm", "filter")
def _gemm(step: Step, r: Signal) -> Back:
    """``R Wᵀ``, for ``Y = alpha A' B' + beta C`` with primes where an operand is transposed."""
    n = 0 if step.carries(0) else 1
    back: dict[int, Signal] = {}
    if step.carries(n):
        other = _like(step.value(1 - n), r)
        other = other if step.get("transB" if n == 0 else "transA", 0) else other.T
        found = r.array @ other if n == 0 else other @ r.array
        found = found * r.array.dtype.type(step.get("alpha", 1.0))
        back[n] = Signal.whole(found.T if step.get("transA" if n == 0 else "transB", 0) else found)
    if step.carries(2):
        scaled = r.array * r.array.dtype.type(step.get("beta", 1.0))
        back[2] = Signal.whole(_unbroadcast(scaled, step.shape(2)))
    return back


@_row("MatMul", "filter")
def _mat_mul(step: Step, r: Signal) -> Back:
    """``R Wᵀ`` where the second operand is known, ``Wᵀ R`` where the first is."""
    n = 0 if step.carries(0) else 1
    full, other = r.dense(), _like(step.value(1 - n), r)
    other = np.swapaxes(other, -1, -2) if other.ndim > 1 else other
    found = full @ other if n == 0 else other @ full
    return {n: Signal.whole(_unbroadcast(found, step.shape(n)))}


# ---- rectifiers: where the rules differ ----------------------------------------------------------


@_row("Relu", "rectify", records=("gradient", "guided"))
def _relu(step: Step, r: Signal) -> Back:
    """``R [x > 0]``; deconvnet ``max(R, 0)``; guided both."""
    back = r.array
    if step.rule != "gradient":
        back = np.maximum(back, 0)
    if step.rule != "deconvnet":
        back = back * (r.part_of(step.value(0)) > 0)
    return {0: r.with_array(back)}


@_row("Clip", "rectify", records=("gradient", "guided"))
def _clip(step: Step, r: Signal) -> Back:
    """As Relu, with ``[low < x < high]``; the rules other than gradient want low = 0."""
    low, high = clip_limits(*_limits(step.node, step.values))
    back = r.array
    if step.rule != "gradient":
        back = np.maximum(back, 0)
    if step.rule != "deconvnet":
        x = r.part_of(step.value(0))
        back = back * ((low < x) & (x < high))
    return {0: r.with_array(back)}


def _activation(step: Step, r: Signal) -> Back:
    """``R f'(x)``."""
    x = r.part_of(step.value(0))
    operands = [r.part_of(step.value(n)) for n in range(1, len(step.node.inputs))]
    slope = DERIVATIVES[step.node.op](x, step.node.attributes, *operands)
    return {0: r.with_array(r.array * _like(slope, r))}


for _op in DERIVATIVES:
    _row(_op, "derivative", records=("gradient",), refused=("deconvnet", "guided"))(_activation)


# ---- poolings ------------------------------------------------------------------------------------


@_row("MaxPool", "switches", records=RULES)
def _max_pool(step: Step, r: Signal) -> Back:
    """R goes where the largest was; windows that overlap add."""
    kernel, shape = tuple(step.get("kernel_shape")), step.shape(0)
    axes = sliding_of(step.node.attributes, kernel, shape[2:])
    reach = [axis.covers(box) for axis, box in zip(axes, r.box, strict=True)]
    inside = clipped(reach, shape[2:])
    around = _cropping(reach, inside)
    x = _at(step.value(0)[(..., *(slice(a, b + 1) for a, b in inside))], inside, shape).array
    x = np.pad(x, ((0, 0), (0, 0), *around), constant_values=-np.inf)
    stride = tuple(axis.stride for axis in axes)
    dilation = tuple(axis.dilation for axis in axes)
    _, switches = max_pool(x, kernel, stride, 0, dilation)
    back = max_unpool(r.array, switches, x.shape[2:])
    kept = tuple(slice(a, n - b) for (a, b), n in zip(around, back.shape[2:], strict=True))
    return {0: _at(np.ascontiguousarray(back[(..., *kept)]), inside, shape)}


@_row("GlobalMaxPool", "switches", records=RULES)
def _global_max_pool(step: Step, r: Signal) -> Back:
    """R goes where the largest was."""
    x = step.value(0)
    _, switches = max_pool(x, x.shape[2:])
    return {0: Signal.whole(max_unpool(r.dense(), switches, x.shape[2:]))}


@_row("AveragePool", "spread")
def _average_pool(step: Step, r: Signal) -> Back:
    """R is spread evenly over its window."""
    kernel, shape = tuple(step.get("kernel_shape")), step.shape(0)
    axes = sliding_of(step.node.attributes, kernel, shape[2:])
    reach = [axis.covers(box) for axis, box in zip(axes, r.box, strict=True)]
    inside = clipped(reach, shape[2:])
    each = r.array
    for n, (axis, (first, last)) in enumerate(zip(axes, r.box, strict=True)):
        # Which taps count: those on x, or on the padding as well; never those beyond the padding.
        low, high = 0, shape[n + 2]
        if step.get("count_include_pad", 0):
            ends = step.get("pads")
            end = ends[len(axes) + n] if ends else axis.covers((0, r.shape[n + 2] - 1))[1] + 1 - high
            low, high = -axis.begin, high + max(0, end)
        starts = np.arange(first, last + 1)[:, None] * axis.stride - axis.begin
        taps = starts + np.arange(axis.kernel) * axis.dilation
        counts = ((low <= taps) & (taps < high)).sum(1).astype(each.dtype)
        each = each / counts.reshape(-1, *[1] * (len(axes) - 1 - n))
    x = conv_transpose(
        np.ascontiguousarray(each),
        np.ones((shape[1], 1, *kernel), each.dtype),
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=_cropping(reach, inside),
        groups=shape[1],
    )
    return {0: _at(x, inside, shape)}


@_row("GlobalAveragePool", "spread")
def _global_average_pool(step: Step, r: Signal) -> Back:
    """R is spread evenly over x."""
    shape = step.shape(0)
    share = r.dense() / r.array.dtype.type(np.prod(shape[2:]))
    return {0: Signal.whole(np.broadcast_to(share, shape))}


@_row("ReduceMean ReduceSum", "spread")
def _reduce(step: Step, r: Signal) -> Back:
    """R is spread over what was summed."""
    shape = step.shape(0)
    axes = step.value(1).tolist() if step.has(1) else step.get("axes")
    axes = [n % len(shape) for n in axes or range(len(shape))]
    if step.has(1) and not len(step.value(1)) and step.get("noop_with_empty_axes", 0):
        return {0: r}
    kept = tuple(1 if n in axes else size for n, size in enumerate(shape))
    share = r.dense().reshape(kept)
    if step.node.op == "ReduceMean":
        share = share / share.dtype.type(np.prod([shape[n] for n in axes]))
    return {0: Signal.whole(np.broadcast_to(share, shape))}


# ---- normalisations ------------------------------------------------------------------------------


@_row("BatchNormalization", "linear", note="linear")
def _batch_normalization(step: Step, r: Signal) -> Back:
    """``R gamma / sqrt(variance + epsilon)``, all of them known."""
    gamma, variance = _like(step.value(1), r), _like(step.value(4), r)
    factor = gamma / np.sqrt(variance + variance.dtype.type(step.get("epsilon", 1e-5)))
    return {0: r.with_array(r.array * factor.reshape(-1, *[1] * (r.array.ndim - 2)))}


@_row("LRN", "contrast", records=("gradient", "guided"))
def _lrn(step: Step, r: Signal) -> Back:
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
    return {0: r.with_array(_like(found, r))}


def _channel_sums(x: NDArray[Any], before: int, after: int) -> NDArray[Any]:
    """Sum of the channels from so many before to so many after each."""
    padded = np.pad(x, ((0, 0), (before + 1, after), *[(0, 0)] * (x.ndim - 2)))
    total = padded.cumsum(axis=1)
    return total[:, before + after + 1 :] - total[:, : x.shape[1]]


# ---- sums and products ---------------------------------------------------------------------------


@_row("Add Sub Sum Mean", "sum")
def _add(step: Step, r: Signal) -> Back:
    """R to every term."""
    share = r
    if step.node.op == "Mean":
        share = r.with_array(r.array / r.array.dtype.type(len(step.node.inputs)))
    minus = r.with_array(-r.array) if step.node.op == "Sub" else r
    return {
        n: _fit(minus if step.node.op == "Sub" and n == 1 else share, step.shape(n))
        for n in step.carrying()
    }


@_row("Neg", "sum")
def _neg(step: Step, r: Signal) -> Back:
    """``-R``."""
    return {0: r.with_array(-r.array)}


@_row("Mul", "product", records=RULES)
def _mul(step: Step, r: Signal) -> Back:
    """R times the other factor; of two signals under the rule gradient only."""
    return {
        n: _fit(
            r.with_array(r.array * _like(r.part_of(step.value(1 - n)), r)), step.shape(n)
        )
        for n in step.carrying()
    }


@_row("Div", "product", records=RULES)
def _div(step: Step, r: Signal) -> Back:
    """R through the divisor; if that is a signal, under the rule gradient only."""
    b = _like(r.part_of(step.value(1)), r)
    back = {}
    if step.carries(0):
        back[0] = _fit(r.with_array(r.array / b), step.shape(0))
    if step.carries(1):
        a = _like(r.part_of(step.value(0)), r)
        back[1] = _fit(r.with_array(-r.array * a / (b * b)), step.shape(1))
    return back


@_row("Softmax LogSoftmax", "derivative", refused=RULES)
def _softmax(step: Step, r: Signal) -> Back:
    raise AssertionError


# ---- copies --------------------------------------------------------------------------------------


@_row("Identity Dropout Cast", "copy")
def _same(step: Step, r: Signal) -> Back:
    """R as it is."""
    return {0: r}


@_row(
    "Concat DepthToSpace Expand Flatten Gather Pad Reshape Slice SpaceToDepth Split Squeeze Tile "
    "Transpose Unsqueeze",
    "copy",
)
def _copy(step: Step, r: Signal) -> Back:
    """What a cell was copied to comes back to it, and adds."""
    known = [step.value(n) if step.has(n) and not step.carries(n) else None
             for n in range(len(step.node.inputs))]
    shapes = {n: step.shape(n) for n in step.carrying()}
    output = step.node.outputs.index(step.output), len(step.node.outputs)
    node = step.node
    return copied_back(node.op, node.attributes, known, shapes, output, r, step.opset)


@_row("Resize Upsample", "interpolation")
def _resize(step: Step, r: Signal) -> Back:
    """The transpose of the interpolation."""
    node, shape = step.node, step.shape(0)
    n = 1 if node.op == "Upsample" or step.opset < 11 else 2
    scales = step.value(n).tolist() if step.has(n) else step.get("scales")
    if axes := step.get("axes"):
        given = dict(zip((axis % len(shape) for axis in axes), scales or (), strict=False))
        scales = [given.get(axis, 1.0) for axis in range(len(shape))] if scales else None
    back = interpolated_back(node.op, node.attributes, scales or None, shape, r, step.opset)
    return {0: back}


# ---- what rows share -----------------------------------------------------------------------------


def reversal_of(node: Node, rule: str, signals: Set[str], constants: Values) -> Reversal:
    """The row of a node.

    Raises
    ------
    RuleError : there is none, or it does not hold under this rule
    """
    row, carrying = REVERSALS.get(node.op), [n for n in node.inputs if n in signals]
    if row is None:
        raise RuleError(
            f"no rule says how {node.op} is reversed; choose a layer below it (--list shows which)."
        )
    if set(RULES) == set(row.refused):
        raise RuleError(
            f"{node.op} lies on the path, where every output depends on all; pick the logits, "
            "which go into it."
        )
    found = node.op
    if node.op == "Clip":
        low, high = clip_limits(*_limits(node, constants))
        found = node.op if low == 0 else f"Clip from {low:g} to {high:g}"
    if rule in row.refused or (rule != "gradient" and found != node.op):
        raise RuleError(
            f"rule {rule!r} is defined for ReLU only, found {found}; use rule='gradient' "
            "(--rule gradient), or a layer below it (--list shows which)."
        )
    if len(carrying) > 1 and row.word in ("filter", "product", "derivative"):
        if rule == "gradient" and row.word == "product":
            return row
        what = "filters that depend on the image" if row.word == "filter" else "products of signals"
        fix = "use rule='gradient' (--rule gradient), or " if row.word == "product" else ""
        raise RuleError(
            f"rule {rule!r} is not defined for {what}, found {node.op}; {fix}choose a layer below "
            "it (--list shows which)."
        )
    if node.op == "Div" and rule != "gradient" and node.inputs[1] in signals:
        raise RuleError(
            f"rule {rule!r} is not defined for division by a signal; use rule='gradient' "
            "(--rule gradient), or a layer below it (--list shows which)."
        )
    if row.word in ("filter", "linear", "derivative") and node.inputs[0] not in signals and (
        node.op not in ("Gemm", "MatMul")
    ):
        raise RuleError(
            f"the parameters of {node.op} depend on the image, must be known; choose a layer below "
            "it (--list shows which)."
        )
    return row


def _limits(node: Node, values: Values) -> tuple[dict[int, NDArray[Any]], Attributes]:
    """The operands of Clip by their places, and its attributes."""
    given = {n: name for n, name in enumerate(node.inputs) if n and name}
    return {n: values[name] for n, name in given.items() if name in values}, node.attributes


def _like(array: NDArray[Any], r: Signal) -> NDArray[Any]:
    """In the signal's type."""
    return array.astype(r.array.dtype, copy=False)


def _at(array: NDArray[Any], box: tuple[Interval, ...], shape: tuple[int, ...]) -> Signal:
    return Signal(array, tuple(first for first, _ in box), shape)


def _cropping(
    reach: list[Interval], inside: tuple[Interval, ...]
) -> tuple[tuple[int, int], ...]:
    """How many cells of a box lie outside, before and after."""
    return tuple(
        (into[0] - of[0], of[1] - into[1]) for of, into in zip(reach, inside, strict=True)
    )


def _fit(r: Signal, shape: tuple[int, ...]) -> Signal:
    """Sum over what was broadcast from an operand of this shape."""
    if r.shape == shape:
        return r
    return Signal.whole(_unbroadcast(r.dense(), shape))


def _unbroadcast(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    extra = array.ndim - len(shape)
    array = array.sum(axis=tuple(range(extra))) if extra > 0 else array
    axes = tuple(n for n, size in enumerate(shape) if size == 1 and array.shape[n] != 1)
    return array.sum(axis=axes, keepdims=True) if axes else array
