"""Receptive fields in networks: no pixel outside changes a unit, or gets any of its projection."""

import numpy as np
import pytest

from networks import network_of, proto_of
from strategies import integers_like
from tconv.deconvnet.rules.backward import BackwardPass
from tconv.deconvnet.rules.receptive_field import receptive_field, unit_box
from tconv.deconvnet.rules.sparse_map import SparseMap


def w(*shape):
    return integers_like(shape, "float32", 1, largest=3)


POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]}
NETWORKS = {
    "convolutions and a pool": (
        [("Conv", "image a", "c", {"pads": [1, 1, 0, 0]}), ("Relu", "c", "r", {}),
         ("MaxPool", "r", "p", POOL), ("Conv", "p b", "y", {"dilations": [1, 2]})],
        {"a": w(2, 3, 3, 2), "b": w(2, 2, 2, 2)}),
    "a residual": (
        [("Conv", "image a", "c", {"pads": [1, 1, 1, 1]}), ("Add", "c image", "y", {})],
        {"a": w(3, 3, 3, 3)}),
    "branches": (
        [("Conv", "image a", "c", {"pads": [1, 1, 1, 1]}), ("Concat", "image c", "k", {"axis": 1}),
         ("AveragePool", "k", "y", {"kernel_shape": [2, 2], "strides": [2, 2]})],
        {"a": w(3, 3, 3, 3)}),
    "a transposed convolution": (
        [("Conv", "image a", "c", {"strides": [2, 2]}),
         ("ConvTranspose", "c b", "y", {"strides": [2, 3], "pads": [1, 0, 0, 1]})],
        {"a": w(2, 3, 3, 3), "b": w(2, 1, 4, 3)}),
    "padding and interpolation": (
        [("Pad", "image p", "q", {}), ("Resize", "q  s", "u", {"mode": "linear"}),
         ("Conv", "u a", "y", {})],
        {"p": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "s": np.float32([1, 1, 2, 2]),
         "a": w(2, 3, 2, 2)}),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_beyond_the_box_changes_a_unit(name):
    network = network_of(proto_of(*NETWORKS[name], (1, 3, 12, 11)))
    path, recorder = BackwardPass(network, "y", "gradient"), network.recorder(["y"])
    image = integers_like(network.input_shape, "float32", 3, largest=9)
    values = network.recorder(path.recorded)(image)
    shape = values["y"].shape
    for position in [(0, 0), (shape[2] // 2, shape[3] // 2), (shape[2] - 1, shape[3] - 1)]:
        box = receptive_field(network, "y", unit_box(position), network.shapes)
        rows, columns = (slice(max(0, first), last + 1) for first, last in box)
        inside = np.zeros(shape[:0] + network.input_shape, bool)
        inside[:, :, rows, columns] = True
        changed = recorder(np.where(inside, image, 99).astype(np.float32))["y"]
        assert np.array_equal(changed[(..., *position)], values["y"][(..., *position)])
        seed = np.ones((*shape[:2], 1, 1), np.float32)
        back = path.project(SparseMap(seed, position, shape), values).dense()
        assert not back[~inside].any()


def test_sizes_that_are_known():
    """AlexNet's first layers, whose fields are 11, 19 and 51 pixels (Araujo et al. 2019)."""
    nodes = [
        ("Conv", "image a", "conv1", {"strides": [4, 4], "pads": [2] * 4}),
        ("MaxPool", "conv1", "pool1", {"kernel_shape": [3, 3], "strides": [2, 2]}),
        ("Conv", "pool1 b", "conv2", {"pads": [2] * 4}),
    ]
    stored = {"a": w(2, 3, 11, 11), "b": w(2, 2, 5, 5)}
    network = network_of(proto_of(nodes, stored, (1, 3, 224, 224)))
    sizes = []
    for layer in ("conv1", "pool1", "conv2"):
        (first, last), _ = receptive_field(network, layer, unit_box((0, 0)), network.shapes)
        sizes.append(last - first + 1)
    assert sizes == [11, 19, 51]
    assert receptive_field(network, "conv1", unit_box((1, 0)), network.shapes) == ((2, 12), (-2, 8))


def test_what_is_flattened_sees_all():
    nodes = [("Flatten", "image", "f", {}), ("Gemm", "f a", "y", {})]
    network = network_of(proto_of(nodes, {"a": w(18, 2)}, (1, 2 + 1, 3, 2)))
    assert receptive_field(network, "y", (), network.shapes) is None
