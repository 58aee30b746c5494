"""Identities that hide one node from the other are gone; the numbers stay."""

import numpy as np
from hypothesis import given

from network_graphs import assert_alike_without, networks
from strategies import draws
from tconv.graph import Graph, Input, Node
from tconv.graph.passes.identities import drop_identities


def graph_of_nodes(*nodes, outputs=("y",), **constants):
    return Graph((Input("x", "float32"),), outputs, nodes, constants)


@draws(0.3)
@given(networks("Identity", among=["Identity", "Dropout", "Relu", "Conv", "Add", "Concat"]))
def test_the_numbers_stay(drawn):
    assert_alike_without("drop_identities", lambda graph: graph, drawn)


def test_a_chain_of_them_is_gone():
    graph = graph_of_nodes(
        Node("Identity", ("x",), ("a",)),
        Node("Dropout", ("a",), ("b",)),
        Node("Identity", ("b",), ("c",)),
        Node("Add", ("a", "c"), ("y",)),
    )
    assert drop_identities(graph).nodes == (Node("Add", ("x", "x"), ("y",)),)


def test_what_writes_an_output_or_a_mask_stays():
    graph = graph_of_nodes(
        Node("Identity", ("x",), ("y",)),
        Node("Dropout", ("x",), ("z", "mask")),
        Node("Relu", ("z",), ("r",)),
        outputs=("y", "r"),
    )
    assert drop_identities(graph) == graph


def test_a_dropout_that_drops_stays():
    graph = graph_of_nodes(
        Node("Dropout", ("x", "ratio", "training"), ("a",)),
        Node("Relu", ("a",), ("y",)),
        ratio=np.array(0.5, np.float32),
        training=np.array(True),
    )
    assert drop_identities(graph).nodes == graph.nodes
