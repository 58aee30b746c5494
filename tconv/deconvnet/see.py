"""Feature visualisation: `see` projects features of a network back to the pixels of an image."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tconv.deconvnet.crops import Norm, UnitProjection
from tconv.deconvnet.default_layer import logits_of
from tconv.deconvnet.gallery import gallery_of
from tconv.deconvnet.grad_cam import GradCAM, as_class
from tconv.deconvnet.layers import Layers, find_layer, find_rule, list_layers
from tconv.deconvnet.montage import figure_of, write_figure
from tconv.deconvnet.network.images import Images, Preparation
from tconv.deconvnet.network.interruption import interruptible
from tconv.deconvnet.network.model import ImageModel, blaming_the_model
from tconv.deconvnet.network.network import Network
from tconv.deconvnet.render import Projector
from tconv.deconvnet.results import NORMS, SCALES, Projections
from tconv.deconvnet.rules.backward import BackwardPass
from tconv.deconvnet.rules.registry import RULES
from tconv.deconvnet.units import as_features, as_unit
from tconv.deconvnet.weight_randomisation import rank_correlation, shuffle_weights
from tconv.errors import ParameterError
from tconv.geometry.arguments import as_choice, as_flag, as_integer, as_per_axis, as_threads
from tconv.messages import show
from tconv.progress import Progress
from tconv.system.files import suffix_of, whole_file

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "See", "see", "see_layers"]

_MOST_PIXELS = 2**20  # along an axis
_USUAL_SIZE = 224  # of images of classifiers

SUFFIXES = (".png", ".html", ".npz")


def see(
    model: Any,
    images: Any,
    layer: str | int | None = None,
    *,
    feature: int | Sequence[int] | None = None,
    unit: Sequence[int] | None = None,
    target_class: int | None = None,
    top: int = 9,
    rule: Literal["deconvnet", "gradient", "guided"] | None = None,
    norm: Norm = "zero",
    scale: Literal["tile", "row", "figure"] = "tile",
    crop: bool = True,
    sanity: bool = False,
    seed: Literal["unit", "all"] = "unit",
    size: int | Sequence[int] | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    value_range: tuple[float, float] = (0.0, 1.0),
    threads: int | None = None,
    progress: Progress | None = None,
) -> "See":
    """Project features of a network back to the pixels that excite them.

    The network runs on an image. In the layer, the strongest unit of a feature keeps its
    activation; all other units are set to zero. The backward pass reverses each node down to the
    image: filters by their transposes, poolings by the switches that they set, rectifiers by the
    rule.

    - ``"deconvnet"``: a rectifier passes the positive part of the projection
    - ``"gradient"``: it passes the projection where its input was positive; the result is the exact
      derivative of the unit, times its activation
    - ``"guided"``: both conditions

    "deconvnet" and "guided" are defined for ReLU only. Without `rule`, `see` uses "deconvnet" if it
    is defined for all nodes between the layer and the image, else "gradient", and the result says
    why. Biases are dropped. No rectifier follows the last step, the transpose of the first filter,
    so projections have negative numbers.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto of a network whose first input is an image (N, C, H, W)
        or a signal (N, C, L) with 1 or 3 channels; or a torch.nn.Module, which is exported
    images : path of a picture or of a folder of pictures, array (C, H, W) or (H, W, C), or several
        of these. Pixels (uint8) are prepared as below; the network reads floats as they are.
    layer : index, name or unique part of a name; by default the activation of the last convolution.
        If that multiplies by a gate, as ``x * sigmoid(x)`` does, it is the product.
    feature : channel or channels; by default the `top` strongest, of several images the 4 strongest
    unit : (channel, row, column) of the one unit to show
    target_class : int, project the score of this class of a classifier in place of a layer's
        features, and show Grad-CAM of the layer beside it (Selvaraju et al. 2017)
    top : int, features of one image, or images of one feature
    rule : "deconvnet", "gradient" or "guided"
    norm : "zero" (0 is mid-grey), "minmax" or "positive", as `tconv.images.renormalise`; the first
        and the last reach black and white at the 99.5th percentile of the values that are not 0
    scale : "tile", "row" or "figure": which tiles share one range of grey levels
    crop : bool, crop each tile to the unit's receptive field
    sanity : bool, run the weight randomisation test: show the same tiles with shuffled weights
    seed : "unit"; or "all" to project the feature's whole map at once, which is not in the paper
    size : int per axis, to which pictures are resized; by default they keep their size, and those
        of more than 4 megapixels are refused
    mean, std : numbers, one or one per channel
    value_range : what pixels of 0 and 255 become, before `mean` is subtracted and `std` divides
    threads : int, threads of ONNX Runtime; by default ONNX Runtime chooses
    progress : called with the number of images and tiles that are done, and the number of all

    Returns
    -------
    See : its tiles, a figure, a table and the ledger of reversed nodes

    Raises
    ------
    RuleError : a node between the layer and the image has no reversal under the rule
    ParameterError, ShapeError, DTypeError : an argument breaks its own rule, or sizes clash
    ModelError : the model is damaged, or cannot be run
    OSError : a file cannot be read
    ImportError : the ONNX tools, or Pillow, are not installed

    References
    ----------
    Zeiler & Fergus 2014, arXiv:1311.2901; Simonyan et al. 2014, arXiv:1312.6034; Springenberg et
    al. 2015, arXiv:1412.6806; Selvaraju et al. 2017, arXiv:1610.02391.

    >>> from onnx import helper, numpy_helper
    >>> edge = numpy_helper.from_array(np.array([[[[-1.0, 1.0]]]], np.float32), "edge")
    >>> graph = helper.make_graph(
    ...     [helper.make_node("Conv", ["image", "edge"], ["contrast"]),
    ...      helper.make_node("Relu", ["contrast"], ["rise"])], "net",
    ...     [helper.make_tensor_value_info("image", 1, (1, 1, 2, 4))],
    ...     [helper.make_tensor_value_info("rise", 1, None)], [edge])
    >>> opset = helper.make_opsetid("", 17)
    >>> network = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    >>> seen = tconv.see(network, np.array([[[0, 2, 5, 5], [0, 0, 1, 0]]], np.float32), crop=False)
    >>> seen.tiles[0].unit, seen.tiles[0].activation
    ((0, 0, 1), 3.0)
    >>> seen.tiles[0].projection
    array([[[ 0., -3.,  3.,  0.],
            [ 0.,  0.,  0.,  0.]]], dtype=float32)
    >>> print(seen.ledger)
    reversed 2 nodes: Conv×1 filter, Relu×1 rectify
    """
    norm = as_choice(norm, "norm", NORMS)
    rule = None if rule is None else as_choice(rule, "rule", RULES)
    scale, threads = as_choice(scale, "scale", SCALES), as_threads(threads)
    whole_map = as_choice(seed, "seed", ("unit", "all")) == "all"
    crop, sanity = as_flag(crop, "crop"), as_flag(sanity, "sanity")
    top = as_integer(top, "top", 1)
    threads = None if threads is None else as_integer(threads, "threads", 1)
    if progress is not None and not callable(progress):
        raise ParameterError(
            f"progress={show(progress)} must be a function of two integers; pass one or None."
        )
    alone = {"unit": unit, "target_class": target_class, "feature": feature}
    given = [name for name, value in alone.items() if value is not None]
    if len(given) > 1:
        first, second = given[:2]
        raise ParameterError(
            f"{first}={show(alone[first])} must stand without {second}={show(alone[second])}: it "
            "names its feature; leave one of the two out."
        )

    def compute() -> See:
        opened, photos = _opened(model, images, size, mean, std, value_range)
        with blaming_the_model(opened):
            network = Network.of(opened, photos[0].pixels.shape[1:])
            cam = None
            if target_class is not None:
                cam = _grad_cam(network, layer, target_class, threads)
            name = find_layer(network, layer, rule) if cam is None else cam.logits
            chosen, why = find_rule(network, name, rule)
            backward = BackwardPass(network, name, chosen)
            projector = Projector(backward, photos, crop, whole_map, threads, progress)
            shape = projector.layer_shape
            one = as_unit(unit, shape)
            features = as_features(feature, shape[1]) if cam is None else [cam.target_class]
            tiles = projector.project(features=features, unit=one, top=top)
            others: list[UnitProjection] = []
            if sanity:
                shuffled = BackwardPass(shuffle_weights(network, name), name, chosen)
                projector = Projector(shuffled, photos, crop, whole_map, threads)
                others = projector.project_same(tiles, unit=one)
            shown = {n: photos[n] for n in sorted({tile.image for tile in tiles})}
            return See(
                model=network.name,
                sha256=network.sha256,
                layer=name,
                rule=chosen,
                why=why,
                norm=norm,
                scale=scale,
                whole_map=whole_map,
                tiles=tuple(tiles),
                photos=shown,
                images=len(photos),
                ledger=backward.ledger,
                shuffled=tuple(others),
                correlations=tuple(
                    rank_correlation(abs(a.projection), abs(b.projection))
                    for a, b in zip(tiles, others, strict=bool(others))
                ),
                target_class=None if cam is None else cam.target_class,
                cam_layer="" if cam is None else cam.layer,
                cams={} if cam is None else {n: cam(photo) for n, photo in shown.items()},
            )

    return interruptible(compute)


class See(Projections):
    """Projections that `see` made; it prints itself as a table, and shows and saves itself.

    ``tiles[n].projection`` is the projection (C, *size) of one unit.

    >>> network = tconv.ConvTranspose2d(1, 4, 2, stride=2, rng=0).to_onnx()
    >>> seen = tconv.see(network, np.eye(3, dtype=np.float32), "y", top=2)
    >>> [tile.projection.shape for tile in seen.tiles]
    [(1, 1, 1), (1, 1, 1)]
    >>> print(seen.ledger)
    reversed 1 node: ConvTranspose×1 filter
    """

    def figure(self) -> "Image.Image":
        """Return the figure as a picture of Pillow.

        Raises
        ------
        ImportError : Pillow is not installed
        """
        return figure_of(self)

    def html(self) -> str:
        """Return the page: one file that loads nothing else; a tile shows its place in the image.

        Raises
        ------
        ImportError : Pillow is not installed
        """
        return gallery_of(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure (.png), the page (.html) or all numbers (.npz), complete or not at all.

        Raises
        ------
        ParameterError : the name ends in none of these, or its folder does not exist
        ImportError : Pillow is not installed
        """
        suffix = suffix_of(path, SUFFIXES, "seen.png")
        with whole_file(path) as unfinished:
            if suffix == ".html":
                unfinished.write_text(self.html(), "utf-8", newline="\n")
            elif suffix == ".png":
                write_figure(unfinished, self)
            else:
                with unfinished.open("xb") as file:
                    np.savez(file, allow_pickle=False, **self.arrays())


