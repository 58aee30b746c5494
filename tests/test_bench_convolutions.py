"""The benchmark of convolutions: its layers are convolutions, and its tables hide no loss."""

import pytest

from bench import convolutions
from bench.convolutions import Layer, as_layer, drawn, published
from tconv import Geometry


@pytest.mark.parametrize("layers", [published(), drawn()], ids=["published", "drawn"])
def test_every_layer_is_a_convolution_of_its_sizes(layers):
    assert len({layer.name for layer in layers}) == len(layers)
    for layer in layers:
        made = Geometry.of_conv(layer.x_shape, layer.weight_shape, **layer.keywords)
        assert (made.y_shape, made.x_shape) == (layer.x_shape, layer.y_shape)
        assert layer.flops == made.flops
        assert as_layer([list(v) if isinstance(v, tuple) else v for v in layer]) == layer


def test_draws_are_the_same_every_time_and_of_every_class():
    assert drawn() == drawn()
    families = {layer.family for layer in [*published(), *drawn()]}
    assert {"1x1", "2-D k3 s2", "first layers", "depthwise", "1-D k5 to k11", "3-D k3"} <= families


def row(name, family, plan, torch, onnx, **more):
    times = {"plan": plan, "functional": plan, "torch": torch, "onnx": onnx, **more}
    return {
        "case": name, "sizes": "1×8→8", "family": family, "flops": 10**6, "others": 0.0,
        "contenders": {n: {"failed": us} if isinstance(us, str) else {"us": [[us]], "error": 0.0}
                       for n, us in times.items()},
    }  # fmt: skip


def test_the_faster_peer_counts_and_short_layers_count_apart():
    rows = [
        row("a", "1x1", 100.0, 300.0, 200.0, plan_chain=300.0, onnx_chain=150.0),
        row("b", "1x1", 100.0, 50.0, "not computed"),
        row("c", "depthwise", 20.0, 40.0, 10.0),
    ]
    part = {"title": "published", "threads": 2, "rows": rows}
    table = convolutions._class_table(part)
    cells = {line.split(" | ")[0]: line.strip("|").split(" | ")[1:] for line in table[2:6]}
    assert cells["| 1x1"][:5] == ["2", "1.00", "1.00", "50%", "0.50"]
    assert cells["| 1x1"][-1].strip() == "0.50"
    assert cells["| depthwise"][:2] == ["1", "0.50"]
    assert cells["| all of 50 us and more"][0] == "2"
    assert cells["| all below 50 us"][:5] == ["1", "0.50", "0.50", "100%", "0.50"]
    assert [line.cases for line in convolutions.lines({"parts": [part]})] == [3]


def test_a_layer_shows_what_differs_from_one():
    layer = Layer("x", 1, 8, 8, (9, 9), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 8)
    assert str(layer) == "1×8→8, 9×9, k3×3 s2×2 g8"
    assert (layer.O, layer.family, layer.chains) == ((5, 5), "depthwise", False)
