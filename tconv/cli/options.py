"""Verbs of the command line, and their options."""

from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from shutil import get_terminal_size
from textwrap import fill
from typing import NamedTuple

from tconv.cli.option_values import (
    Choice,
    Sizes,
    auto_or_sizes,
    count,
    index,
    number,
    numbers,
    one_of,
    paddings,
    places,
    sizes,
    sizes_or_numbers,
)
from tconv.cli.parser import Parser, UsageError, closest

__all__ = ["FILES", "VERBS", "Choice", "Sizes", "UsageError", "Verb", "closest", "parser_of"]

FILES = {
    "model": "MODEL",
    "images": "IMAGE",
    "inputs": "INPUT",
    "volume": "--volume",
    "weight": "-w/--weight",
    "bias": "-b/--bias",
    "output": "-o/--output",
    "warm": "--warm",
}
"""Arguments that name files, as they are parsed and as they are typed."""

_DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)

# ---- options of each verb ------------------------------------------------------------------------


def _shape(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("input_size", metavar="IN", type=sizes, help="input size: 64, or per axis 64x48")
    add("-k", "--kernel", metavar="SIZE", type=sizes, help="kernel size: 4, or per axis 4x3")
    add("-s", "--stride", metavar="N", type=sizes, help="1 if not given")
    add(
        "-p",
        "--padding",
        metavar="N",
        type=paddings,
        help="0 if not given; 1, begin:end 1:2, per axis 1x0:1, same or valid",
    )
    add("-d", "--dilation", metavar="N", type=sizes, default=(1,), help="1 if not given")
    add("--op", "--output-padding", metavar="N", type=sizes, help="output_padding")
    add("--rank", metavar="N", type=count, help="number of spatial axes; 2 if nothing says more")
    add("--to", metavar="OUT", type=sizes, help="list the settings that give this output size")
    add("--limit", metavar="N", type=count, help="with --to: list at most so many (20)")


def _run(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="an ONNX file")
    add(
        "inputs",
        metavar="INPUT",
        nargs="*",
        default=[],
        help="PATH or NAME=PATH of an .npy, an .npz with arrays by name, or a picture; - (.npy)",
    )
    add(
        "-o",
        "--output",
        metavar="PATH",
        help="where the results go: .npz, .npy, .wav or a picture, - (.npy); of a volume: Zarr",
    )
    add("-f", "--force", action="store_true", help="overwrite an existing output")
    add("--output-name", metavar="NAME", help="which output goes to an .npy, a .wav or a picture")
    _add_norm(parser)
    add("--compare", action="store_true", help="also run ONNX Runtime alone: differences, times")
    add(
        "--max-difference",
        metavar="D",
        type=number,
        help="with --compare: exit 1 if a difference is larger",
    )
    add("--threads", metavar="N", type=count, help="threads to compute with")
    add(
        "--every-node",
        action="store_true",
        help="tconv computes every ConvTranspose, whether that gains or not",
    )
    add(
        "--method",
        type=one_of("auto", "onnxruntime", "measure"),
        metavar="METHOD",
        help="who computes: auto (by predicted times), onnxruntime, or measure (by times of both)",
    )
    add("--cast", action="store_true", help="convert arrays to the types that the inputs have")
    add(
        "--dtype",
        metavar="TYPE",
        type=one_of(*_DTYPES),
        help="convert arrays of the inputs of this type, of a volume source and weight: float32",
    )
    add("--sample-rate", metavar="HZ", type=count, help="of a .wav, and of times of sound: 22050")
    _add_stream_options(parser)
    _add_tile_options(parser)
    _add_picture_options(parser, "pictures as inputs")
    # The older way to say --range: pixels are multiplied by a number.
    add("--scale", dest="range", type=_scaled, help=SUPPRESS)
    _add_volume_options(parser)


def _add_stream_options(parser: ArgumentParser) -> None:
    """Add the options of a model along time."""
    add = parser.add_argument_group(
        "a stream: the model along time, chunk by chunk",
        "with the bits of the whole; prints latency, speed and state",
    ).add_argument
    add("--stream", action="store_true", help="push the input in chunks, along its time axis")
    add("--chunk", metavar="N", type=count, help="cells of a push; about 50 ms if not given")
    add(
        "--input-name",
        metavar="NAME",
        action="append",
        help="what arrives in chunks: an input, or a value within the model, which is cut there,\n"
        "as it is by NAME=FILE; again for more. --output-name may be such a value, too",
    )
    add("--time-axis", metavar="N", type=index, help="from 0, where the model does not tell")


def _add_tile_options(parser: ArgumentParser) -> None:
    """Add the option of a model over an array on disk; those of a volume are for it as well."""
    add = parser.add_argument_group(
        "tiles: the model over an array on disk, INPUT, to a Zarr array",
        "each tile with the context that its receptive field asks for, so without seams;\n"
        "--memory, --workers, --scheduler, --verify and --input-name are for it, too",
    ).add_argument
    add("--tile", metavar="N", type=auto_or_sizes, help="of the result: auto, 128 or 64x128x128")


def _add_volume_options(parser: ArgumentParser) -> None:
    """Add the options of one transposed convolution of an array on disk."""
    add = parser.add_argument_group(
        "a volume in place of a model",
        "one transposed convolution of an array that may be larger than memory;\n"
        "run again after a stop, it goes on where it was",
    ).add_argument
    add("--volume", metavar="IN", help="path or URL of a Zarr array, or an .npy file")
    add("-w", "--weight", metavar="PATH", help=".npy, or -, of shape (C, M // groups, *kernel)")
    add("-b", "--bias", metavar="PATH", help=".npy, one number per output channel")
    add("-s", "--stride", metavar="N", type=sizes, help="1 if not given; per axis 2x1x1")
    add("-p", "--padding", metavar="N", type=paddings, help="0 if not given; 1, 1:2, 1x0:1, same")
    add("-d", "--dilation", metavar="N", type=sizes, help="1 if not given")
    add("--op", "--output-padding", metavar="N", type=sizes, help="0 if not given")
    add("--groups", metavar="N", type=count, help="1 if not given")
    add("--adjoint", action="store_true", help="the adjoint, a convolution with that stride")
    add("--chunks", metavar="N", type=sizes, help="of the output, one per axis: 1x64x64x64")
    add("--shards", metavar="N", type=sizes, help="of the output, multiples of --chunks")
    add("--memory", metavar="SIZE", help="that all workers may take: 512MiB, 2GB (the default)")
    add("--workers", metavar="N", type=count, help="tasks at once; one per core if not given")
    add("--scheduler", metavar="ADDRESS", help="of dask.distributed: tcp://host:8786")
    add("--verify", action="store_true", help="read what is there; mend what is damaged")


def _explain(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="an ONNX file, to take a kernel from")
    add("-o", "--output", metavar="PATH", help="what to write: .html, .svg, .png or .gif; - (svg)")
    add("-f", "--force", action="store_true", help="overwrite an existing output")
    add(
        "-i",
        "--input",
        metavar="X",
        type=sizes_or_numbers,
        help="input: numbers '37 47; 67 77', or size 3 or 3x4 of 1, 2, 3 ...;\n"
        "spaces part numbers, ; rows, | channels; a fraction is 1.5 or 3/2",
    )
    add(
        "-k",
        "--kernel",
        metavar="W",
        type=sizes_or_numbers,
        help="kernel, as the input; of channels w[0,0] | w[0,1] | ... | w[1,0] ...",
    )
    add("-s", "--stride", metavar="N", type=sizes, help="1 if not given")
    add("-p", "--padding", metavar="N", type=paddings, help="0 if not given; 1, 1:2, 1x0:1, same")
    add("-d", "--dilation", metavar="N", type=sizes, help="1 if not given")
    add("--op", "--output-padding", metavar="N", type=sizes, help="output_padding")
    add("--rank", metavar="N", type=one_of("1", "2"), help="number of spatial axes; 2 if not given")
    add(
        "--lens",
        metavar="LENS",
        type=one_of("stamp", "collect", "conv", "channels", "picture"),
        help="what is shown first, and drawn: stamp, collect, conv (as a convolution), channels, "
        "picture (a landscape in place of -i; -k SIZE is of ones); collect if not given",
    )
    add("--step", metavar="N", type=count, help="step of the lens, from 1")
    add("--cell", metavar="R,C", type=places, help="output cell; with --lens channels R,C,M")
    add("--layer", metavar="L", help="of MODEL: name or number of a ConvTranspose; the first")
    add("--pair", metavar="C,M", type=sizes, help="of MODEL: input and output channel; 0,0")


def _see(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="an ONNX file whose first input is an image")
    add("images", metavar="IMAGE", nargs="*", default=[], help="a picture, or a folder of pictures")
    add("-o", "--output", metavar="PATH", help=".png, .html or .npz; see_MODEL_LAYER.png")
    add("-f", "--force", action="store_true", help="overwrite an existing output")
    add("--list", action="store_true", help="list the layers, and what a unit of each sees")
    add("--layer", metavar="L", help="index, name or part of it; the last convolution's activation")
    add("--feature", metavar="C,C", type=sizes, help="channels; the strongest if not given")
    add("--unit", metavar="C,Y,X", type=sizes, help="channel, row and column of one unit")
    add("--class", metavar="N", type=index, dest="target_class", help="score of a class, Grad-CAM")
    add("--top", metavar="N", type=count, help="features of one image, images of a feature (9)")
    add(
        "--rule",
        metavar="RULE",
        type=one_of("deconvnet", "gradient", "guided"),
        help="deconvnet, gradient or guided: how activations are reversed",
    )
    _add_norm(parser)
    add(
        "--scale",
        metavar="WHAT",
        type=one_of("tile", "row", "figure"),
        help="tile, row or figure: which tiles share one range of grey",
    )
    add(
        "--seed", metavar="WHAT", type=one_of("unit", "all"), help="all: the whole map of a feature"
    )
    add("--no-crop", action="store_true", help="show all of the image, not what a unit sees")
    add("--sanity", action="store_true", help="show the same with shuffled weights beside it")
    add("--threads", metavar="N", type=count, help="threads that the network runs with")
    _add_picture_options(parser, "pictures")


def _add_norm(parser: ArgumentParser) -> None:
    """Add the option of numbers shown as grey or colour; ``--mode`` was its name in `run`."""
    kind = one_of("zero", "minmax", "positive")
    text = "how numbers become grey or colour: zero (0 is mid-grey), minmax or positive"
    parser.add_argument("--norm", metavar="NORM", type=kind, help=text)
    parser.add_argument("--mode", dest="norm", type=kind, help=SUPPRESS)


def _scaled(text: str) -> tuple[float, float]:
    """Read the factor of pixels as the range of 0 to 255.

    >>> _scaled("1/255"), _scaled("2")
    ((0.0, 1.0), (0.0, 510.0))
    """
    return 0.0, 255 * number(text)


def _add_picture_options(parser: ArgumentParser, title: str) -> None:
    """Add the options of picture preprocessing."""
    text = "pixels 0 to 255 become --range, less --mean, divided by --std"
    add = parser.add_argument_group(title, text).add_argument
    add("--size", metavar="HxW", type=sizes, help="resize to height x width, bicubic")
    add("--range", metavar="LOW,HIGH", type=numbers, help="0,1 if not given")
    for option, default in (("--mean", 0), ("--std", 1)):
        text = f"{default} if not given; one or per channel"
        add(option, metavar="R,G,B", type=numbers, help=text)


def _info(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="an ONNX file, to list its convolutions")
    add("--size", metavar="HxW", type=sizes, help="of MODEL, where its sizes are free; 256")
    add("--cache", action="store_true", help="tell of the kernels that are kept on disk")
    add("--clear-cache", action="store_true", help="remove the kernels that are kept on disk")
    add("--warm", metavar="MODEL", help="compile the kernels that an ONNX model needs, ahead of it")


def _completion(parser: ArgumentParser) -> None:
    shells = one_of("bash", "zsh")
    parser.add_argument("shell", metavar="SHELL", type=shells, help="bash or zsh")


class Verb(NamedTuple):
    """One verb: its summary, the function that adds its options, and examples, one a line.

    The module ``tconv.cli.<verb>`` has the function ``answer(options)`` that runs it.
    """

    summary: str
    add_options: Callable[[ArgumentParser], None]
    examples: str


VERBS = {
    "run": Verb(
        "run an ONNX model, or one layer on a volume, with transposed convolutions by tconv",
        _run,
        "tconv run generator.onnx latent.npy -o face.png\n"
        "tconv run upscale.onnx photo.jpg --size 256x256 --compare\n"
        "tconv run vocoder.onnx mel.npy --stream --chunk 4 -o voice.wav --sample-rate 22050\n"
        "tconv run unet.onnx scan.zarr/0 -o labels.zarr --tile auto --memory 4GB\n"
        "tconv run --volume scan.zarr/0 -w w.npy -s 2 -p 1 -o double.zarr --memory 1GB",
    ),
    "shape": Verb(
        "output size, overlap, and the same in other libraries; or settings for a wanted size",
        _shape,
        "tconv shape 64 -k 4 -s 2 -p 1\ntconv shape 64x48 --to 128x96 -s 2",
    ),
    "explain": Verb(
        "a transposed convolution cell by cell: a page to play with, or a picture",
        _explain,
        "tconv explain -o page.html\n"
        "tconv explain -i '37 47; 67 77' -k '1 2; 3 4' --cell 1,1 -o cell.png\n"
        "tconv explain -i 3 -k 3 -s 2 -p 1 --op 1 -o stamps.gif\n"
        "tconv explain --lens picture -k 3 -s 2 -o checkerboard.svg\n"
        "tconv explain generator.onnx --layer up1 --pair 5,0 -o page.html",
    ),
    "see": Verb(
        "what a feature of a network sees: its strongest units, projected back to the pixels",
        _see,
        "tconv see vgg16.onnx cat.jpg -o cat.png\n"
        "tconv see vgg16.onnx photos/ --layer relu4_3 --feature 12,40 -o photos.html\n"
        "tconv see vgg16.onnx --list",
    ),
    "info": Verb(
        "versions, processor, memory and extras; or a model's convolutions, their shapes and cost",
        _info,
        "tconv info\ntconv info generator.onnx\ntconv info detector.onnx --size 736x736",
    ),
    "completion": Verb(
        "the script by which a shell completes tconv's verbs, options and files",
        _completion,
        "tconv completion bash\ntconv completion zsh",
    ),
}
"""All verbs by name, in the order in which help lists them."""


def parser_of(name: str) -> ArgumentParser:
    """Make the parser of a verb's options."""
    verb = VERBS[name]
    listed = "".join(f"  {line}\n" for line in verb.examples.splitlines())
    width = get_terminal_size().columns
    parser = Parser(
        prog=f"tconv {name}",
        description=fill(f"{verb.summary[0].upper()}{verb.summary[1:]}.", width),
        epilog=f"examples:\n{listed}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.example = verb.examples.partition("\n")[0]
    verb.add_options(parser)
    general = parser.add_argument_group("on every verb").add_argument
    general("--json", action="store_true", help="print one JSON object instead of tables")
    general(
        "--color",
        metavar="WHEN",
        type=one_of("auto", "always", "never"),
        default="auto",
        help="auto (on a terminal), always or never",
    )
    general("--debug", action="store_true", help="show where in the code an error arose")
    return parser