def see_layers(
    model: Any,
    *,
    rule: Literal["deconvnet", "gradient", "guided"] | None = None,
    size: int | Sequence[int] | None = None,
) -> Layers:
    """List the layers of a network, their receptive fields, and which of them a rule can project.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto of a network whose first input is an image; or a
        torch.nn.Module, which is exported
    rule : "deconvnet", "gradient" or "guided"; by default the one that `see` chooses
    size : int per axis; where the network takes images of any size, by default 224

    Returns
    -------
    Layers : prints itself as a table

    Raises
    ------
    ParameterError, ShapeError, ModelError, OSError, ImportError : as `see`

    >>> print(tconv.see_layers(tconv.ConvTranspose2d(3, 4, 4, stride=2, rng=0).to_onnx(), size=8))
    index  layer  op             shape      sees     jump  rule deconvnet
        0  y      ConvTranspose  1×4×18×18   2×2  0.5×0.5  ok
    1 layer, 1 that rule deconvnet can look at
    default layer: y
    """
    rule = None if rule is None else as_choice(rule, "rule", RULES)

    def compute() -> Layers:
        opened, supposed, sizes = model, None, None
        if _is_module(model):
            from tconv.deconvnet.network.torch_export import channels_of, export_module

            channels, rank = channels_of(model)
            sizes = _sizes(size, rank)
            supposed = (_USUAL_SIZE,) * rank if sizes is None else None
            shape = sizes or supposed or ()
            opened = export_module(model, (1, channels, *shape))
        opened = ImageModel.of(opened)
        sizes = _sizes(size, len(opened.spatial))
        if sizes is None and None in opened.spatial:
            sizes = supposed = tuple(each or _USUAL_SIZE for each in opened.spatial)
        with blaming_the_model(opened):
            return list_layers(Network.of(opened, sizes), rule, supposed)

    return interruptible(compute)


