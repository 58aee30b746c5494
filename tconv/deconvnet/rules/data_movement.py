"""Transposes of data movement and of interpolation, found by running the node itself.

ONNX Runtime runs the node on the indices of cells in place of their values, and the output tells
where each cell was copied to. For interpolation it runs on unit impulses, which gives the weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.network.runtime import run_node
from tconv.deconvnet.rules.sparse_map import SparseMap
from tconv.errors import RuleError

__all__ = ["transpose_of_copy", "transpose_of_interpolation"]

Attributes = Mapping[str, Any]


def transpose_of_copy(
    op: str,
    attributes: Attributes,
    operands: Sequence[NDArray[Any] | None],
    shapes: Mapping[int, tuple[int, ...]],
    output: tuple[int, int],
    r: SparseMap,
    opset: int,
) -> dict[int, SparseMap]:
    """Sum R over all copies of each cell.

    Parameters
    ----------
    op, attributes, opset : operator, attributes and version of the node
    operands : values of the inputs that do not depend on the image; None for the others
    shapes : shapes of the inputs that depend on the image, by their places
    output : place of the output that R belongs to, and the number of outputs
    r : SparseMap, attribution of that output

    >>> r = SparseMap.whole(np.array([[[1.0, 2.0, 4.0]]]))
    >>> gather = transpose_of_copy(
    ...     "Gather", {"axis": 2}, [None, np.array([0, 1, 1])], {0: (1, 1, 2)}, (0, 1), r, 17
    ... )
    >>> gather[0].array
    array([[[1., 6.]]])
    """
    if op == "Concat" and attributes["axis"] in (1, 1 - len(r.shape)) and len(r.shape) > 2:
        return _split_channels(operands, shapes, r)
    feeds, ends = list(operands), [1]  # index 0 stands for constants
    for n, shape in shapes.items():
        indices = np.arange(ends[-1], ends[-1] + np.prod(shape, dtype=int), dtype=np.float64)
        feeds[n] = indices.reshape(shape)
        ends.append(ends[-1] + indices.size)
    for n, value in enumerate(operands):
        if value is not None and (op == "Concat" or (op == "Pad" and n == 2)):
            feeds[n] = np.zeros(value.shape)
    kept = {name: each for name, each in attributes.items() if (op, name) != ("Pad", "value")}
    copied = run_node(op, kept, feeds, output[1], opset)[output[0]].astype(np.int64).reshape(-1)
    sums = np.bincount(copied, r.dense().reshape(-1), ends[-1])
    return {
        n: SparseMap.whole(sums[start:end].reshape(shape).astype(r.array.dtype))
        for (n, shape), start, end in zip(shapes.items(), ends[:-1], ends[1:], strict=True)
    }


def _split_channels(
    operands: Sequence[NDArray[Any] | None], shapes: Mapping[int, tuple[int, ...]], r: SparseMap
) -> dict[int, SparseMap]:
    """Split R by its channels; its box stays."""
    back, first = {}, 0
    for n, known in enumerate(operands):
        shape = shapes[n] if known is None else known.shape
        if known is None:
            part = r.array[:, first : first + shape[1]]
            back[n] = SparseMap(part, r.start, shape)
        first += shape[1]
    return back


def transpose_of_interpolation(
    op: str,
    attributes: Attributes,
    scales: Sequence[float] | None,
    shape: tuple[int, ...],
    r: SparseMap,
    opset: int,
) -> SparseMap:
    """Apply the transpose of an interpolation to R, axis by axis.

    Parameters
    ----------
    scales : one per axis; None if the node is given sizes
    shape : shape of the interpolated value

    >>> r = SparseMap.whole(np.ones((1, 1, 6, 1), np.float32))
    >>> back = transpose_of_interpolation("Resize", {}, [1, 1, 2, 1], (1, 1, 3, 1), r, 17)
    >>> back.array.reshape(-1)
    array([2., 2., 2.], dtype=float32)
    """
    mode = attributes.get("coordinate_transformation_mode")
    if mode == b"tf_crop_and_resize" or attributes.get("keep_aspect_ratio_policy", b"stretch") != (
        b"stretch"
    ):
        raise RuleError(
            f"{op} that crops, or keeps the aspect ratio, has no reversal; choose a layer below it."
        )
    if shape == r.shape:  # a copy to ONNX Runtime, whatever the scales
        return r
    # Each run is of one axis, so attributes that list all axes are left out.
    kept = {n: v for n, v in attributes.items() if n not in ("axes", "scales")}
    back = r.dense()
    for n, (size, wanted) in enumerate(zip(shape, r.shape, strict=True)):
        scale = None if scales is None else scales[n]
        if size == wanted and scale in (None, 1):
            continue
        impulses = np.eye(size, dtype=np.float32)[np.newaxis, :, np.newaxis]
        if size == wanted:  # the rows grow, or ONNX Runtime would copy
            impulses = impulses.repeat(2, axis=2)
        rows = impulses.shape[2]
        given = None if scale is None else np.array([1, 1, rows, scale], np.float32)
        operands: list[NDArray[Any] | None] = [impulses, given]
        if op != "Upsample" and opset >= 11:
            sizes = np.array([1, size, rows, wanted], np.int64)
            # Before opset 13 an operand that is not used is an empty array, and not left out.
            unused = np.zeros(0, np.float32) if opset < 13 else None
            operands = [impulses, unused, given] if scale else [impulses, unused, unused, sizes]
        weights = run_node(op, kept, operands, 1, opset)[0][0, :, 0]  # (size, wanted)
        moved = np.moveaxis(back, n, -1) @ weights.T.astype(back.dtype)
        back = np.moveaxis(moved, -1, n)
    return SparseMap.whole(np.ascontiguousarray(back))
