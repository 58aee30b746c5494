"""Verb `explain`: a page or a picture of a small transposed convolution, cell by cell."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.cli.console import Answer, at, at_named_argument
from tconv.cli.options import UsageError, closest
from tconv.cli.standard_streams import DASH, write_bytes
from tconv.explainer.explainer import SUFFIXES, Explainer, explain
from tconv.geometry.arguments import as_per_axis
from tconv.nn.onnx_export import read_node

__all__ = ["answer"]

_PLACES = {
    "stride": "option -s/--stride",
    "padding": "option -p/--padding",
    "dilation": "option -d/--dilation",
    "output_padding": "option --op/--output-padding",
    "input": "option -i/--input",
    "kernel": "option -k/--kernel",
    "x": "option -i/--input",
    "w": "option -k/--kernel",
    "step": "option --step",
    "cell": "option --cell",
}
"""Names of arguments with which tconv's messages begin, and the places of their options."""

_OF_A_MODEL = ("layer", "pair")
_NOT_WITH_A_MODEL = ("kernel", "stride", "padding", "dilation", "op", "rank")


def answer(options: Namespace) -> Answer:
    """Write the output, and print the sum of the cell in the middle.

    >>> import tempfile
    >>> from tconv.cli.options import parser_of
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     line = ["-i", "2", "-k", "2", "-s", "2", "-o", f"{folder}/page.svg"]
    ...     print(answer(parser_of("explain").parse_args(line)).parts[0])
    y[1,1] = 4·1 = 4
    2×2 by a kernel of 2×2 gives 4×4
    written to /...page.svg
    """
    _check(options)
    if options.model:
        explainer = _explain_model(options)
    else:
        with at_named_argument(_PLACES):
            explainer = _explain_sizes(options)
    if options.output == DASH:
        write_bytes(explainer.svg().encode())
        return Answer((f"{explainer}\nwritten to standard output",), {}, beside=True)
    with at(f"option -o/--output, file {options.output!r}"):
        explainer.save(options.output)
    return Answer(
        (f"{explainer}\nwritten to {options.output}",),
        {"written": options.output, "facts": explainer.facts()},
    )


def _check(options: Namespace) -> None:
    """Check that the output can be written, and refuse options that do not go together."""
    if options.output is None:
        raise UsageError(
            "-o/--output is missing", "tconv explain", "say what to write, as in -o page.html"
        )
    path = Path(options.output)
    if options.output != DASH and path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"-o/--output must end in one of {', '.join(SUFFIXES)}, not {path.suffix!r}",
            "option -o/--output",
            "write -o page.html, say",
        )
    with at(f"option -o/--output, file {options.output!r}"):
        if options.output != DASH and path.exists() and not options.force:
            raise OSError("the file exists already; pass -f to overwrite it, or choose another.")
    for name in _NOT_WITH_A_MODEL if options.model else _OF_A_MODEL:
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name} {'does not go with' if options.model else 'needs'} MODEL",
                f"option --{name}",
                "a layer brings its own settings; leave it out"
                if options.model
                else "name an ONNX file, or leave it out",
            )


def _explain_sizes(options: Namespace) -> Explainer:
    """Explain numbers that were typed, and 1, 2, 3 … where sizes were."""
    is_picture = options.lens == "picture"
    typed = [each for each in (options.input, options.kernel) if each is not None]
    if options.rank:
        rank = int(options.rank)
    elif not is_picture and any(map(_is_row, typed)) and all(_fits_a_row(each) for each in typed):
        rank = 1
    else:
        rank = max([2, *(len(each) for each in typed if not _is_numbers(each))])
    x, w = _typed(options.input, "input", rank), _typed(options.kernel, "kernel", rank)
    if is_picture and options.input is not None:
        raise UsageError(
            "-i/--input does not go with --lens picture, whose input is a landscape",
            "option -i/--input",
            "leave it out, or choose another lens",
        )
    if is_picture and w is not None and not _is_numbers(options.kernel):
        w = np.ones_like(w)
    if rank == 1 and x is None and not is_picture:
        x = _ramp((3,))
    x, w = _with_channels(x, w, rank)
    settings = {
        "stride": options.stride,
        "padding": options.padding,
        "dilation": options.dilation,
        "output_padding": options.op,
    }
    given = {name: each for name, each in settings.items() if each is not None}
    return explain(x, w, **given, **_view(options))


def _view(options: Namespace) -> dict[str, Any]:
    return {"lens": options.lens, "step": options.step, "cell": options.cell}


