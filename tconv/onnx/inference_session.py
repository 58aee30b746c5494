"""Members of InferenceSession other than `run`, on a session of the whole model."""

import os
from typing import Any

import onnxruntime

from tconv.onnx.execution import Executions
from tconv.onnx.model.model import ModelMetadata, NodeArg, Source
from tconv.onnx.ort.options import Settings
from tconv.onnx.ort.sessions import session_attributes

__all__ = ["InferenceSessionBase"]

# Sessions of the parent in a forked child. They are kept: destroying one would wait for threads
# that exist in the parent only.
_inherited: list[Executions] = []


class InferenceSessionBase(onnxruntime.InferenceSession):  # type: ignore[misc]
    """Members of InferenceSession, of whichever version of ONNX Runtime is installed.

    Members that are not defined here are inherited and use ONNX Runtime's session of the whole
    model. It is loaded when it is first needed: a partitioned model runs without it.

    ONNX Runtime's constructor is not called. The attributes that it would set are looked up in the
    session of the whole model.
    """

    _source: Source
    _settings: Settings
    _executions: Executions

    def _load(self) -> Executions:
        """Load the model with the session's arguments."""
        raise NotImplementedError

    def _in_this_process(self) -> Executions:
        """Executions of this process; after a fork they are loaded again, for threads are lost."""
        if self._executions.process != os.getpid():
            self._reload()
        return self._executions

    def _reload(self) -> None:
        executions = self._load()
        if self._executions.process != executions.process:
            _inherited.append(self._executions)
        self._executions = executions

    def _whole(self) -> Any:
        """ONNX Runtime's session of the whole model.

        Raises
        ------
        ModelError : ONNX Runtime refuses it
        """
        whole = self._in_this_process().whole
        whole.is_exposed = True
        return whole.session()

    def __getattr__(self, name: str) -> Any:
        """Look up an attribute that is not defined here in ONNX Runtime's session."""
        if name in session_attributes():
            return getattr(self._whole(), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def get_inputs(self) -> list[NodeArg]:
        """Inputs of the model without a default."""
        return list(self._executions.first.loaded.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Outputs of the model."""
        return list(self._executions.first.loaded.outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs of the model with a default."""
        return list(self._executions.first.loaded.overridable)

    def get_modelmeta(self) -> ModelMetadata:
        """Metadata of the model."""
        return self._executions.first.loaded.metadata

    def get_session_options(self) -> Any:
        """Return a copy of the options that the model is loaded with."""
        return self._in_this_process().whole.options

    def get_providers(self) -> list[str]:
        """Execution providers in order of preference."""
        if self._executions.whole.is_loaded:
            return list(self._whole().get_providers())
        return self._settings.names

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Options of each execution provider; those for CPUs have none."""
        if self._executions.whole.is_loaded:
            return dict(self._whole().get_provider_options())
        return {name: {} for name in self._settings.names}

    def set_providers(self, providers: Any = None, provider_options: Any = None) -> None:
        """Load the model again for other execution providers; None means the CPU.

        Raises
        ------
        ParameterError : ONNX Runtime does not accept the arguments
        ModelError : the model cannot be loaded with them; the session stays as it was
        """
        before, self._settings = (
            self._settings,
            self._settings.with_providers(providers, provider_options),
        )
        try:
            self._reload()
        except BaseException:
            self._settings = before
            raise

    def disable_fallback(self) -> None:
        """Let `run` raise the error of a provider."""
        self._fall_back(False)

    def enable_fallback(self) -> None:
        """Let `run` try the CPU if another provider fails."""
        self._fall_back(True)

    def _fall_back(self, falls_back: bool) -> None:
        self._settings = self._settings.falling_back(falls_back)
        self._in_this_process().whole.fall_back(falls_back)
