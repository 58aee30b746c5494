"""Verbs of the command line, and their options."""

import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable
from difflib import get_close_matches
from math import isfinite
from typing import Any, NamedTuple, NoReturn

__all__ = ["VERBS", "Sizes", "UsageError", "Verb", "closest", "parser_of"]

Sizes = tuple[int, ...]
"""One number for all axes, or one per axis."""

Paddings = str | tuple[int | tuple[int, int], ...]


class UsageError(Exception):
    """Words that cannot be understood: what is wrong, where, and what to do."""

    def __init__(self, message: str, at: str, fix: str) -> None:
        super().__init__(message, at, fix)
        self.message, self.at, self.fix = message, at, fix


class _Parser(ArgumentParser):
    """An argument parser with error messages in tconv's form."""

    example = ""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's error as a UsageError."""
        more = f"{self.prog} --help lists the options"
        if named := re.fullmatch(r"argument ([^:]+): (.*)", message, re.DOTALL):
            option, what = named.groups()
            if what.startswith("expected"):
                example = f"{option.partition('/')[0]}=-1"
                what = f"needs a value; give it one, and if it begins with a minus as {example}"
            elif what.startswith("ignored explicit"):
                what = "takes no value; leave the value out"
            what, _, fix = what.partition("; ")
            raise UsageError(f"{option} {what}", f"option {option}", fix or more)
        if names := message.partition("arguments are required: ")[2]:
            are = "are" if ", " in names else "is"
            example = f"write it as in {self.example}; {more}"
            raise UsageError(f"{names} {are} missing", self.prog, example)
        if unknown := message.partition("unrecognized arguments: ")[2]:
            word = unknown.split()[0].partition("=")[0]
            if not word.startswith("-"):
                raise UsageError(f"{word!r} is one argument too many", self.prog, more)
            close = closest(word, list(self._option_string_actions))
            fix = f"did you mean {close}?" if close else more
            raise UsageError(f"there is no option {word}", self.prog, fix)
        raise UsageError(message, self.prog, more)


def closest(name: str, names: list[str], likeness: float = 0.6) -> str | None:
    """Return the one of `names` that `name` is probably a misspelling of, or None.

    >>> closest("--kernal", ["--kernel", "--stride"])
    '--kernel'
    """
    return next(iter(get_close_matches(name, names, 1, likeness)), None)


# ---- values of options ---------------------------------------------------------------------------


def sizes(text: str) -> Sizes:
    """Read one size, or one per axis.

    >>> sizes("64"), sizes("64x48"), sizes("4,3")
    ((64,), (64, 48), (4, 3))
    """
    try:
        return tuple(map(int, re.split("[x,×]", text)))
    except ValueError:
        raise ArgumentTypeError(
            f"must be a whole number or one per axis, not {text!r}; write it as 4 or 4x3"
        ) from None


def paddings(text: str) -> Paddings:
    """Read a padding: per axis a number or a pair (begin, end), or one of tconv's words.

    >>> paddings("1"), paddings("1:2"), paddings("0x1:2"), paddings("same")
    ((1,), ((1, 2),), (0, (1, 2)), 'same')
    """
    if text in ("valid", "same", "same_upper", "same_lower"):
        return text
    try:
        parts = [tuple(map(int, part.split(":"))) for part in re.split("[x,×]", text)]
        return tuple(
            part[0] if len(part) == 1 else (part[0], part[1]) for part in map(_pair, parts)
        )
    except ValueError:
        raise ArgumentTypeError(
            f"must be a whole number, a pair begin:end, one of these per axis, or same or valid, "
            f"not {text!r}; write it as 1, 1:2 or 1x0:1"
        ) from None


def _pair(part: Sizes) -> Sizes:
    if len(part) > 2:
        raise ValueError
    return part


