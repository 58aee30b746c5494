"""Good calls of streams, and of the layers that came with them, for the registry."""

import random
from functools import partial

import numpy as np

import tconv
import tconv.onnx
from hostile_registry import HEAVY, call, x


def net():
    return tconv.Sequential(
        tconv.Conv1d(2, 2, 3, padding=1, rng=0),
        tconv.Residual(tconv.Snake(2)),
        tconv.ConvTranspose1d(2, 2, 4, stride=2, rng=0),
    )


def stream():
    made = net().stream()
    made.push(x())
    return made


def layers():
    return random.choice([tconv.Tanh, tconv.Sigmoid])()


@call("Layer.stream")
def _(folder):
    def pushed(**given):
        made = net().stream(**given)
        return made.push(np.ones((made.positions.size, 2, 2), np.float32)), repr(made)

    return partial(pushed, batch=1, frames=2, channels=2, dtype="float32", threads=1)


@call("Stream.push")
@call("Stream.push")
@call("Stream.push")
def _(folder):
    return partial(stream().push, x(), active=np.ones(1, bool))


for name in ("flush", "reset"):

    @call(f"Stream.{name}")
    def _(folder, name=name):
        return partial(getattr(stream(), name), np.ones(1, bool))


@call("Stream.warm")
def _(folder):
    return partial(stream().warm, 3)


for name in ("copy", "state_dict"):

    @call(f"Stream.{name}")
    def _(folder, name=name):
        return partial(getattr(stream(), name))


@call("Stream.load_state_dict")
def _(folder):
    return partial(stream().load_state_dict, stream().state_dict())


@call("Stream.load_state_dict")
@call("Stream.load_state_dict")
def _(folder):
    made = stream()

    def load(**changes):
        made.load_state_dict(made.state_dict() | changes)
        return made.push(x()), made.flush()

    return partial(load, **made.state_dict())


@call("onnx.Stream", HEAVY, outside=(OSError,))
@call("onnx.Stream", HEAVY, outside=(OSError,))
def _(folder):
    def pushed(*args, **given):
        made = tconv.onnx.Stream(*args, **given)
        return made.push(x()), made.flush()

    model = tconv.ConvTranspose1d(2, 3, 3, rng=0).to_onnx()
    given = {"inputs": {"x": (1, 2, None)}, "outputs": ["y"], "constants": {}, "batch": 1}
    return partial(pushed, model, **given, threads=1, frames=4)


# ---- layers --------------------------------------------------------------------------------------


@call("Tanh")
@call("Sigmoid")
def _(folder):
    return partial(random.choice([tconv.Tanh, tconv.Sigmoid]))


@call("_Saturating.compute")
def _(folder):
    return partial(layers().compute, x())


@call("_Saturating.pull_back")
def _(folder):
    layer = layers()
    y, kept = layer.compute(x())
    return partial(lambda dy: layer.pull_back(kept, dy), y)


@call("Snake")
@call("Snake")
def _(folder):
    def used(*args, **keywords):
        layer = tconv.Snake(*args, **keywords)
        return layer(x().astype(keywords["dtype"])), layer.backward(np.ones((1, 2, 4), "f4"))

    return partial(used, 2, 0.5, dtype="float32")


@call("Snake.compute")
def _(folder):
    return partial(random.choice([tconv.Snake(2), tconv.Snake(alpha=2)]).compute, x())


@call("Snake.pull_back")
def _(folder):
    layer = random.choice([tconv.Snake(2), tconv.Snake(alpha=2)])
    y, kept = layer.compute(x())
    return partial(lambda dy: layer.pull_back(kept, dy), y)


@call("Snake.describe")
def _(folder):
    return partial(tconv.Snake(2).describe)


@call("Residual")
@call("Residual")
def _(folder):
    if random.random() < 0.5:
        return partial(tconv.Residual, tconv.ReLU(), tconv.Tanh())
    return partial(tconv.Residual, {"a": tconv.ReLU()})


@call("Residual.compute")
@call("Residual.predict")
def _(folder):
    layer = tconv.Residual(tconv.Snake(2))
    return partial(random.choice([layer.compute, layer.predict]), x())


@call("Residual.pull_back")
def _(folder):
    layer = tconv.Residual(tconv.Snake(2))
    y, kept = layer.compute(x())
    return partial(lambda dy: layer.pull_back(kept, dy), y)
