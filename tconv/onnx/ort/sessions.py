"""ONNX Runtime sessions of a model and of its pieces, and their error messages."""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from onnx import GraphProto, ModelProto, OperatorSetIdProto, TensorProto, ValueInfoProto
from onnx.helper import make_tensor_value_info

from tconv.errors import ModelError
from tconv.onnx.model.model import Source, node_arg
from tconv.onnx.model.nodes import NotCut
from tconv.onnx.ort.options import Settings
from tconv.onnx.partition.partition import Cut
from tconv.system.fork_lock import ForkLock

__all__ = [
    "Whole",
    "check_files",
    "clean_message",
    "copied_options",
    "load",
    "session_attributes",
]

_CONFIG_OF_MODEL = "ort_config"  # metadata that hold options, for read_config_from_model
_MARKER, _MARKED = "tconv.marker", (1,) * 9  # a name and a shape that nobody uses
_loading = ForkLock()  # held while a whole model is loaded


def load(source: Source, settings: Settings, *, spin: bool) -> Any:
    """Load a model with ONNX Runtime; without `spin` its threads stop as a run ends.

    Raises
    ------
    ModelError : ONNX Runtime refuses it
    """
    try:
        options, keywords = settings.options(spin=spin), settings.keywords
        session = onnxruntime.InferenceSession(source, options, **keywords)
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        what = f"{source!r}" if isinstance(source, str) else "the model"
        raise ModelError(
            f"ONNX Runtime refuses {what}: {clean_message(error)}; check the model."
        ) from error
    if not int(keywords["enable_fallback"]):  # of which the constructor of 1.20 does not know
        session.disable_fallback()
    return session


@cache
def session_attributes() -> frozenset[str]:
    """Names of the attributes of ONNX Runtime's sessions, in the version that is installed."""
    return frozenset(vars(load(_without_nodes([], [_MARKER]), Settings(threads=1), spin=True)))


def copied_options(model: ModelProto, division: Cut, settings: Settings) -> Settings:
    """Return settings for a model that is cut, with copies of the options that nobody changes.

    Which initialisers and sizes `sess_options` replace cannot be read of them. So two models
    without nodes are loaded with them: one has the same inputs, the other has initialisers under
    the names of what tconv reads. All other initialisers are replaced in the pieces.

    Raises
    ------
    NotCut : the model is not what its file says, or ONNX Runtime refuses the options
    """
    if any(each.key == _CONFIG_OF_MODEL for each in model.metadata_props):
        raise NotCut(f"{_CONFIG_OF_MODEL} of the model")
    if settings.sess_options is None:
        return settings
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    read = {name for step in division.layers for layer in step for name in layer.needs}
    given = stored.intersection(value.name for value in (*model.graph.input, *model.graph.output))
    names = sorted(read | given)
    try:
        of_inputs = load(_without_nodes(inputs, [_MARKER]), settings, spin=True)
        of_names = load(_without_nodes([], names), settings, spin=True)
        values = of_names.run(names, {})
    except Exception as error:  # what ONNX Runtime raises has no common class
        cause = error.__cause__  # of a ModelError
        why = clean_message(cause if isinstance(cause, Exception) else error)
        raise NotCut(f"sess_options: {why}") from error
    for name, value in zip(names, values, strict=True):
        if np.shape(value) != _MARKED:
            raise NotCut(f"sess_options: initialiser {name!r} replaced")
    declared = [node_arg(value).shape for value in inputs]
    if [value.shape for value in of_inputs.get_inputs()] != declared:
        raise NotCut("sess_options: sizes of inputs replaced")
    return settings.with_options(of_inputs.get_session_options(), of_names.get_session_options())


def check_files(locations: Iterable[str], settings: Settings) -> None:
    """Leave a model to ONNX Runtime where a caller has put memory in the place of its files.

    Raises
    ------
    NotCut : ONNX Runtime finds a file where there is none, or there is no place to try it
    """
    if not hasattr(settings.sess_options, "add_external_initializers_from_files_in_memory"):
        return
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder, "names.onnx")
            for location in locations:
                path.write_bytes(_model_with_file(location))
                with suppress(ModelError):
                    load(str(path), settings, spin=True)
                    raise NotCut(f"sess_options: file {location!r} replaced")
    except OSError as error:
        raise NotCut(f"sess_options: {error}") from error