def count(text: str) -> int:
    """Read a whole number of 1 or more.

    >>> count("8")
    8
    """
    if not text.isdecimal() or not text.strip("0"):
        raise ArgumentTypeError(f"must be a whole number of 1 or more, not {text!r}; write 2, say")
    return int(text)


def number(text: str) -> float:
    """Read a number or a fraction.

    >>> number("0.5"), number("1/4")
    (0.5, 0.25)
    """
    above, slash, below = text.partition("/")
    try:
        value = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if not isfinite(value):
        raise ArgumentTypeError(
            f"must be a number or a fraction, not {text!r}; write it as 0.5 or 1/255"
        )
    return value


def numbers(text: str) -> tuple[float, ...]:
    """Read one number for all channels, or one per channel.

    >>> numbers("0.5"), numbers("0.25,0.5,1/2")
    ((0.5,), (0.25, 0.5, 0.5))
    """
    return tuple(map(number, text.split(",")))


Array = tuple[tuple[tuple[float, ...], ...], ...]


def sizes_or_numbers(text: str) -> Sizes | Array:
    """Read one size, or one per axis; or numbers: spaces, ";" and "|" end them, rows and channels.

    >>> sizes_or_numbers("3x4")
    (3, 4)
    >>> sizes_or_numbers("1 -2; 1/2 3.5")
    (((1.0, -2.0), (0.5, 3.5)),)
    """
    text = " ".join(text.translate(_SIGNS).split())
    shown = repr(text.replace("; ", ";"))  # "; " begins the advice of a message
    if re.fullmatch(r"\d+([x×]\d+)*", text):
        return sizes(text)
    rule = "write a size as 3 or 3x4, and numbers as '1 2; 3 4': spaces part them, ; parts rows"
    if "," in text:
        raise ArgumentTypeError(
            f"must have no comma, which could end a number or begin its fraction, not {shown}; "
            f"{rule}, | channels, and a fraction is 1.5 or 3/2"
        )
    if not re.search(r"[\s;|]", text) and not re.fullmatch(r"[-+]?[\d./]+", text):
        raise ArgumentTypeError(f"must be a size or numbers, not {shown}; {rule}")
    channels = tuple(
        tuple(tuple(map(number, row.split())) for row in channel.strip(" ;").split(";"))
        for channel in text.split("|")
    )
    shapes = {tuple(map(len, channel)) for channel in channels}
    (first, *others) = shapes
    if others or len(set(first)) > 1 or not first[0]:
        raise ArgumentTypeError(
            f"must have as many numbers in every row, and rows in every channel, not {shown}; "
            f"{rule}, | channels"
        )
    return channels


_SIGNS = str.maketrans("−–", "--")  # the minus of typography, and what is taken for it


def places(text: str) -> Sizes:
    """Read whole numbers from 0 with a comma or x between them.

    >>> places("0,2"), places("1x0")
    ((0, 2), (1, 0))
    """
    if not re.fullmatch(r"\d+([,x]\d+)*", text):
        raise ArgumentTypeError(
            f"must be row and column, counted from 0, not {text!r}; write it as 1,2"
        )
    return tuple(map(int, re.split("[,x]", text)))


def one_of(*names: str) -> Callable[[str], str]:
    """Make the reader of an option that takes one of some words."""

    def word(text: str) -> str:
        if text not in names:
            close = closest(text, list(names))
            fix = f"did you mean {close}?" if close else "write one of these"
            raise ArgumentTypeError(f"must be one of {', '.join(names)}, not {text!r}; {fix}")
        return text

    return word


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
        help="PATH or NAME=PATH of an .npy, an .npz with arrays by name, or a picture",
    )
    add(
        "-o",
        "--output",
        metavar="PATH",
        help="where the results go: .npz, .npy or a picture; of a volume: Zarr",
    )
    add("-f", "--force", action="store_true", help="overwrite an existing output")
    add("--output-name", metavar="NAME", help="which output goes to an .npy or a picture")
    add(
        "--mode",
        type=one_of("zero", "minmax", "positive"),
        metavar="MODE",
        help="how values become grey or colour: zero (0 is mid-grey), minmax or positive",
    )
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
    pictures = parser.add_argument_group(
        "pictures as inputs", "become (pixel*scale - mean)/std, float32, channels first"
    )
    _add_picture_options(pictures, ("--scale", "S", number, "1/255 if not given"))
    _add_volume_options(parser)


