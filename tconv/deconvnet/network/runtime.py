"""ONNX Runtime sessions of networks and of single nodes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tconv.deconvnet.network.interruption import check_interrupted, stoppable
from tconv.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["Values", "run", "run_node", "run_nodes", "session_of"]

Values = Mapping[str, NDArray[Any]]


def run_node(
    op: str,
    attributes: Mapping[str, Any],
    operands: Sequence[NDArray[Any] | None],
    outputs: int,
    opset: int,
) -> list[NDArray[Any]]:
    """Compute a single node; None stands for an operand that is left out.

    >>> run_node("Neg", {}, [np.ones(2)], 1, 17)
    [array([-1., -1.])]
    """
    from onnx import helper

    feeds = {f"in{n}": value for n, value in enumerate(operands) if value is not None}
    names = [f"in{n}" if f"in{n}" in feeds else "" for n in range(len(operands))]
    results = [f"out{n}" for n in range(outputs)]
    node = helper.make_node(op, names, results, **attributes)
    return run_nodes([node], feeds, results, {"": opset})


def run_nodes(
    nodes: Sequence["NodeProto"], feeds: Values, names: Sequence[str], opsets: Mapping[str, int]
) -> list[NDArray[Any]]:
    """Compute some nodes from arrays for all that they read."""
    from onnx import helper

    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(nodes, "nodes", inputs, outputs)
    opset_imports = [helper.make_opsetid(domain, n) for domain, n in opsets.items()]
    model = helper.make_model(graph, opset_imports=opset_imports, ir_version=8)
    return run(session_of(model, 1), names, dict(feeds))


def session_of(model: "ModelProto", threads: int | None) -> Any:
    """Return a session of ONNX Runtime for a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    # Fused nodes round differently: a value must not depend on the other values of a recording.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise ModelError(f"ONNX Runtime refuses the model: {_line(error)}; check it.") from error


def run(session: Any, names: Sequence[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a session for some outputs."""
    import onnxruntime

    options = stoppable(onnxruntime.RunOptions())
    try:
        found: list[NDArray[Any]] = session.run(list(names), feed, options)
    except Exception as error:
        check_interrupted()  # which ONNX Runtime reports as a failed run
        raise ModelError(
            f"ONNX Runtime cannot run the network: {_line(error)}; check the size of the image."
        ) from error
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
