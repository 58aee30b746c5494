"""ONNX models run with tconv: sessions, comparisons, and an operator for onnx's evaluator."""

try:
    import onnx as _onnx  # noqa: F401
    import onnxruntime as _onnxruntime  # noqa: F401
except ImportError:
    raise ImportError(
        "The ONNX tools need onnx and onnxruntime: pip install onnx onnxruntime."
    ) from None

from tconv.onnx.compare import compare
from tconv.onnx.model.model import ModelMetadata, NodeArg, check_weights
from tconv.onnx.partition.profitability import Decision
from tconv.onnx.programs.report import ProgramReport, StepReport, StepTimes
from tconv.onnx.reference import ConvTranspose
from tconv.onnx.report import Comparison, NodeComparison, NodeReport, Report, ResultComparison
from tconv.onnx.session import Session
from tconv.onnx.stream import Stream
from tconv.onnx.warm_up import warm

__all__ = [
    "Comparison",
    "ConvTranspose",
    "Decision",
    "ModelMetadata",
    "NodeArg",
    "NodeComparison",
    "NodeReport",
    "ProgramReport",
    "Report",
    "ResultComparison",
    "Session",
    "StepReport",
    "StepTimes",
    "Stream",
    "check_weights",
    "compare",
    "warm",
]
