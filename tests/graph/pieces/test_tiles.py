"""Tiles: joined, they are the whole bit by bit; each reads what it depends on and no more."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from piece_networks import Maker, encoder_decoder

from strategies import draws
from tconv import engine
from tconv.errors import UnsupportedError
from tconv.geometry.parts import sizes, slices
from tconv.graph import Programs, simplified
from tconv.graph.lowering import lower
from tconv.graph.pieces.network import network_of
from tconv.graph.pieces.tiles import Tiles

pytestmark = pytest.mark.skipif(engine.host_target() is None, reason="programs need the engine")

DOWN = ("conv", "max", "max padded", "mean", "mean padded", "mean counted")
UP = ("transposed", "no overlap", "nearest", "linear")


def tiles_of(graph, shape):
    graph, rank = simplified(graph), len(shape) - 2
    cut = [{"x": 2 + n} for n in range(rank)]
    network = network_of(graph, {"x": (*shape[:2], *[None] * rank)}, cut, "an axis", True, 64)
    return Tiles(network, lower(graph, {"x": shape}, {}).shapes, 1)


def whole_of(graph, x):
    (y,) = Programs(graph, 1, method="direct")([x])
    return y


def boxes(shape, tile):
    for starts in product(*[range(0, n, t) for n, t in zip(shape[2:], tile, strict=True)]):
        ends = [min(s + t, n) for s, t, n in zip(starts, tile, shape[2:], strict=True)]
        yield (*((0, n) for n in shape[:2]), *zip(starts, ends, strict=True))


@draws(0.4)  # 100 under "ci"
@given(st.data(), st.integers(1, 3), st.integers(0, 99))
def test_tiles_of_any_size_are_the_whole_bit_by_bit(data, rank, seed):
    down = data.draw(st.tuples(st.sampled_from(DOWN), st.sampled_from(DOWN)))
    up = data.draw(st.tuples(st.sampled_from(UP), st.sampled_from(UP)))
    most = {1: 30, 2: 8, 3: 4}[rank]
    size = tuple(4 * data.draw(st.integers(1, most)) for _ in range(rank))
    tile = tuple(data.draw(st.integers(max(2, n // 3), n)) for n in size)
    graph = encoder_decoder(rank, seed, down, up)
    x = np.random.default_rng(seed).standard_normal((1, 1, *size)).astype(np.float32)
    whole, tiles = whole_of(graph, x), tiles_of(graph, x.shape)
    found = np.full_like(whole, np.nan)
    for box in boxes(whole.shape, tile):
        found[slices(box)] = tiles.compute(box, x[slices(tiles.window(box))])
    assert found.tobytes() == whole.tobytes()


@draws(0.2)
@given(st.integers(0, 99), st.integers(0, 39), st.sampled_from(UP[:3]))
def test_a_tile_depends_on_its_window_and_on_nothing_else(seed, start, up):
    graph = encoder_decoder(1, seed, ("conv", "mean"), (up, "transposed"))
    # Weights of one sign and no bound, so that nothing hides a cell and no two cells cancel.
    weights = {name: np.abs(array) for name, array in graph.constants.items()}
    bounded = {"Tanh": "Relu", "Sigmoid": "Relu"}
    nodes = [
        replace(node, operator=bounded.get(node.operator, node.operator)) for node in graph.nodes
    ]
    graph = replace(graph, nodes=tuple(nodes), constants={**weights, **_sizes(graph)})
    rng = np.random.default_rng(seed)
    x = rng.random((1, 1, 96)).astype(np.float32)
    tiles, whole = tiles_of(graph, x.shape), whole_of(graph, x)
    first, last = tiles.window(((0, 1), (0, 1), (start + 20, start + 28)))[2]
    part = slice(start + 20, start + 28)
    outside = x + rng.random(x.shape).astype(np.float32)
    outside[..., first:last] = x[..., first:last]
    assert np.array_equal(whole_of(graph, outside)[..., part], whole[..., part])
    for cell in (first, last - 1):
        moved = x.copy()
        moved[..., cell] += 1e6
        assert not np.array_equal(whole_of(graph, moved)[..., part], whole[..., part])


def _sizes(graph):
    """The constants that are sizes of a Resize."""
    names = {node.inputs[2] for node in graph.nodes if node.operator == "Resize"}
    return {name: graph.constants[name] for name in names}


def test_tiles_that_lie_alike_share_a_program():
    graph = encoder_decoder(2, 0, ("max", "max"), ("transposed", "transposed"))
    tiles = tiles_of(graph, (1, 1, 256, 256))
    assert [tiles.period(n) for n in range(2)] == [4, 4]
    programs = {id(tiles.program(box)) for box in boxes((1, 1, 256, 256), (16, 16))}
    windows = {sizes(tiles.window(box)) for box in boxes((1, 1, 256, 256), (16, 16))}
    assert len(windows) <= len(programs) <= 49  # 256 tiles; two or three lie near each border


def test_where_cells_stand():
    maker = Maker(1, 0)
    y = maker.up(maker.conv("x", 1, 2, 4, 2, pads=[1, 1]), 2, 1)
    assert tiles_of(maker.graph(y), (1, 1, 64)).place(0) == (1.0, 0.0)
    assert tiles_of(maker.graph(y), (1, 1, 64)).rate(0) == 1
    maker = Maker(1, 0)
    y = maker.conv("x", 1, 1, 3, 2, pads=[0, 0])
    assert tiles_of(maker.graph(y), (1, 1, 64)).place(0) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: m.add("GlobalAveragePool", m.conv("x", 1, 2)), "GlobalAveragePool"),
        (
            lambda m: m.add("InstanceNormalization", "x", m.weights(1), m.weights(1)),
            "InstanceNormalization",
        ),
        (lambda m: m.add("Softmax", "x", axis=2, version=13), "Softmax over an axis"),
        (
            lambda m: m.add("ReduceMean", "x", axes=[3], keepdims=1),
            "ReduceMean needs all of an axis",
        ),
        (lambda m: m.pool("x", "MaxPool", 3, 2, 0, ceil_mode=1), "ceil_mode"),
        (lambda m: m.add("Pad", "x", pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="reflect"), "reflect"),
        (lambda m: m.resized("x", "linear", "align_corners"), "align_corners"),
        (lambda m: m.add("Flatten", "x", axis=2), "Flatten"),
    ],
)
def test_what_sees_all_of_an_axis_is_refused_by_name(make, words):
    maker = Maker(2, 0)
    y = make(maker)
    with pytest.raises(UnsupportedError, match=words) as caught:
        tiles_of(maker.graph(y), (1, 1, 64, 64))
    assert maker.nodes[-1].name in str(caught.value)