def _model_with_file(location: str) -> bytes:
    """A model without nodes, whose output is the first byte of a file."""
    tensor = TensorProto(name=_MARKER, data_type=TensorProto.UINT8, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "1")):
        tensor.external_data.add(key=key, value=value)
    return _model([], [tensor], [make_tensor_value_info(_MARKER, TensorProto.UINT8, [1])])


def _without_nodes(inputs: Sequence[ValueInfoProto], names: Sequence[str]) -> bytes:
    """A model with these inputs, whose outputs are initialisers that nobody would make."""
    marker = TensorProto(data_type=TensorProto.FLOAT, dims=_MARKED, float_data=[0.0])
    stored = []
    for name in names:
        stored.append(TensorProto(name=name))
        stored[-1].MergeFrom(marker)
    outputs = [make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    return _model(inputs, stored, outputs)


def _model(
    inputs: Sequence[ValueInfoProto],
    stored: Sequence[TensorProto],
    outputs: Sequence[ValueInfoProto],
) -> bytes:
    opset = [OperatorSetIdProto(version=13)]
    graph = GraphProto(name="names", input=inputs, initializer=stored, output=outputs)
    return bytes(ModelProto(ir_version=8, opset_import=opset, graph=graph).SerializeToString())


class Whole:
    """A model as one session of ONNX Runtime, loaded when it is first asked for."""

    def __init__(self, source: Source, settings: Settings, stamp: Any = None) -> None:
        self._source, self._settings = source, settings
        self.stamp = stamp or _stamp(source)
        self._session: Any = None
        self.is_lent = False  # to a caller, who may have bound values to it

    @property
    def has_changed(self) -> bool:
        """Whether the file is another one than it was."""
        return _stamp(self._source) != self.stamp

    @property
    def is_loaded(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    @property
    def options(self) -> Any:
        """A copy of the options that it is loaded with."""
        session = self._session or load(_without_nodes([], [_MARKER]), self._settings, spin=True)
        return session.get_session_options()

    def fall_back(self, falls_back: bool) -> None:
        """Let a run try the CPU where another provider fails, or not."""
        self._settings = self._settings.falling_back(falls_back)
        if self._session is not None:
            session = self._session
            (session.enable_fallback if falls_back else session.disable_fallback)()

    def session(self) -> Any:
        """Return the session; threads that ask at once are given the same one.

        Raises
        ------
        ModelError : ONNX Runtime refuses the model, or its file is no longer what it was
        """
        if self._session is None:
            with _loading:
                if self._session is None:
                    if self.has_changed:
                        raise ModelError(
                            f"{self._source!r} is no longer the file that the session was made "
                            "of; make another session."
                        )
                    self._session = load(self._source, self._settings, spin=True)
        return self._session


def _stamp(source: Source) -> tuple[int, ...]:
    """What tells a file from another one in its place."""
    if isinstance(source, bytes):
        return ()
    try:
        found = os.stat(source)
    except OSError:
        return (0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def clean_message(error: Exception) -> str:
    """Say what ONNX Runtime says without its codes, source files and C++ signatures.

    >>> clean_message(ValueError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Bad size. "))
    'Bad size'
    """
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"Non-zero status code returned while running (\w+) node. ", r"\1 node. ", text)
    text = re.sub(r"(\w+) node. Name:'(.*?)' Status Message: ", r"node '\2' (\1): ", text)
    lacks = r"ONNX Runtime has no float64 \1: export the model in float32 (PyTorch: model.float())"
    text = re.sub(r"(\w+) operator does not support double yet", lacks, text)
    text = re.sub(r"/\S+\.(h|cc):\d+ .*?\) (const )?(\[.*?\] )?", "", text)
    text = re.sub(r"\w+\.(h|cc):\d+ \w+ ", "", text)
    return " ".join(text.split()).rstrip(". ")[:400]
