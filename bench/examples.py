"""Networks of the examples, by tconv's layers, by PyTorch and by ONNX Runtime.

Each function takes a type and a number of threads and returns a call, as those of peers.py do. All
compute the same from the same start, so that every answer can be compared with that in float64.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from bench.peers import Thunk, session
from tconv.nn.activations import LeakyReLU, ReLU
from tconv.nn.conv import Conv2d, ConvTranspose2d
from tconv.nn.layer import Sequential

TILE = 64  # pixels, as the example does it by default
WHOLE = 10**6  # more than any picture has


class Network(NamedTuple):
    """A network: its title, the steps of a call, and its contenders' names and functions."""

    title: str
    steps: int
    contenders: dict[str, str]


def example(name: str) -> Any:
    """The module of an example; their folder is not a package."""
    file = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- the same layers elsewhere -------------------------------------------------------------------


def in_dtype(network: Sequential, dtype: str) -> Sequential:
    """The same layers with the same values in another type."""
    layers: dict[str, Any] = {}
    for name, layer in network.members():
        layers[name] = layer
        if isinstance(layer, Conv2d | ConvTranspose2d):
            layers[name] = type(layer)(
                layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride,
                padding=layer.padding, bias=layer.bias is not None, dtype=dtype,
            )  # fmt: skip
    made = Sequential(layers)
    made.load_state_dict(network.state_dict())
    return made


def in_torch(network: Sequential) -> Any:
    """The same layers with the same values in PyTorch."""
    import torch
    from torch import nn

    twin = nn.Sequential()
    for name, layer in network.members():
        match layer:
            case Conv2d() | ConvTranspose2d():
                kind = nn.Conv2d if isinstance(layer, Conv2d) else nn.ConvTranspose2d
                made = kind(
                    layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,
                    layer.padding, bias=layer.bias is not None,
                    dtype=getattr(torch, layer.dtype.name),
                )  # fmt: skip
            case LeakyReLU():
                made = nn.LeakyReLU(layer.negative_slope)
            case ReLU():
                made = nn.ReLU()
        twin.add_module(name, made)
    twin.load_state_dict({n: torch.from_numpy(value) for n, value in network.state_dict().items()})
    return twin


def in_onnx(network: Sequential, threads: int) -> Any:
    """The same layers with the same values in ONNX Runtime, for one picture of any size."""
    from onnx import helper

    members = dict(network.members())
    nodes, weights, known, last = [], {}, "x", [*members][-1]
    for name, layer in members.items():
        made = "y" if name == last else name
        match layer:
            case Conv2d() | ConvTranspose2d():
                kind = "Conv" if isinstance(layer, Conv2d) else "ConvTranspose"
                own = {f"{name}.{n}": each.value for n, each in layer.named_parameters()}
                weights |= own
                nodes.append(
                    helper.make_node(
                        kind, [known, *own], [made], strides=layer.stride, pads=layer.padding * 2
                    )
                )
            case LeakyReLU():
                slope = layer.negative_slope
                nodes.append(helper.make_node("LeakyRelu", [known], [made], alpha=slope))
            case ReLU():
                nodes.append(helper.make_node("Relu", [known], [made]))
        known = made
    sizes = [(1, 3, f"height of {name}", f"width of {name}") for name in "xy"]
    return session(nodes, weights, *sizes, threads)


# ---- training ------------------------------------------------------------------------------------


def autoencoder(dtype: str, threads: int) -> Thunk:
    """The first epoch of examples/train_autoencoder.py; a call returns the losses of its steps."""
    from tconv.nn.optim import Adam

    module = example("train_autoencoder")
    images, network = module.read_digits(dtype).train, module.autoencoder(dtype=dtype)
    start, batches = network.state_dict(), _batches(module, len(images))

    def call() -> Any:
        network.load_state_dict(start)
        optimiser = Adam(network.parameters(), lr=module.LEARNING_RATE)
        return np.array([module.step(network, optimiser, images[b]) for b in batches], dtype)

    return call


def autoencoder_torch(dtype: str, threads: int) -> Thunk:
    """The same epoch by PyTorch: its layers, its Adam, the same batches."""
    import torch

    torch.set_num_threads(threads)
    module = example("train_autoencoder")
    images = torch.from_numpy(module.read_digits(dtype).train)
    twin = in_torch(module.autoencoder(dtype=dtype))
    start = {name: value.clone() for name, value in twin.state_dict().items()}
    batches = [torch.from_numpy(batch) for batch in _batches(module, len(images))]

    def step(optimiser: Any, batch: Any) -> float:
        optimiser.zero_grad()
        error = torch.nn.functional.mse_loss(twin(batch), batch)
        error.backward()
        optimiser.step()
        return float(error.item())

    def call() -> Any:
        twin.load_state_dict(start)
        optimiser = torch.optim.Adam(twin.parameters(), lr=module.LEARNING_RATE)
        return np.array([step(optimiser, images[b]) for b in batches], dtype)

    return call


def _batches(module: Any, count: int) -> list[Any]:
    return list(module.batches(count, np.random.default_rng(0)))


# ---- a photo -------------------------------------------------------------------------------------


def _doubled(
    tile: int, by: Callable[[Sequential, str, int], Any], dtype: str, threads: int
) -> Thunk:
    """examples/double_photo.py on its own photo, tile by tile as there, by any library."""
    module = example("double_photo")
    if not module.WEIGHTS.is_file():
        raise FileNotFoundError(f"{module.WEIGHTS.name} is missing: `make bench` fetches it.")
    whole = module.read_photo(None)
    _, height, width = whole.shape
    picture = module.as_floats(module.resize(whole, height // 2, width // 2)).astype(dtype)
    network = by(module.upconv7(module.WEIGHTS), dtype, threads)
    return lambda: module.double(network, picture, tile)


def _by_layers(network: Sequential, dtype: str, threads: int) -> Any:
    return in_dtype(network, dtype)


def _by_torch(network: Sequential, dtype: str, threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    twin = in_torch(network)
    return SimpleNamespace(predict=lambda x: twin(torch.from_numpy(x[np.newaxis]))[0].numpy())


def _by_onnx(network: Sequential, dtype: str, threads: int) -> Any:
    made = in_onnx(network, threads)
    return SimpleNamespace(predict=lambda x: made.run(None, {"x": x[np.newaxis]})[0][0])


photo, photo_torch, photo_onnx = (
    partial(_doubled, TILE, by) for by in (_by_layers, _by_torch, _by_onnx)
)
whole_photo, whole_photo_torch, whole_photo_onnx = (
    partial(_doubled, WHOLE, by) for by in (_by_layers, _by_torch, _by_onnx)
)

# ---- all of them ---------------------------------------------------------------------------------


def _by(function: str, *others: str) -> dict[str, str]:
    names = {"layers": function} | {name: f"{function}_{name}" for name in others}
    return {name: f"bench.examples:{each}" for name, each in names.items()}


NETWORKS = {
    "autoencoder": Network("autoencoder, one step of training", 23, _by("autoencoder", "torch")),
    "photo": Network(f"UpConv-7, a photo in tiles of {TILE}", 1, _by("photo", "torch", "onnx")),
    "whole_photo": Network("the same in one piece", 1, _by("whole_photo", "torch", "onnx")),
}
"""All networks. An epoch of the autoencoder has 23 batches."""
