"""Model files: reading and checking them with their weights; inputs, outputs and metadata."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, inliner
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model
from onnx.external_data_helper import uses_external_data as is_external

from tconv.arrays.onnx_constants import stored_array
from tconv.errors import ModelError, ParameterError
from tconv.onnx.model.nodes import (
    NotPartitionable,
    all_nodes,
    is_conv_transpose,
    is_operator,
    name_of,
    type_name,
)
from tconv.system.files import as_path, regular_file

__all__ = [
    "ModelMetadata",
    "NodeArg",
    "Source",
    "as_source",
    "check_weights",
    "metadata_of",
    "node_arg",
    "parse_type",
    "read_model",
]

Source = str | bytes
"""A model: the absolute path of its file, or its bytes."""

_LARGEST_BYTES = 2**31 - 2**20  # protobuf cannot hold more than 2 GiB
_NO_VERSION = 2**63 - 1  # ONNX Runtime's version of a model that has none
_STRING, _MESSAGE = 9, 11  # protobuf's numbers of field types
_FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class NodeArg:
    """Name, type and shape of an input or output; a size that may vary is a name or None.

    If `has_rank` is False, even the number of axes is unknown, and the shape is [].

    >>> NodeArg("x", "tensor(float)", ["N", 3, None, None]).shape
    ['N', 3, None, None]
    """

    name: str
    type: str
    shape: list[int | str | None]
    has_rank: bool = field(default=True, repr=False)


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of a model, under the names that ONNX Runtime uses.

    >>> ModelMetadata({}, "", "", "", "main", "pytorch", 0).producer_name
    'pytorch'
    """

    custom_metadata_map: dict[str, str]
    description: str
    domain: str
    graph_description: str
    graph_name: str
    producer_name: str
    version: int


def as_source(model: Any) -> Source:
    """Return the absolute path or the bytes of a model that a caller passed."""
    if isinstance(model, ModelProto):
        try:
            return bytes(model.SerializeToString())
        except (EncodeError, ValueError) as error:
            raise ModelError(
                "model is a ModelProto of more than 2 GB, which protobuf cannot hold; save it with "
                "external data and pass the path."
            ) from error
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model)
    if isinstance(model, str | os.PathLike):
        return os.path.abspath(as_path(model, "model"))
    raise ParameterError(
        f"model must be a path, bytes or an onnx.ModelProto, not {type(model).__name__}; pass one "
        "of these."
    )


def read_model(
    source: Source,
    check_files: Callable[[list[str]], None] | None = None,
    *,
    weights: bool = True,
) -> ModelProto:
    """Parse a model and load its weights; functions with a ConvTranspose or Conv are inlined.

    `check_files` receives the names of external data files before they are opened. With
    ``weights=False`` external data is not loaded.

    Raises
    ------
    ModelError : the model is damaged, no ONNX model, or its weights are missing
    OSError : the file cannot be read
    NotPartitionable : only ONNX Runtime can read the model
    """
    data = source if isinstance(source, bytes) else _content(source)
    if data[4:8] == b"ORTM":
        raise NotPartitionable("ORT format")
    what = f"{source!r}" if isinstance(source, str) else "model"
    if not data:
        raise ModelError(f"{what} is empty; pass an ONNX model.")
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{what} is damaged or no ONNX model: it cannot be parsed; export or download it again."
        ) from error
    _check_strings(model, what)
    if not model.ir_version or not model.HasField("graph"):
        raise ModelError(f"{what} holds no graph; pass an ONNX model.")
    external = [tensor for tensor in _tensors(model) if weights and is_external(tensor)]
    if external:
        if check_files:
            check_files(list(dict.fromkeys(_location(tensor) for tensor in external)))
        _load_external(model, external, source)
    nodes = (node for function in model.functions for node in function.node)
    if any(is_operator(node, "Conv", "ConvTranspose") for node in nodes):
        model = inliner.inline_local_functions(model)
    _refuse_group_0(model)
    return model


