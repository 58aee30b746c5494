"""Randomly broken models: one field of the record, or some bytes of the file.

The same seed breaks a model in the same way.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["SOUND", "mutant"]

_NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    10,
    16,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
)
_FLOATS = (0.0, -1.0, 1e38, float("inf"), float("nan"))
_WORDS = ("", "x", "y", "w", "\0", "a/b", "../up", "ä😀", "Conv", "ConvTranspose", "Relu", "If",
          "Identity", "Constant", "Flatten", "ai.onnx", "ai.onnx.ml", "SAME_UPPER", "N", "0",
          "n" * 5000, "line\nbreak", "\x1b[31m")  # fmt: skip
_NAMES = (*_WORDS, "a", "b", "up", "d", "w1")
_OPS = (*_WORDS, "MaxPool", "Reshape", "Gemm", "Concat", "Slice", "Resize", "Shape", "Loop", "Mul")


def _weights(seed: int, *shape: int) -> TensorProto:
    values = np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)
    return numpy_helper.from_array(values, "w" if seed == 0 else f"w{seed}")


def _model(nodes: list[Any], stored: list[TensorProto], size: Any, output: str) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, size)],
        [helper.make_tensor_value_info(output, 1, None)],
        stored,
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _upscaler() -> ModelProto:
    up = helper.make_node(
        "ConvTranspose", ["x", "w"], ["up"], name="up", strides=[2, 2], pads=[1, 1, 1, 1]
    )
    return _model([up, helper.make_node("Relu", ["up"], ["y"])], [_weights(0, 3, 2, 4, 4)],
                  (1, 3, 8, 8), "y")  # fmt: skip


def _classifier() -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Constant", [], ["w1"], value=_weights(1, 4, 2, 2, 2)),
        helper.make_node("ConvTranspose", ["c", "w1"], ["d"], name="back", strides=[2, 2]),
        helper.make_node("Concat", ["d", "d"], ["e"], axis=1),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["y"]),
    ]
    return _model(nodes, [_weights(0, 4, 3, 3, 3), _weights(2, 256, 3)], (1, 3, 8, 8), "y")


def _branching() -> ModelProto:
    inner = helper.make_graph(
        [helper.make_node("ConvTranspose", ["x", "w"], ["z"], name="inside", strides=[2, 2])],
        "branch", [], [helper.make_tensor_value_info("z", 1, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner),
    ]
    return _model(nodes, [_weights(0, 3, 1, 2, 2)], ("N", 3, "H", "W"), "y")


SOUND = (_upscaler(), _classifier(), _branching())


def mutant(seed: int) -> bytes:
    """A model of `SOUND` after one to three changes."""
    rng = random.Random(seed)
    model = ModelProto()
    model.CopyFrom(rng.choice(SOUND))
    data = None
    for _ in range(rng.choice((1, 1, 2, 3))):
        if data is None and rng.random() < 0.7:
            _change_field(rng, model)
        else:
            data = _change_bytes(rng, model.SerializeToString() if data is None else data)
    return model.SerializeToString() if data is None else data


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                yield from _messages(each)


def _change_field(rng: random.Random, model: ModelProto) -> None:
    message = rng.choice(list(_messages(model)))
    field = rng.choice(list(message.DESCRIPTOR.fields))
    if rng.random() < 0.7 and message.ListFields():  # mostly one that is set
        field = rng.choice(message.ListFields())[0]
    name = field.name
    if field.type == field.TYPE_MESSAGE:
        _change_message(rng, message, field)
        return
    value = _drawn(rng, field)
    if not field.is_repeated:
        if rng.random() < 0.15:
            message.ClearField(name)
        else:
            setattr(message, name, value)
        return
    entries = getattr(message, name)
    at = rng.randrange(len(entries) + 1)
    if at == len(entries) or rng.random() < 0.2:
        entries.append(value)
    elif rng.random() < 0.3:
        del entries[at]
    else:
        entries[at] = value


def _change_message(rng: random.Random, message: Any, field: Any) -> None:
    name = field.name
    if not field.is_repeated:
        if message.HasField(name) and rng.random() < 0.5:
            message.ClearField(name)
        else:
            getattr(message, name).SetInParent()
        return
    entries = getattr(message, name)
    if not entries or rng.random() < 0.2:
        entries.add()
        return
    at = rng.randrange(len(entries))
    what = rng.randrange(3)
    if what == 0:
        del entries[at]
    elif what == 1:
        entries.add().CopyFrom(entries[at])
    else:
        other = rng.randrange(len(entries))
        kept = type(entries[at])()
        kept.CopyFrom(entries[at])
        entries[at].CopyFrom(entries[other])
        entries[other].CopyFrom(kept)


def _drawn(rng: random.Random, field: Any) -> Any:
    if field.type == field.TYPE_STRING:
        return rng.choice(_OPS if field.name == "op_type" else _NAMES)
    if field.type == field.TYPE_BYTES:
        return rng.choice((b"", b"\xff\xfe", b"SAME_LOWER", bytes(64), b"\0" * 3))
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice(_FLOATS)
    if field.type == field.TYPE_ENUM:
        return rng.choice(list(field.enum_type.values_by_number))
    narrow = field.type in (field.TYPE_INT32, field.TYPE_UINT32, field.TYPE_SINT32)
    number = rng.choice(_NUMBERS)
    number = max(min(number, 2**31 - 1), -(2**31)) if narrow else number
    return abs(number) if field.type in (field.TYPE_UINT32, field.TYPE_UINT64) else number


def _change_bytes(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    size = rng.choice((1, 1, 2, 8, 40))
    noise = bytes(rng.randrange(256) for _ in range(size))
    what = rng.randrange(6)
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + data[at + size :]
    if what == 2:
        return data[:at] + noise + data[at:]
    if what == 3:
        return data[: at + size] + data[at:]
    if what == 4:  # a name that is not UTF-8, of the same length
        word = rng.choice((b"conv", b"up", b"back", b"inside", b"net", b"then_branch", b"strides"))
        return data.replace(word, b"\xff\xc3" + word[2:], rng.choice((1, 2, 99)))
    return data[:at] + noise + data[at + size :]