def _grad_cam(network: Network, layer: Any, target_class: Any, threads: int | None) -> GradCAM:
    """Return Grad-CAM of a class; `layer` is that of the features, not of the scores."""
    number, logits = as_class(target_class, logits_of(network))
    name = find_layer(network, layer, None)
    between = {output for node in network.between(logits) for output in node.outputs}
    if name not in between:
        raise ParameterError(
            f"layer={show(layer)} must lie between the image and the scores {logits!r}; name one "
            "that does (see_layers shows them)."
        )
    return GradCAM(network, logits, name, number, threads)


def _opened(
    model: Any, images: Any, size: Any, mean: Any, std: Any, value_range: Any
) -> tuple[ImageModel, Images]:
    """Open a model and its images; a module is exported for the size of the first image."""
    if _is_module(model):
        from tconv.deconvnet.network.torch_export import channels_of, export_module

        channels, rank = channels_of(model)
        prepare = Preparation.of(value_range, mean, std, channels)
        photos = Images(images, channels, rank, _sizes(size, rank), prepare)
        return ImageModel.of(export_module(model, photos[0].values.shape)), photos
    opened = ImageModel.of(model)
    prepare = Preparation.of(value_range, mean, std, opened.channels)
    rank = len(opened.spatial)
    return opened, Images(images, opened.channels, rank, _sizes(size, rank), prepare)


def _is_module(model: Any) -> bool:
    torch = sys.modules.get("torch")  # a caller with a module has imported it
    return torch is not None and isinstance(model, torch.nn.Module)


def _sizes(size: Any, rank: int) -> tuple[int, ...] | None:
    """Check the size of the image."""
    if size is None:
        return None
    sizes = as_per_axis(size, "size", rank, 1)
    for n, each in enumerate(sizes):
        if each > _MOST_PIXELS:
            raise ParameterError(
                f"size[{n}]={show(each)} must be at most {_MOST_PIXELS:,}; pass a smaller one."
            )
    return sizes