def _content(path: str) -> bytes:
    with regular_file(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_BYTES:
            raise NotPartitionable("file over 2 GB")
        return file.read()


def _check_strings(message: Any, what: str) -> None:
    """Refuse strings that are not UTF-8, which protobuf returns as bytes."""
    if isinstance(message, TensorProto):  # the general way would copy its elements
        strings = [message.name, message.doc_string]
        strings += [text for each in message.external_data for text in (each.key, each.value)]
        _refuse_bytes(strings, what)
        return
    for field_, value in message.ListFields():
        kind = field_.type
        if kind == _STRING:
            _refuse_bytes(value if field_.is_repeated else (value,), what)
        elif kind == _MESSAGE and field_.name != "value_info":  # which tconv does not read
            for each in value if field_.is_repeated else (value,):
                _check_strings(each, what)


def _refuse_bytes(strings: Iterable[Any], what: str) -> None:
    if any(isinstance(text, bytes) for text in strings):
        raise ModelError(
            f"{what} is damaged: a word in it is not UTF-8; export or download it again."
        )


def _refuse_group_0(model: ModelProto) -> None:
    """Refuse ``group=0``: ONNX Runtime 1.32 divides by it at load time, which ends the process."""
    for node in (node for node, _ in all_nodes(model) if is_conv_transpose(node)):
        if any(each.name == "group" and not each.i for each in node.attribute):
            raise ModelError(
                f"node {name_of(node)!r}: group=0 must be at least 1; export or download the model "
                "again."
            )


def _load_external(model: ModelProto, tensors: list[TensorProto], source: Source) -> None:
    if isinstance(source, bytes):
        raise NotPartitionable("weights outside of the bytes given")
    folder, total = os.path.dirname(source), 0
    for tensor in tensors:
        try:
            info = ExternalDataInfo(tensor)
        except ValueError as error:
            raise ModelError(
                f"{source!r} tells no sound place of its weight {tensor.name!r}: {error}; export "
                "or download it again."
            ) from error
        file = os.path.join(folder, info.location)
        if not os.path.isfile(file):
            raise ModelError(
                f"{source!r} keeps its weight {tensor.name!r} in {info.location!r}, which is "
                f"missing; put that file into {folder!r}."
            )
        total += info.length or os.path.getsize(file)
    if total > _LARGEST_BYTES:
        raise NotPartitionable("external data over 2 GB")
    try:
        load_external_data_for_model(model, folder)
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{source!r} keeps weights in other files, which cannot be read: {error}; export or "
            "download it again."
        ) from error


def _location(tensor: TensorProto) -> str:
    return next((each.value for each in tensor.external_data if each.key == "location"), "")


def _tensors(model: ModelProto, *, sparse: bool = False) -> Iterator[TensorProto]:
    """Yield all tensors of a model; with `sparse`, the stored values of sparse ones as well."""

    def walk(graph: onnx.GraphProto) -> Iterator[TensorProto]:
        yield from graph.initializer
        yield from (each.values for each in graph.sparse_initializer if sparse)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                if sparse and attribute.HasField("sparse_tensor"):
                    yield attribute.sparse_tensor.values
                yield from attribute.tensors
                if attribute.HasField("g"):
                    yield from walk(attribute.g)
                for inner in attribute.graphs:
                    yield from walk(inner)

    return walk(model.graph)


def check_weights(model: Any) -> None:
    """Refuse a model whose weights hold NaN, which would make NaN of all that they touch.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto

    Raises
    ------
    ModelError : a weight holds NaN, with its name and place; or the model cannot be read
    OSError : the file cannot be read

    >>> import tconv.onnx
    >>> layer = tconv.ConvTranspose1d(1, 1, 2, rng=0)
    >>> layer.weight.value[0, 0, 1] = np.nan
    >>> tconv.onnx.check_weights(layer.to_onnx())
    Traceback (most recent call last):
    ...
    tconv.errors.ModelError: weight 'weight' holds NaN at [0, 0, 1], which would make NaN of all \
that it touches; export or train the model again.
    """
    try:
        tensors = list(_tensors(read_model(as_source(model)), sparse=True))
    except NotPartitionable:
        return
    for tensor in tensors:
        if tensor.data_type in _FLOATING:
            values = stored_array(tensor)
            bad = np.isnan(values)
            if bad.any():
                at = [int(i) for i in np.argwhere(bad)[0]]
                raise ModelError(
                    f"weight {tensor.name!r} holds NaN at {at}, which would make NaN of all that "
                    "it touches; export or train the model again."
                )


def metadata_of(model: ModelProto) -> ModelMetadata:
    """Return a model's metadata as ONNX Runtime would."""
    return ModelMetadata(
        {entry.key: entry.value for entry in model.metadata_props},
        model.doc_string,
        model.domain,
        model.graph.doc_string,
        model.graph.name,
        model.producer_name,
        model.model_version if model.HasField("model_version") else _NO_VERSION,
    )


def node_arg(value: ValueInfoProto) -> NodeArg:
    """Describe an input or output as ONNX Runtime would."""
    shape: list[int | str | None] = []
    for size in value.type.tensor_type.shape.dim:
        known = size.HasField("dim_value") and size.dim_value >= 0
        shape.append(size.dim_value if known else size.dim_param or None)
    has_rank = value.type.tensor_type.HasField("shape")
    return NodeArg(value.name, _type_text(value.type), shape, has_rank)


def _type_text(kind: TypeProto) -> str:
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        return f"tensor({type_name(kind.tensor_type.elem_type)})"
    if which == "sequence_type":
        return f"seq({_type_text(kind.sequence_type.elem_type)})"
    if which == "optional_type":
        return f"optional({_type_text(kind.optional_type.elem_type)})"
    return str(which)


def parse_type(text: str) -> TypeProto:
    """Convert a type in ONNX Runtime's notation to a TypeProto without a shape.

    >>> parse_type("seq(tensor(float))").sequence_type.elem_type.tensor_type.elem_type
    1
    """
    word, _, inner = text.removesuffix(")").partition("(")
    if word == "seq":
        return onnx.helper.make_sequence_type_proto(parse_type(inner))
    if word == "optional":
        return onnx.helper.make_optional_type_proto(parse_type(inner))
    if word != "tensor":
        raise NotPartitionable(f"a value of type {text}")
    return onnx.helper.make_tensor_type_proto(TensorProto.DataType.Value(inner.upper()), None)