def _add_volume_options(parser: ArgumentParser) -> None:
    """Add the options of one transposed convolution of an array on disk."""
    add = parser.add_argument_group(
        "a volume in place of a model",
        "one transposed convolution of an array that may be larger than memory;\n"
        "run again after a stop, it goes on where it was",
    ).add_argument
    add("--volume", metavar="IN", help="path or URL of a Zarr array, or an .npy file")
    add("-w", "--weight", metavar="PATH", help=".npy, of shape (C, M // groups, *kernel)")
    add("-b", "--bias", metavar="PATH", help=".npy, one number per output channel")
    add("-s", "--stride", metavar="N", type=sizes, help="1 if not given; per axis 2x1x1")
    add("-p", "--padding", metavar="N", type=paddings, help="0 if not given; 1, 1:2, 1x0:1, same")
    add("-d", "--dilation", metavar="N", type=sizes, help="1 if not given")
    add("--op", "--output-padding", metavar="N", type=sizes, help="0 if not given")
    add("--groups", metavar="N", type=count, help="1 if not given")
    add("--dtype", metavar="TYPE", help="convert source and weight to it, such as float32")
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
    add("-o", "--output", metavar="PATH", help="what to write: .html, .svg, .png or .gif")
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
    add("--layer", metavar="L", help="index, name or part of it; the last rectified one")
    add("--feature", metavar="C,C", type=sizes, help="channels; the strongest if not given")
    add("--unit", metavar="C,Y,X", type=sizes, help="channel, row and column of one unit")
    add("--top", metavar="N", type=count, help="features of one image, images of a feature (9)")
    add(
        "--rule",
        metavar="RULE",
        type=one_of("deconvnet", "gradient", "guided"),
        default="deconvnet",
        help="deconvnet, gradient or guided: how rectifiers are reversed",
    )
    add(
        "--norm",
        metavar="NORM",
        type=one_of("zero", "minmax", "positive"),
        help="zero (0 is mid-grey), minmax or positive",
    )
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
    pictures = parser.add_argument_group(
        "pictures", "0 to 255 become --range, less --mean, divided by --std"
    )
    _add_picture_options(pictures, ("--range", "LOW,HIGH", numbers, "0,1 if not given"))


def _add_picture_options(group: Any, first: tuple[str, str, Any, str]) -> None:
    """Add the options of picture preprocessing; `first` is the option applied first."""
    add, (name, metavar, kind, text) = group.add_argument, first
    add("--size", metavar="HxW", type=sizes, help="resize to height x width, bicubic")
    add(name, metavar=metavar, type=kind, help=text)
    for option, default in (("--mean", 0), ("--std", 1)):
        text = f"{default} if not given; one or per channel"
        add(option, metavar="R,G,B", type=numbers, help=text)


def _info(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--cache", action="store_true", help="tell of the kernels that are kept on disk")
    add("--clear-cache", action="store_true", help="remove the kernels that are kept on disk")
    add("--warm", metavar="MODEL", help="compile the kernels that an ONNX model needs, ahead of it")


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
        "versions, processor, memory, and which extras are installed", _info, "tconv info"
    ),
}
"""All verbs by name, in the order in which help lists them."""


def parser_of(name: str) -> ArgumentParser:
    """Make the parser of a verb's options."""
    verb = VERBS[name]
    listed = "".join(f"  {line}\n" for line in verb.examples.splitlines())
    parser = _Parser(
        prog=f"tconv {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
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
