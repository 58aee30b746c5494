"""Verb `explain`: a page or a picture of a small transposed convolution, cell by cell."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.cli.console import Answer, at, at_named_argument
from tconv.cli.options import UsageError, closest
from tconv.cli.streams import DASH, write_bytes
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
    typed = (options.input, options.kernel)
    rank = int(options.rank or max(2, *(len(sizes or ()) for sizes in typed)))
    x, w = (
        None if sizes is None else _ramp(as_per_axis(sizes, name, rank, 1))
        for sizes, name in zip(typed, ("input", "kernel"), strict=True)
    )
    if rank == 1 and x is None:
        x = _ramp((3,))
    settings = {
        "stride": options.stride,
        "padding": options.padding,
        "dilation": options.dilation,
        "output_padding": options.op,
    }
    return explain(x, w, **{name: each for name, each in settings.items() if each is not None})


def _ramp(size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return 1, 2, 3 … of a size; zeros if it is too large to draw, which `explain` refuses."""
    if max(size) > 99:
        return np.zeros(tuple(min(n, 99) for n in size))
    return np.arange(1.0, np.prod(size) + 1).reshape(size)


def _explain_model(options: Namespace) -> Explainer:
    """Explain the kernel of one channel pair of a model's ConvTranspose, with its settings."""
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
    size = as_per_axis(options.input or (3,), "input", rank, 1)
    names = ("stride", "padding", "dilation", "output_padding")
    with at(f"model {options.model!r}, node {node.name or node.output[0]!r}"):
        return explain(_ramp(size), weight[c, m], **{name: arguments[name] for name in names})


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
