"""Members of ONNX Runtime's InferenceSession other than `run`."""

import os
from typing import Any

import onnxruntime

from tconv.onnx.execution import Executions
from tconv.onnx.model.model import ModelMetadata, NodeArg, Source
from tconv.onnx.ort.options import Settings
from tconv.onnx.ort.sessions import session_attributes

__all__ = ["Interface"]

# Sessions that a fork has copied. To destroy one would wait for threads that only the parent has.
_of_the_parent: list[Executions] = []


class Interface(onnxruntime.InferenceSession):  # type: ignore[misc]
    """What a session has of ONNX Runtime's class, of the version that is installed.

    What is not defined here is inherited, and runs on a plain session of the whole model. That is
    loaded when it is first needed: where the model is cut, `run` does without.

    ONNX Runtime's constructor is not called. The attributes that it would make are those of the
    session of the whole model.
    """

    _source: Source
    _settings: Settings
    _executions: Executions

    def _load(self) -> Executions:
        """Load the model as it was asked for."""
        raise NotImplementedError

    def _here(self) -> Executions:
        """What this process has loaded: the threads of a session do not survive a fork."""
        if self._executions.process != os.getpid():
            self._load_anew()
        return self._executions

    def _load_anew(self) -> None:
        executions = self._load()
        if self._executions.process != executions.process:
            _of_the_parent.append(self._executions)
        self._executions = executions

    def _whole(self) -> Any:
        """ONNX Runtime's session of the whole model.

        Raises
        ------
        ModelError : ONNX Runtime refuses it
        """
        whole = self._here().whole
        whole.is_lent = True
        return whole.session()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that ONNX Runtime's sessions have; it is called for no others."""
        if name in session_attributes():
            return getattr(self._whole(), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def get_inputs(self) -> list[NodeArg]:
        """Inputs of the model, those not counted that have a default."""
        return list(self._executions.first.loaded.inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Outputs of the model."""
        return list(self._executions.first.loaded.outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs that have a default."""
        return list(self._executions.first.loaded.overridable)

    def get_modelmeta(self) -> ModelMetadata:
        """What the file tells about the model."""
        return self._executions.first.loaded.metadata

    def get_session_options(self) -> Any:
        """Return a copy of the options that the model is loaded with."""
        return self._here().whole.options

    def get_providers(self) -> list[str]:
        """Where ONNX Runtime runs what it is given, in order of preference."""
        if self._executions.whole.is_loaded:
            return list(self._whole().get_providers())
        return self._settings.names

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Options of each provider; those for CPUs have none."""
        if self._executions.whole.is_loaded:
            return dict(self._whole().get_provider_options())
        return {name: {} for name in self._settings.names}

    def set_providers(self, providers: Any = None, provider_options: Any = None) -> None:
        """Load the model anew for other providers; None means the CPU.

        Raises
        ------
        ParameterError : they are not what ONNX Runtime takes
        ModelError : the model cannot be loaded with them; then the session stays as it was
        """
        before, self._settings = (
            self._settings,
            self._settings.with_providers(providers, provider_options),
        )
        try:
            self._load_anew()
        except BaseException:
            self._settings = before
            raise

    def disable_fallback(self) -> None:
        """Let `run` raise what goes wrong in a provider."""
        self._fall_back(False)

    def enable_fallback(self) -> None:
        """Let `run` try the CPU where another provider fails."""
        self._fall_back(True)

    def _fall_back(self, falls_back: bool) -> None:
        self._settings = self._settings.falling_back(falls_back)
        self._here().whole.fall_back(falls_back)
