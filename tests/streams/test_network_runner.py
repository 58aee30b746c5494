"""Streams of networks: bit by bit what the whole input gives, whatever the pushes."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from processes import run_script
from streams.drawn_networks import BLOCKS, networks
from streams.pushes import LENGTHS, cuts, in_runs, piecewise, same_bits

from strategies import draws
from tconv.graph import Programs, UnknownOperator
from tconv.streams.network_runner import NetworkRunner
from tconv.streams.stream import Stream


def runner_of(drawn, threads=1):
    return NetworkRunner(drawn.graph, drawn.axes, drawn.shapes, threads)


def whole(drawn, inputs):
    """What one call gives; None where the input is too short for some node."""
    try:
        return Programs(drawn.graph, 1, method="direct")(inputs)
    except UnknownOperator:
        return None


def check(drawn, size, data):
    stream = in_runs(Stream(runner_of(drawn)), data.draw(LENGTHS))
    inputs = drawn.inputs(size, size)
    expected = whole(drawn, inputs)
    found = piecewise(stream, inputs, data.draw(cuts(size)))
    assume(expected is not None)
    for one, other in zip(found, expected, strict=True):
        assert same_bits(one, other)


@draws()
@given(networks(), st.integers(1, 60), st.data())
def test_pushes_give_the_bits_of_the_whole(drawn, size, data):
    check(drawn, size, data)


def test_without_machine_code_a_network_is_refused(monkeypatch):
    monkeypatch.setenv("TCONV_CPU", "portable")
    run_script(
        "import tconv\n"
        "from tconv.graph import Graph, Input, Node\n"
        "from tconv.streams.network_runner import NetworkRunner\n"
        "graph = Graph((Input('x', 'float32'),), ('y',), (Node('Relu', ('x',), ('y',)),), {})\n"
        "try:\n"
        "    NetworkRunner(graph, {'x': 2}, {'x': (1, 2, None)}, 1)\n"
        "except tconv.UnsupportedError as error:\n"
        "    assert 'need machine code' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_every_operator_after_another_and_before_one(block):
    @draws(0.15)
    @given(
        networks(["same Conv", "activation", block, "ConvTranspose"]), st.integers(1, 40), st.data()
    )
    def is_right(drawn, size, data):
        check(drawn, size, data)

    is_right()
