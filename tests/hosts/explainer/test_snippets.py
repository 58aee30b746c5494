"""Snippets of the explainer: they compute the explainer's numbers."""

import random

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import tconv
from tconv.errors import ParameterError, ShapeError


def scenes():
    rng = random.Random(11)
    while True:
        rank = rng.choice((1, 2))
        x, w = (
            np.array([rng.randint(-9, 9) for _ in range(most**rank)], np.float32).reshape(
                [most] * rank
            )
            for most in (rng.randint(1, 4), rng.randint(1, 4))
        )
        ends = [(rng.randint(0, 2), rng.randint(0, 2)) for _ in range(rank)]
        if rng.random() < 0.5:
            ends = [(begin, begin) for begin, _ in ends]
        settings = {"padding": tuple(ends)}
        for name, low, high in (("stride", 1, 4), ("dilation", 1, 3), ("output_padding", 0, 2)):
            settings[name] = tuple(rng.randint(low, high) for _ in range(rank))
        try:
            yield x, w, tconv.explain(x, w, **settings)
        except (ParameterError, ShapeError):
            continue


def ran(library, code, x, w):
    """Run what is offered; None where it says that there is no such call."""
    if code.startswith("not expressible"):
        return None
    if library == "PyTorch":
        names = {"torch": torch, "x": torch.from_numpy(x), "w": torch.from_numpy(w)}
    else:
        names = {"tconv": tconv, "jax": jax, "onnx": onnx, "x": x, "w": w}
    exec(code, names)
    if library != "ONNX":
        return np.asarray(names["y"])
    shapes = (
        onnx.helper.make_tensor_value_info(name, 1, [None] * x.ndim) for name in ("x", "w", "y")
    )
    a, b, y = shapes
    graph = onnx.helper.make_graph([names["node"]], "one", [a, b], [y])
    opsets = [onnx.helper.make_opsetid("", 17)]
    made = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x, "w": w})[0]


@pytest.mark.parametrize(
    ("library", "least"), [("tconv", 80), ("PyTorch", 20), ("ONNX", 40), ("JAX", 80)]
)
def test_the_code_gives_what_is_shown(library, least):
    done = 0
    for _, (x, w, explainer) in zip(range(80), scenes(), strict=False):
        facts = explainer.facts()
        if facts["rank"] != x.ndim:
            continue
        y = ran(library, facts["code"][library], x[None, None], w[None, None])
        if y is not None:
            assert np.atleast_2d(y[0, 0]).tolist() == facts["y"], facts["code"][library]
            done += 1
    assert done >= least * 0.9
