"""Networks computed in float64 by onnx's ReferenceEvaluator: what float32 is an approximation of.

Operators of which the evaluator has a slow or a narrow version are written here.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import tconv
import tconv.onnx

__all__ = ["exact_outputs"]


def exact_outputs(path: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a network whose weights, inputs and sums are of float64."""
    model = onnx.load(str(path))
    _to_float64(model.graph)
    operators = [BatchNormalization, Conv, GatherElements, tconv.onnx.ConvTranspose]
    evaluator = ReferenceEvaluator(model, new_ops=operators)
    return evaluator.run(None, {name: _exact(array) for name, array in feed.items()})


def _exact(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _to_float64(graph: GraphProto) -> None:
    _tensors_to_float64(graph.initializer)
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        kind.elem_type = _exact_type(kind.elem_type)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _tensors_to_float64([attribute.t])
            elif attribute.type == AttributeProto.GRAPH:
                _to_float64(attribute.g)
            elif attribute.name in ("to", "dtype"):  # of Cast and of random numbers
                attribute.i = _exact_type(attribute.i)


def _tensors_to_float64(tensors: Iterable[TensorProto]) -> None:
    for each in tensors:
        array = numpy_helper.to_array(each)
        each.CopyFrom(numpy_helper.from_array(_exact(array), each.name))


def _exact_type(kind: int) -> int:
    return TensorProto.DOUBLE if kind == TensorProto.FLOAT else kind


class Conv(OpRun):
    """A convolution whose padding is given in cells."""

    op_domain = ""

    def _run(self, x: Any, weight: Any, bias: Any = None, **given: Any) -> tuple[np.ndarray]:
        rank = x.ndim - 2
        assert given.get("auto_pad") in (None, "NOTSET")
        pads = given.get("pads") or [0] * 2 * rank
        y = tconv.conv(
            x,
            weight,
            stride=tuple(given.get("strides") or [1] * rank),
            padding=tuple(zip(pads[:rank], pads[rank:], strict=True)),
            dilation=tuple(given.get("dilations") or [1] * rank),
            groups=given.get("group") or 1,
            method="direct",
        )
        return (y if bias is None else y + bias.reshape(-1, *[1] * rank),)


class BatchNormalization(OpRun):
    """A normalisation by stored mean and variance."""

    op_domain = ""

    def _run(
        self, x: Any, scale: Any, bias: Any, mean: Any, variance: Any, **given: Any
    ) -> tuple[np.ndarray]:
        factor = scale / np.sqrt(variance + (given.get("epsilon") or 1e-5))
        along = (-1, *[1] * (x.ndim - 2))
        return ((x - mean.reshape(along)) * factor.reshape(along) + bias.reshape(along),)


class GatherElements(OpRun):
    """Elements at indices along an axis, of fewer indices than the operand has."""

    op_domain = ""

    def _run(self, x: Any, indices: Any, axis: int | None = None) -> tuple[np.ndarray]:
        axis = axis or 0
        places = list(np.indices(indices.shape))
        places[axis] = np.where(indices < 0, indices + x.shape[axis], indices)
        return (x[tuple(places)],)
