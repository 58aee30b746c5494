"""Verb `see`: units of a network projected to the pixels, as a figure, a page or arrays."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from tconv.cli.console import Answer, at, at_named_argument
from tconv.cli.options import UsageError
from tconv.cli.outputs import check_output
from tconv.deconvnet.layers import find_layer
from tconv.deconvnet.network.images import check_picture_sizes, picture_files
from tconv.deconvnet.network.interruption import interruptible
from tconv.deconvnet.network.model import ImageModel, blaming_the_model
from tconv.deconvnet.network.network import Network
from tconv.deconvnet.see import SUFFIXES, see, see_layers
from tconv.geometry.arguments import as_per_axis
from tconv.images import picture_size
from tconv.progress import progress_bar
from tconv.system.files import regular_file

__all__ = ["answer"]

_PLACES = {
    "layer": "option --layer",
    "feature": "option --feature",
    "unit": "option --unit",
    "target_class": "option --class",
    "size": "option --size",
    "mean": "option --mean",
    "std": "option --std",
    "value_range": "option --range",
}
"""Names of arguments with which tconv's messages begin, and the places of their options."""

_LONGEST_NAME = 200  # bytes

_NOT_WITH_LIST = ("layer", "feature", "unit", "target_class", "output", "images")

_TYPED = {"images": "IMAGE", "target_class": "--class"}


def answer(options: Namespace) -> Answer:
    """Project units of a layer and write the output; or list the layers.

    Everything that can be checked before the network runs is checked before.
    """
    with regular_file(options.model):  # to report a wrong path before onnx is imported
        pass
    if options.list:
        return _listed(options)
    if not options.images:
        raise UsageError(
            "IMAGE is missing",
            "tconv see",
            f"name a picture or a folder of pictures, or list the layers by tconv see "
            f"{options.model} --list",
        )
    pictures = [file for image in options.images for file in picture_files(image)]
    for file in pictures:
        with regular_file(file):
            pass
    if options.size is None:
        check_picture_sizes(pictures)
    if options.output is not None:
        _check_output(options.output, options, pictures)
    with at(f"model {options.model!r}"), at_named_argument(_PLACES):
        opened = ImageModel.of(options.model)
        output = options.output or _default_output(opened.name, _shown(opened, pictures, options))
    if options.output is None:
        _check_output(output, options, pictures)
    with (
        at(f"model {options.model!r}"),
        progress_bar("images and tiles") as progress,
        at_named_argument(_PLACES),
    ):
        seen = see(opened, pictures, **_settings(options), progress=progress)
    with at(f"option -o/--output, file {output!r}"):
        seen.save(output)
    result = {**seen.as_dict(), "written": output}
    return Answer((seen.table(), f"wrote {output}"), result)


def _listed(options: Namespace) -> Answer:
    for name in _NOT_WITH_LIST:
        if getattr(options, name) not in (None, []):
            raise UsageError(
                f"{_TYPED.get(name, f'--{name}')} does not go with --list",
                "option --list",
                "leave one of the two out",
            )
    with at(f"model {options.model!r}"), at_named_argument(_PLACES):
        layers = see_layers(options.model, rule=options.rule, size=options.size)
    return Answer((layers.table(),), layers.as_dict())


def _settings(options: Namespace) -> dict[str, Any]:
    settings = {
        "layer": options.layer,
        "feature": options.feature,
        "unit": options.unit,
        "target_class": options.target_class,
        "top": options.top,
        "rule": options.rule,
        "norm": options.norm,
        "scale": options.scale,
        "crop": not options.no_crop,
        "sanity": options.sanity,
        "seed": options.seed,
        "size": options.size,
        "mean": options.mean,
        "std": options.std,
        "value_range": options.range,
        "threads": options.threads,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _shown(opened: ImageModel, pictures: list[Path], options: Namespace) -> str:
    """Name of the layer, or of the class, that `see` will show."""
    if options.target_class is not None:
        return f"class_{options.target_class}"
    size = options.size
    if size is None:
        size = picture_size(pictures[0]) if None in opened.spatial else opened.spatial
    sizes = as_per_axis(size, "size", len(opened.spatial), 1)

    def find() -> str:
        with blaming_the_model(opened):
            return find_layer(Network.of(opened, sizes), options.layer, options.rule)

    return interruptible(find)


def _default_output(model: str, layer: str) -> str:
    """Return the default path of the figure: ``see_<model>_<layer>.png``."""
    name = re.sub(r"[^\w.-]+", "_", f"{model}_{layer}".strip("_")).encode()
    # File systems allow 255 bytes; the end of a layer's name tells more than its beginning.
    return f"see_{name[-_LONGEST_NAME:].decode('utf-8', 'ignore')}.png"


def _check_output(output: str, options: Namespace, pictures: list[Path]) -> None:
    """Check before the network runs that the output can be written."""
    suffix = Path(output).suffix
    if suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"-o/--output must end in one of {', '.join(SUFFIXES)}, not {suffix!r}",
            "option -o/--output",
            "write -o seen.png, say",
        )
    with at(f"option -o/--output, file {output!r}"):
        protected = (options.model, *pictures)
        check_output(output, options.force, protected, "the model or an image")
