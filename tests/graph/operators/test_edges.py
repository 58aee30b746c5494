"""Single nodes at the edges of what ONNX allows: equal to ONNX Runtime, or refused."""

import numpy as np
import pytest
from graph.operators.nodes import assert_equal, case, computed, node, numbers, whole

from onnx_graphs import model_of
from strategies import integers_like
from tconv.graph import Programs, UnknownOperator
from tconv.onnx.front_end import graph_of

FRAME = whole(0, 0, 1, 1, 0, 0, 1, 1)
COMPUTED = {
    "one column joined with one": case(
        (2, 2, 5, 1), node("Relu", "x", "a"), node("Concat", "x a", "y", axis=3)
    ),
    "one column joined with many": case(
        (2, 3, 5, 4),
        node("ReduceMax", "x", "a", axes=[3]),
        node("Concat", "a x a", "y", axis=3),
    ),
    "one column joined with one, of a matrix": case(
        (7, 1), node("Neg", "x", "a"), node("Concat", "x a", "y", axis=-1)
    ),
    "columns of a constant": case((3, 4), node("Concat", "c x", "y", axis=1), c=numbers(3, 1)),
    "a frame of sevens": case(
        (2, 3, 6, 5), node("Pad", "x pads seven", "y"), pads=FRAME, seven=np.float32(7)
    ),
    "a frame that is cut on one side": case(
        (2, 3, 6, 5),
        node("Pad", "x pads seven", "y"),
        pads=whole(0, 0, -1, 1, 1, 0, 2, -2),
        seven=np.float32(7),
    ),
    "constant outputs alone": case(
        (2, 3),
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "y"),
    ),
    "a constant output beside another": case(
        (2, 3),
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "y"),
        node("Relu", "x", "z"),
        outputs=("y", "z"),
    ),
    "an input as output": case((2, 3), node("Relu", "x", "y"), outputs=("x", "y")),
    "an initialiser as output": case(
        (2, 3), node("Add", "x c", "y"), outputs=("c", "y"), c=numbers(3)
    ),
    "views of one value as outputs": case(
        (2, 3, 4),
        node("Neg", "x", "a"),
        node("Transpose", "a", "y", perm=[2, 0, 1]),
        node("Reshape", "a row", "z"),
        node("Identity", "a", "i"),
        outputs=("a", "y", "z", "i"),
        row=whole(-1),
    ),
    "a frame, reshaped, before a Conv": case(
        (1, 2, 4, 6),
        node("Pad", "x pads", "a"),
        node("Reshape", "a sizes", "b"),
        node("Conv", "b w", "y"),
        pads=FRAME,
        sizes=whole(1, 2, 8, 6),
        w=numbers(2, 2, 3, 3),
    ),
    "zeros beside x before a Conv": case(
        (1, 2, 4, 6),
        node("Concat", "z x z", "a", axis=2),
        node("Conv", "a w", "y", pads=[0, 1, 0, 1], strides=[2, 1]),
        z=np.zeros((1, 2, 1, 6), np.float32),
        w=numbers(2, 2, 3, 3),
    ),
    "a frame of which a Conv reads and another node": case(
        (2, 2, 4, 6),
        node("Pad", "x pads", "a"),
        node("Conv", "a w", "y"),
        node("Neg", "a", "z"),
        outputs=("y", "z"),
        pads=FRAME,
        w=numbers(2, 2, 3, 3),
    ),
    "a frame around a value that is transposed": case(
        (1, 2, 4, 6),
        node("Transpose", "x", "t", perm=[0, 1, 3, 2]),
        node("Pad", "t pads", "a"),
        node("Conv", "a w", "y", pads=[0, 1, 2, 0]),
        pads=FRAME,
        w=numbers(2, 2, 3, 3),
    ),
    "a repeated column": case(
        (2, 3, 4), node("Gather", "x at", "y", axis=2), at=whole(1, 1, 1)
    ),
    "a reduction of what is repeated": case(
        (2, 1, 4),
        node("Expand", "x sizes", "a"),
        node("ReduceSum", "a axis", "y"),
        sizes=whole(2, 3, 4),
        axis=whole(1),
    ),
    "a product of what is repeated": case(
        (2, 1, 4),
        node("Expand", "x sizes", "a"),
        node("MatMul", "a w", "y"),
        sizes=whole(2, 3, 4),
        w=numbers(4, 5),
    ),
    "a Gemm of columns": case(
        (4, 3),
        node("Transpose", "x", "t"),
        node("Gemm", "t w b", "y", transB=1),
        w=numbers(6, 4),
        b=numbers(6),
    ),
    "the same constant on both sides": case(
        (2, 3), node("Add", "c c", "a"), node("Add", "a x", "y"), c=numbers(3)
    ),
    "an activation of a constant": case(
        (2, 3),
        node("Relu", "c", "a"), node("Tanh", "a", "b"), node("Add", "b x", "y"),
        c=numbers(3),
    ),
    "Shape to end": case(
        (2, 3, 4), node("Shape", "x", "s", end=-1), node("Reshape", "x t", "a"),
        node("ConstantOfShape", "s", "c"), node("Add", "a c", "y"), t=whole(4, 2, 3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", COMPUTED)
def test_these_are_computed(name, threads):
    assert_equal(*computed(*COMPUTED[name], threads))


EXTREME = {
    "Slice from before the beginning": case(
        (2, 3, 5),
        node("Slice", "x start end axis step", "y"),
        start=whole(-10), end=whole(-(2**31)), axis=whole(2), step=whole(-1),
    ),
    "Slice of all, backwards": case(
        (2, 3, 5),
        node("Slice", "x start end axis step", "y"),
        start=whole(2**31), end=whole(-(2**31)), axis=whole(2), step=whole(-2),
    ),
    "no image": case((0, 3, 5), node("Relu", "x", "y")),
    "no image for a Conv": case((0, 2, 5), node("Conv", "x w", "y"), w=numbers(2, 2, 3)),
    "no image for a reduction": case((0, 2, 5), node("ReduceMax", "x", "y", axes=[2])),
    "no cell for a sum": case((2, 0), node("ReduceSum", "x axis", "y"), axis=whole(1)),
    "one number": case((), node("Relu", "x", "a"), node("Add", "a c", "y"), c=np.float32(2)),
    "a reduction of one number": case((), node("ReduceSum", "x", "y")),
    "a Concat of one part": case((2, 3), node("Concat", "x", "y", axis=0)),
    "a Sum of one": case((2, 3), node("Sum", "x", "y")),
    "an unknown axis order": case((2, 3, 4), node("ReduceSum", "x axes", "y"), axes=whole(2, 0)),
    "no axes": case(
        (2, 3, 4), node("ReduceSum", "x axes", "y", noop_with_empty_axes=1), axes=whole()
    ),
    "no axes, all": case((2, 3, 4), node("ReduceSum", "x axes", "y"), axes=whole()),
    "Pow by a whole exponent": case((2, 3), node("Pow", "x two", "y"), two=whole(2)),
    "Pow by 3": case((2, 3), node("Pow", "x three", "y"), three=np.float32(3)),
    "Pow by 5": case((2, 3), node("Pow", "x five", "y"), five=np.float32(5)),
    "Pow of more axes": case(
        (2, 3), node("Pow", "x two", "y"), two=np.full((1, 1, 1), 2, np.float32)
    ),
    "Pow by one, of more axes": case((2, 3), node("Pow", "x c", "y"), c=np.ones((1, 1, 1), "f4")),
    "Clip by crossed bounds": case(
        (2, 3), node("Clip", "x low high", "y"), low=np.float32(2), high=np.float32(-1)
    ),
    "Clip by no bound": case((2, 3), node("Clip", "x - -", "y")),
    "Clip of a value in between": case(
        (2, 3), node("ReduceMax", "x", "m", keepdims=0), node("Clip", "x - m", "y")
    ),
    "a Resize of other axes": case(
        (2, 3, 4, 4),
        node("Resize", "x - scales", "y", axes=[3, 2], coordinate_transformation_mode="asymmetric",
             nearest_mode="floor"),
        opset=18, scales=np.array([2, 3], np.float32),
    ),
    "a Resize of all axes in another order": case(
        (1, 1, 4, 4),
        node("Resize", "x - scales", "y", axes=[3, 2, 1, 0], nearest_mode="floor",
             coordinate_transformation_mode="asymmetric"),
        opset=18, scales=np.array([3, 2, 1, 1], np.float32),
    ),
    "a Resize of axes that change places": case(
        (1, 1, 4, 4),
        node("Resize", "x - scales", "y", axes=[0, 1, 3, 2], mode="linear"),
        opset=18, scales=np.array([1, 1, 3, 2], np.float32),
    ),
    "a Resize that keeps an aspect ratio": case(
        (1, 1, 4, 4),
        node("Resize", "x - - sizes", "y", keep_aspect_ratio_policy="not_larger", mode="linear"),
        opset=18, sizes=whole(1, 1, 8, 12),
    ),
    "a Resize that rounds up": case(
        (1, 1, 4, 4),
        node("Resize", "x - scales", "y", nearest_mode="ceil"),
        scales=np.array([1, 1, 2, 2], np.float32),
    ),
    "a Resize of one cell": case(
        (1, 1, 1, 4),
        node("Resize", "x - scales", "y", coordinate_transformation_mode="pytorch_half_pixel"),
        scales=np.array([1, 1, 3, 2], np.float32),
    ),
    "Flatten of nothing": case((2, 3, 4), node("Flatten", "x", "y", axis=0)),
    "Flatten of all but the last": case((2, 3, 4), node("Flatten", "x", "y", axis=-1)),
    "Reshape to what has zeros": case(
        (2, 3), node("Reshape", "x sizes", "y", allowzero=0), sizes=whole(0, 0)
    ),
    "a mirrored Pad": case(
        (1, 2, 5), node("Pad", "x pads", "y", mode="reflect"), pads=whole(0, 1, 4, 0, 0, 3)
    ),
    "a mirrored Pad of one cell": case(
        (1, 1, 5), node("Pad", "x pads", "y", mode="reflect"), pads=whole(0, 0, 0, 0, 0, 0)
    ),
    "a Pad by the edge": case(
        (1, 2, 1), node("Pad", "x pads", "y", mode="edge"), pads=whole(0, 1, 4, 2, 0, 3)
    ),
    "a Pad that wraps": case(
        (1, 2, 5), node("Pad", "x pads", "y", mode="wrap"), opset=19,
        pads=whole(0, 2, 4, 0, 1, 5),
    ),
    "a Pad by more than a border has": case(
        (1, 1, 3), node("Pad", "x pads", "y", mode="reflect"), pads=whole(0, 0, 3, 0, 0, 1)
    ),
    "a mirrored Pad that cuts": case(
        (1, 1, 5), node("Pad", "x pads", "y", mode="reflect"), pads=whole(0, 0, 2, 0, 0, -1)
    ),
    "Pad of some axes": case(
        (1, 1, 5), node("Pad", "x pads - axes", "y"), opset=18, pads=whole(2, 1), axes=whole(2)
    ),
    "Gemm with factors": case(
        (2, 3), node("Gemm", "x w b", "y", alpha=2.0, beta=0.5), w=numbers(3, 4), b=numbers(4)
    ),
    "Gemm with a summand for each row": case(
        (4, 3), node("Gemm", "x w b", "y"), w=numbers(3, 4), b=numbers(4, 1)
    ),
    "MatMul from the left": case((3, 4), node("MatMul", "w x", "y"), w=numbers(2, 3)),
    "MatMul of a vector": case((3,), node("MatMul", "x w", "y"), w=numbers(3, 4)),
    "MatMul by a stack": case((2, 4, 3), node("MatMul", "x w", "y"), w=numbers(2, 3, 5)),
    "Conv of a computed weight": case(
        (2, 2, 3), node("Slice", "x a b", "w"), node("Conv", "x w", "y"), a=whole(0), b=whole(1)
    ),
    "a long window": case(
        (1, 1, 50), node("AveragePool", "x", "y", kernel_shape=[40], strides=[3])
    ),
    "Gather of no order": case((4, 3), node("Gather", "x at", "y"), at=whole(0, 3, 1)),
    "Gather of a table": case((4, 3), node("Gather", "x at", "y"), at=whole([0, 1], [2, 3])),
    "Expand to fewer axes": case((2, 1, 3), node("Expand", "x to", "y"), to=whole(4, 1)),
    "pooling by SAME_UPPER": case(
        (1, 1, 5), node("MaxPool", "x", "y", kernel_shape=[2], auto_pad="SAME_UPPER")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREME)
def test_these_are_computed_or_refused(name):
    try:
        found, expected = computed(*EXTREME[name])
    except UnknownOperator:
        return
    assert_equal(found, expected)


@pytest.mark.parametrize("opset", [11, 17, 19, 22])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "given"),
    [
        (2, {"kernel_shape": [1], "strides": [2]}),
        (4, {"kernel_shape": [2], "strides": [3]}),
        (3, {"kernel_shape": [2], "strides": [3], "pads": [0, 1]}),
        (7, {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
        (6, {"kernel_shape": [3], "strides": [3], "pads": [2, 2]}),
    ],
)
def test_windows_that_are_rounded_up(op, size, given, opset):
    assert_equal(*computed(*case((1, 2, size), node(op, "x", "y", ceil_mode=1, **given)), 1))
    both = node(op, "x", "y", ceil_mode=1, **given)
    assert_equal(*computed((1, 2, size), [both], ("y",), opset, {}))


MEANS = {
    "GlobalAveragePool": node("GlobalAveragePool", "x", "y"),
    "ReduceMean of rows": node("ReduceMean", "x", "y", axes=[3]),
    "ReduceMean of channels": node("ReduceMean", "x", "y", axes=[1]),
    "AveragePool": node("AveragePool", "x", "y", kernel_shape=[3, 5], pads=[1, 2, 1, 2]),
    "InstanceNormalization": node("InstanceNormalization", "x s b", "y", epsilon=1e-5),
}


@pytest.mark.parametrize("number", [3, 7, 41, -1e5 / 3])
@pytest.mark.parametrize("size", [(3, 7), (4, 4), (5, 11), (1, 49)])
@pytest.mark.parametrize("name", MEANS)
def test_the_mean_of_equal_numbers_is_that_number(name, size, number):
    """So a channel of equal numbers is normalised to its bias, however small epsilon is."""
    x = np.full((2, 3, *size), np.trunc(number), np.float32)
    scale, bias = numbers(3), numbers(3) + np.float32(0.5)
    model = model_of([MEANS[name]], {"x": x}, ["y"], {"s": scale, "b": bias})
    (y,) = Programs(graph_of(model), 2)([x])
    expected = bias.reshape(3, 1, 1) if "Norm" in name else x[0, 0, 0, 0]
    assert np.array_equal(y, np.broadcast_to(expected, y.shape))


def test_a_dropout_that_drops_is_refused():
    nodes = [node("Dropout", "x ratio training", "y")]
    stored = {"ratio": np.float32(0.5), "training": np.array(True)}
    with pytest.raises(UnknownOperator):
        computed((2, 3), nodes, ("y",), 17, stored)


INVALID = {
    "Expand to other sizes": case((2, 3), node("Expand", "x to", "y"), to=whole(2, 4)),
    "Concat of an axis beyond": case((3, 2), node("Concat", "x x", "y", axis=5)),
    "Transpose with an axis twice": case((3, 2), node("Transpose", "x", "y", perm=[0, 0])),
    "Transpose with too few axes": case((3, 2), node("Transpose", "x", "y", perm=[0])),
    "Slice of an axis beyond": case(
        (3, 2), node("Slice", "x a b c", "y"), a=whole(0), b=whole(1), c=whole(7)
    ),
    "Slice by steps of 0": case(
        (3, 2), node("Slice", "x a b a a", "y"), a=whole(0), b=whole(1)
    ),
    "Gather beyond": case((3, 2), node("Gather", "x at", "y"), at=whole(7)),
    "Gather before": case((3, 2), node("Gather", "x at", "y"), at=whole(-4)),
    "Gather of an axis beyond": case((3, 2), node("Gather", "x at", "y", axis=2), at=whole(0)),
    "Pad with too few numbers": case((3, 2), node("Pad", "x pads", "y"), pads=whole(1, 1)),
    "Unsqueeze of an axis twice": case((3, 2), node("Unsqueeze", "x a", "y"), a=whole(0, 0)),
    "Squeeze of an axis beyond": case((1, 2), node("Squeeze", "x a", "y"), a=whole(4)),
    "Split of an axis beyond": case((4, 2), node("Split", "x", "y", axis=4)),
    "Flatten of an axis beyond": case((4, 2), node("Flatten", "x", "y", axis=7)),
    "ReduceSum of an axis beyond": case((4, 2), node("ReduceSum", "x a", "y"), a=whole(3)),
    "Reshape to sizes below -1": case((4, 2), node("Reshape", "x a", "y"), a=whole(-2, -4)),
    "Reshape of a 0 beyond": case((4, 2), node("Reshape", "x a", "y"), a=whole(4, 2, 0)),
    "MaxPool by strides of 0": case(
        (1, 2, 4), node("MaxPool", "x", "y", kernel_shape=[2], strides=[0])
    ),
    "MaxPool with negative pads": case(
        (1, 2, 4), node("MaxPool", "x", "y", kernel_shape=[2], pads=[-1, 0])
    ),
    "MaxPool with pads as large as windows": case(
        (1, 2, 4), node("MaxPool", "x", "y", kernel_shape=[2], pads=[3, 2])
    ),
    "MaxPool with too few strides": case(
        (1, 2, 4, 4), node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[1])
    ),
    "MaxPool of a window of 0": case((1, 2, 4), node("MaxPool", "x", "y", kernel_shape=[0])),
    "BatchNormalization of other channels": case(
        (2, 3, 4), node("BatchNormalization", "x a a a a", "y"), a=np.ones(5, np.float32)
    ),
    "a slope for other channels": case((2, 3, 4), node("PRelu", "x a", "y"), a=numbers(2, 2, 3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_what_onnx_does_not_allow_is_refused(name):
    """ONNX Runtime, which then gets the model, says why."""
    shape, nodes, outputs, opset, stored = INVALID[name]
    x = integers_like(shape, "float32", 11)
    stored = {key: np.asarray(each) for key, each in stored.items()}
    model = model_of(nodes, {"x": x}, outputs, stored, opset=opset, sizes=False)
    with pytest.raises(UnknownOperator):
        Programs(graph_of(model), 1).program((shape,))