def _is_numbers(typed: Any) -> bool:
    return bool(typed) and isinstance(typed[0], tuple)


def _is_row(typed: Any) -> bool:
    return _is_numbers(typed) and len(typed[0]) == 1


def _fits_a_row(typed: Any) -> bool:
    return _is_row(typed) or (not _is_numbers(typed) and len(typed) == 1)


def _typed(typed: Any, name: str, rank: int) -> NDArray[np.float64] | None:
    """Return numbers as an array, (channels, *sizes) if there are several, or a ramp of a size."""
    if typed is None:
        return None
    if not _is_numbers(typed):
        return _ramp(as_per_axis(typed, name, rank, 1))
    array = np.array(typed)
    if rank == 1 and array.shape[1] == 1:
        array = array[:, 0]  # (channels, W)
    return array if len(array) > 1 else array[0]


def _with_channels(x: Any, w: Any, rank: int) -> tuple[Any, Any]:
    """Part a list of kernels by input channel, w[0, 0], w[0, 1], …, if there are channels."""
    ins = len(x) if x is not None and x.ndim > rank else 1
    if w is None or (w.ndim == rank and ins == 1):
        return x, w
    kernels = w if w.ndim > rank else w[np.newaxis]
    if len(kernels) % ins:
        raise UsageError(
            f"{len(kernels)} kernels are no multiple of {ins} input channels",
            "option -k/--kernel",
            "write w[0,0] | w[0,1] | ... | w[1,0] ...",
        )
    if x is not None and x.ndim == rank:
        x = x[np.newaxis]
    return x, kernels.reshape(ins, -1, *kernels.shape[1:])


def _ramp(size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return 1, 2, 3 … of a size; zeros if it is too large to draw, which `explain` refuses."""
    if max(size) > 99:
        return np.zeros(tuple(min(n, 99) for n in size))
    return np.arange(1.0, np.prod(size) + 1).reshape(size)


def _explain_model(options: Namespace) -> Explainer:
    """Explain the kernel of a channel pair of a model's ConvTranspose, with its settings.

    The lens "channels" shows two input and two output channels, from that pair on.
    """
    with open(options.model, "rb"):  # to report a wrong path before onnx is imported
        pass
    from tconv.onnx.model.model import as_source, read_model
    from tconv.onnx.model.nodes import is_conv_transpose

    with at(f"model {options.model!r}"):
        found = read_model(as_source(options.model))
        node = _layer(options, [node for node in found.graph.node if is_conv_transpose(node)])
        arguments, weight, _ = read_node(node, found)
    c, m = _pair(options, weight.shape)
    rank = weight.ndim - 2
    names = ("stride", "padding", "dilation", "output_padding")
    settings = {name: arguments[name] for name in names}
    kernel, x = weight[c, m], None
    if options.lens != "picture":
        x = _typed(options.input or (3,), "input", rank)
    if options.lens == "channels":
        kernel = weight[c : c + 2, m : m + 2]
        if x is not None and x.ndim == rank:
            x = np.stack([x + n for n in range(len(kernel))])
    with at(f"model {options.model!r}, node {node.name or node.output[0]!r}"):
        return explain(x, kernel, **settings, **_view(options))


def _layer(options: Namespace, nodes: list[Any]) -> Any:
    names = [node.name or node.output[0] for node in nodes]
    if not nodes:
        raise UsageError(
            "the model has no ConvTranspose", f"model {options.model!r}", "choose another model"
        )
    wanted = options.layer or "0"
    if wanted in names:
        return nodes[names.index(wanted)]
    if wanted.isdecimal() and int(wanted) < len(nodes):
        return nodes[int(wanted)]
    close = closest(wanted, names)
    listed = ", ".join(f"{n} {name}" for n, name in enumerate(names[:20]))
    raise UsageError(
        f"there is no ConvTranspose {wanted!r}, but {listed}",
        "option --layer",
        f"did you mean {close!r}?" if close else "use one of these numbers or names",
    )


def _pair(options: Namespace, shape: tuple[int, ...]) -> tuple[int, int]:
    pair = options.pair or (0, 0)
    if len(pair) != 2 or not (0 <= pair[0] < shape[0] and 0 <= pair[1] < shape[1]):
        given = ",".join(map(str, pair))
        raise UsageError(
            f"--pair {given} is none of the {shape[0]} by {shape[1]} kernels of this layer",
            "option --pair",
            f"write C,M from 0,0 to {shape[0] - 1},{shape[1] - 1}",
        )
    return pair[0], pair[1]
