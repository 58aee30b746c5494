"""Sessions of ONNX Runtime for a whole model and for subgraphs, and their error messages."""

import os
import re
from collections.abc import Collection, Iterable, Sequence
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
from tconv.onnx.model.nodes import NotPartitionable
from tconv.onnx.ort.options import Settings
from tconv.system.fork_lock import ForkLock

__all__ = [
    "WholeModel",
    "check_files",
    "clean_message",
    "copied_options",
    "load",
    "session_attributes",
]

_CONFIG_OF_MODEL = "ort_config"  # metadata with options, which read_config_from_model reads
_MARKER, _MARKED = "tconv.marker", (1,) * 9  # a name and a shape that no model uses
_loading = ForkLock()  # held while a whole model is loaded


def load(source: Source, settings: Settings, *, spin: bool) -> Any:
    """Load a model with ONNX Runtime; with ``spin=False`` its threads stop when a run ends.

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
    if not int(keywords["enable_fallback"]):  # which the constructor of 1.20 ignores
        session.disable_fallback()
    return session


@cache
def session_attributes() -> frozenset[str]:
    """Names of the attributes of a session of the installed ONNX Runtime."""
    return frozenset(vars(load(_without_nodes([], [_MARKER]), Settings(threads=1), spin=True)))


def copied_options(model: ModelProto, read: Collection[str], settings: Settings) -> Settings:
    """Return settings for a model of which tconv reads some initialisers: with private copies.

    `sess_options` may replace initialisers and sizes of inputs, but do not tell which. So two
    models without nodes are loaded with these options: one has the model's inputs, the other has
    initialisers with the names of those that tconv reads. ONNX Runtime replaces all other
    initialisers in the subgraphs.

    Raises
    ------
    NotPartitionable : the options change what tconv has read, or ONNX Runtime refuses them
    """
    if any(each.key == _CONFIG_OF_MODEL for each in model.metadata_props):
        raise NotPartitionable(f"{_CONFIG_OF_MODEL} of the model")
    if settings.sess_options is None:
        return settings
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    given = stored.intersection(value.name for value in (*model.graph.input, *model.graph.output))
    names = sorted({*read, *given})
    try:
        of_inputs = load(_without_nodes(inputs, [_MARKER]), settings, spin=True)
        of_names = load(_without_nodes([], names), settings, spin=True)
        values = of_names.run(names, {})
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        cause = error.__cause__  # ONNX Runtime's, if `load` has raised
        why = clean_message(cause if isinstance(cause, Exception) else error)
        raise NotPartitionable(f"sess_options: {why}") from error
    for name, value in zip(names, values, strict=True):
        if np.shape(value) != _MARKED:
            raise NotPartitionable(f"sess_options: initialiser {name!r} replaced")
    declared = [node_arg(value).shape for value in inputs]
    if [value.shape for value in of_inputs.get_inputs()] != declared:
        raise NotPartitionable("sess_options: sizes of inputs replaced")
    return settings.with_options(of_inputs.get_session_options(), of_names.get_session_options())


def check_files(locations: Iterable[str], settings: Settings) -> None:
    """Leave a model to ONNX Runtime if the caller's options replace its external data by memory.

    Raises
    ------
    NotPartitionable : ONNX Runtime finds a file where there is none, or no folder can be made
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
                    raise NotPartitionable(f"sess_options: file {location!r} replaced")
    except OSError as error:
        raise NotPartitionable(f"sess_options: {error}") from error


def _model_with_file(location: str) -> bytes:
    """Return a model without nodes whose output is the first byte of an external file."""
    tensor = TensorProto(name=_MARKER, data_type=TensorProto.UINT8, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "1")):
        tensor.external_data.add(key=key, value=value)
    return _model([], [tensor], [make_tensor_value_info(_MARKER, TensorProto.UINT8, [1])])


def _without_nodes(inputs: Sequence[ValueInfoProto], names: Sequence[str]) -> bytes:
    """Return a model with these inputs, whose outputs are initialisers of the marker's shape."""
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


class WholeModel:
    """A model as one session of ONNX Runtime, loaded at the first request."""

    def __init__(self, source: Source, settings: Settings, stamp: Any = None) -> None:
        self._source, self._settings = source, settings
        self.stamp = stamp or _stamp(source)
        self._session: Any = None
        self.is_exposed = False  # to the caller, who may have bound values to it

    @property
    def has_changed(self) -> bool:
        """Whether the file has changed since the session was made."""
        return _stamp(self._source) != self.stamp

    @property
    def is_loaded(self) -> bool:
        """Whether the session is loaded."""
        return self._session is not None

    @property
    def options(self) -> Any:
        """A copy of the options that the session is loaded with."""
        session = self._session or load(_without_nodes([], [_MARKER]), self._settings, spin=True)
        return session.get_session_options()

    def fall_back(self, falls_back: bool) -> None:
        """Let a run try the CPU if another provider fails, or not."""
        self._settings = self._settings.falling_back(falls_back)
        if self._session is not None:
            session = self._session
            (session.enable_fallback if falls_back else session.disable_fallback)()

    def session(self) -> Any:
        """Return the session; threads that ask at the same time get the same one.

        Raises
        ------
        ModelError : ONNX Runtime refuses the model, or its file has changed
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
    """Identity of a file: device, inode, size and time of change."""
    if isinstance(source, bytes):
        return ()
    try:
        found = os.stat(source)
    except OSError:
        return (0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def clean_message(error: Exception) -> str:
    """Return ONNX Runtime's message without error codes, source files and C++ signatures.

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
