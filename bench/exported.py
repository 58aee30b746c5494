"""A network exported from PyTorch to ONNX. ``python -m bench.exported FILE`` writes it.

It is the 3-D U-Net of `bench.decoders`, with the weights that PyTorch draws for it.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.decoders import made

__all__ = ["export"]


def export(path: Path) -> None:
    """Write the network, for inputs of any sizes that its three poolings halve."""
    model, x = made("unet3d")
    free = {0: "batch", 2: "depth", 3: "height", 4: "width"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's about the exporter that needs no other package
        torch.onnx.export(
            model.eval(), (x,), str(path), dynamo=False, opset_version=17,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": free, "y": free},
        )  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Write the network to the file that is named."""
    (path,) = sys.argv[1:] if words is None else words
    export(Path(path))


if __name__ == "__main__":
    main()
