"""Time of `tconv.see` and of PyTorch for nine features of VGG-16. ``python -m bench.see``.

Needs PyTorch, and weights that `make test-hosts` fetches. Both start from the network in memory and
an image of 224 x 224, and end with nine projections, which are compared before anything is timed.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from skimage import data

import tconv
from bench.examples import example

SIZE, FEATURES, ROUNDS = 224, 9, 5
LAYERS = ("relu3_3", "relu4_3", "relu5_3")


class Deconvnet(torch.autograd.Function):
    """ReLU whose derivative lets through what is positive of the signal."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(context: Any, r: torch.Tensor) -> Any:
        return r.clamp(min=0)


def twin(model: Any, layer: str) -> Any:
    """The same by PyTorch: one pass forth, and one back for each feature."""
    given = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy())
             for t in model.graph.initializer}  # fmt: skip

    def project(values: np.ndarray) -> list[np.ndarray]:
        image = torch.from_numpy(values).requires_grad_()
        x = image
        for node in model.graph.node:
            if node.op_type == "Conv":
                x = F.conv2d(x, given[node.input[1]], given[node.input[2]], padding=1)
            elif node.op_type == "Relu":
                x = Deconvnet.apply(x)
            else:
                x = F.max_pool2d(x, 2)
            if node.output[0] == layer:
                break
        maps = x[0].flatten(1)
        best, places = maps.detach().max(1)
        found = []
        for channel in best.argsort(descending=True, stable=True)[:FEATURES]:
            unit = maps[channel, places[channel]]
            (back,) = torch.autograd.grad(unit, image, unit.detach(), retain_graph=True)
            found.append(back[0].numpy())
        return found

    return project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="write the samples as JSON")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    module = example("vgg16")
    model, cat = module.model(), data.chelsea()
    settings = {"size": SIZE, "value_range": (0, 255), "mean": module.MEAN, "crop": False}
    results = []
    for layer in LAYERS:
        project = twin(model, layer)

        def ours(layer: str = layer) -> Any:
            return tconv.see(model, cat, layer, threads=options.threads, **settings)

        seen = ours()
        values = seen.photos[0].values.astype(np.float32)
        for tile, expected in zip(seen.tiles, project(values), strict=True):
            gap = np.abs(tile.projection - expected).max() / np.abs(expected).max()
            assert gap < 1e-2, f"{layer}, unit {tile.unit}: {gap}"
        times: dict[str, list[float]] = {"tconv": [], "pytorch": []}
        for _ in range(ROUNDS):
            began = perf_counter()
            ours()
            times["tconv"].append(perf_counter() - began)
            began = perf_counter()
            project(values)
            times["pytorch"].append(perf_counter() - began)
        a, b = (median(each) for each in times.values())
        print(f"{layer}: tconv {a:.2f} s, PyTorch {b:.2f} s, {b / a:.2f} times as long")
        results.append({"layer": layer, "threads": options.threads, "seconds": times})
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
