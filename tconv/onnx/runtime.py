"""Sessions of ONNX Runtime: how a model or a piece of one is loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnxruntime

from tconv.errors import ModelError
from tconv.onnx.model import Source

__all__ = ["Settings", "clean_message", "load"]

_PROVIDERS = ["CPUExecutionProvider"]


@dataclass(frozen=True, eq=False)
class Settings:
    """What was asked of a session; `others` are further keywords of ONNX Runtime's constructor."""

    threads: int | None = None
    sess_options: Any = None
    providers: Any = None
    provider_options: Any = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> str:
        """Why every model is left to ONNX Runtime as a whole, "" if it may be cut."""
        return ""


def load(source: Source, settings: Settings, *, spin: bool) -> Any:
    """Load a model with ONNX Runtime.

    Its threads spin while they wait for work, which is quick, and for a while after a run, which
    slows whoever computes next. Without `spin` they stop as the run ends.

    Raises
    ------
    ModelError : ONNX Runtime refuses it
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads or 0
    options.log_severity_level = 4  # what goes wrong is raised, so it need not be printed too
    if not spin:  # Tried no spinning at all: a quarter slower (DBNet, 2 cores of a Xeon).
        options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(
            source,
            options,
            providers=_PROVIDERS,
            enable_fallback=0,  # which prints on standard output and tries the same once more
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        what = f"{source!r}" if isinstance(source, str) else "the model"
        raise ModelError(
            f"ONNX Runtime refuses {what}: {clean_message(error)}; check the model."
        ) from error


def clean_message(error: Exception) -> str:
    """Say what ONNX Runtime says without its codes, source files and C++ signatures.

    >>> clean_message(ValueError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Bad size. "))
    'Bad size'
    """
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"Non-zero status code returned while running (\w+) node. ", r"\1 node. ", text)
    text = re.sub(r"(\w+) node. Name:'(.*?)' Status Message: ", r"node '\2' (\1): ", text)
    text = re.sub(r"/\S+\.(h|cc):\d+ .*?\) (const )?(\[.*?\] )?", "", text)
    text = re.sub(r"\w+\.(h|cc):\d+ \w+ ", "", text)
    return " ".join(text.split()).rstrip(". ")[:400]
