"""ONNX file of a published U-Net that finds mouse pupils. ``python -m bench.pupils FOLDER``.

The folder holds mouse-pupil-analysis 0.3.0, as the Makefile fetches it. Its package is not
imported: of it `unet.py` alone, and the checkpoint as weights only. The network is traced on a
picture of 148x148 with any number of pictures, height and width.
"""

import sys
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

PACKAGE = "mouse_pupil_analysis"
SIZE = 148


def network(folder: Path) -> Any:
    """The network with its published weights."""
    import torch

    file = folder / PACKAGE / "unet.py"
    spec = spec_from_file_location("unet", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (checkpoint,) = (folder / PACKAGE / "checkpoints").glob("*.pth")
    made = module.UNet(use_attention=True)
    made.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return made.eval()


def export(folder: Path) -> None:
    """Write it as pupils.onnx into the same folder."""
    import torch

    sizes = {0: "pictures", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        # PyTorch advises against its exporter by traces, the other one needs another package.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network(folder), (torch.zeros(1, 1, SIZE, SIZE),), folder / "pupils.onnx",
            dynamo=False, opset_version=17, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": sizes, "y": sizes},
        )  # fmt: skip


if __name__ == "__main__":
    export(Path(sys.argv[1]))
