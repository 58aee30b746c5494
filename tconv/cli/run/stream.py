"""An ONNX model along time: inputs chunk by chunk, results to files, latency and speed."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tconv.cli.console import Answer, at
from tconv.cli.feeds import PictureSettings, describe, read_feeds, sources
from tconv.cli.options import UsageError, closest
from tconv.cli.run.results import described, output_of, verdict_of, written
from tconv.cli.sound import SAMPLE_RATE
from tconv.cli.standard_streams import DASH, place_of_file
from tconv.errors import ShapeError
from tconv.progress import progress_bar
from tconv.system.files import regular_file
from tconv.tables import Table

if TYPE_CHECKING:
    from tconv.onnx import NodeArg, Stream

__all__ = ["run_stream"]

_PUSH_S = 0.05  # of sound, about, if no --chunk is given

Arrays = dict[str, NDArray[Any]]


def run_stream(options: Namespace) -> Answer:
    """Push the inputs through the model, write the results, report latency, speed and state.

    Everything that can be checked before the model runs is checked before.
    """
    with regular_file(options.model):  # to report a wrong path before onnx is imported
        pass
    output = output_of(options, sources(options.inputs, ()), is_chosen=False)
    from tconv.onnx import NodeArg  # which needs optional libraries
    from tconv.streams.report import measure, shapes_of

    with at(f"model {options.model!r}"):
        part = _Part(options)
        given = sources(options.inputs, part.names)
        arguments = part.arguments([source.name for source in given])
        feeds = read_feeds(
            given, arguments, PictureSettings(), cast=options.cast, dtype=options.dtype
        )
        streamed = part.streamed(arguments)
    files = ", ".join(place_of_file(source.path).removeprefix("file ") for source in given)
    with at(f"model {options.model!r}" + (f" with {files}" if files else "")):
        inputs = {name: feeds.pop(name) for name in streamed}
        stream = _stream(options, inputs, part.outputs, feeds)
        shapes = shapes_of(stream)
        axes = {name: shape.index(None) for name, shape in shapes.items()}
        results = [NodeArg(n, "tensor(float)", list(shapes[n])) for n in part.outputs]
        rate = options.sample_rate or SAMPLE_RATE
        if output is not None and output.is_sound and stream.ratio < 1:
            output = replace(output, sample_rate=_slower(rate, stream.ratio))
        chosen = output.choose(results, axes) if output else None
        chunk = options.chunk or max(round(_PUSH_S * rate / max(float(stream.ratio), 1.0)), 1)
        with progress_bar("frames") as progress:
            found = measure(stream, list(inputs.values()), chunk, rate, progress)
        wrote = written(output, found.outputs, chosen, axes)
        compared = _compared(options, inputs, found.outputs, feeds) if options.compare else None
    about = [_about_rate(options.sample_rate)]
    parts = list[str | Table]()
    result = {**found.report.as_dict(), "chunk": chunk, "threads": options.threads}
    code = 0
    if compared is None:
        about.append("not compared with the whole input; --compare runs ONNX Runtime on it")
    else:
        code, verdict = verdict_of(options, compared.largest_difference)
        parts += [compared.table(), *verdict]
        result |= compared.as_dict()
    result |= {"outputs": described(found.outputs), "written": options.output}
    facts = replace(found.report.facts(), footer="\n".join(about))
    shown = (found.report.table(), facts, *parts, *wrote)
    return Answer(shown, result, code, beside=options.output == DASH)


def _slower(rate: int, ratio: Fraction) -> int:
    """The sample rate of a result that has fewer cells than the input, whose rate is given."""
    if (rate * ratio).denominator > 1:
        raise UsageError(
            f"a result of {rate} * {ratio} samples a second has no whole sample rate",
            "option --sample-rate",
            f"give a multiple of {ratio.denominator}, or write an .npy",
        )
    return int(rate * ratio)


def _about_rate(given: int | None) -> str:
    if given is not None:
        return f"times of sound at {given:,} Hz"
    return f"times of sound at {SAMPLE_RATE:,} Hz, as --sample-rate is not given"


# ---- the part of the model -----------------------------------------------------------------------


class _Part:
    """The part of a model that is wanted: from inputs, or values within it, to outputs.

    Raises
    ------
    UsageError : there is no value of a name
    """

    def __init__(self, options: Namespace) -> None:
        from tconv.onnx import check_weights
        from tconv.onnx.model.model import node_arg
        from tconv.onnx.model_part import open_model, value_names

        check_weights(options.model)
        self._model = open_model(options.model, weights=False)
        declared, self._made = value_names(self._model)
        inputs = {each.name: each for each in self._model.graph.input}
        self._declared = {name: node_arg(inputs[name]) for name in declared}
        self._starts: list[str] = list(dict.fromkeys(options.input_name or ()))
        self.outputs = [each.name for each in self._model.graph.output]
        for name in self._starts:
            _check_name(name, self.names, "input", list(self._declared))
        if options.output_name is not None:
            _check_name(options.output_name, list(self._made), "output", self.outputs)
            self.outputs = [options.output_name]

    @property
    def names(self) -> list[str]:
        """Names that inputs may have: those of the model, and of all values within it."""
        return [*self._declared, *self._made]

    def arguments(self, named: Sequence[str | None]) -> list["NodeArg"]:
        """What must be given, if some inputs are given by name: the model may be cut there."""
        from tconv.onnx import NodeArg
        from tconv.onnx.model_part import nodes_between

        within = [name for name in named if name is not None and name in self._made]
        starts = list(dict.fromkeys([*self._starts, *within]))
        nodes = nodes_between(self._model, starts, self.outputs)
        read = {name for node in nodes for name in node.input}
        others = [name for name in self._declared if name in read and name not in starts]
        free = {name: NodeArg(name, "tensor(float)", [], has_rank=False) for name in starts}
        return [({**free, **self._declared})[name] for name in (*starts, *others)]

    def streamed(self, arguments: Sequence["NodeArg"]) -> list[str]:
        """The inputs that arrive chunk by chunk: those that are named, or may have any length."""
        found = self._starts or [
            each.name
            for each in arguments
            if each.type == "tensor(float)"
            and (not each.has_rank or any(not isinstance(size, int) for size in each.shape[1:]))
        ]
        if not found:
            raise UsageError(
                f"no input may have any length along time, the model takes {describe(arguments)}",
                "option --stream",
                "name the one that arrives in chunks by --input-name, its axis by --time-axis",
            )
        return found


def _check_name(name: str, names: Sequence[str], what: str, usual: Sequence[str]) -> None:
    if name not in names:
        close = closest(name, list(names))
        raise UsageError(
            f"the model has no value {name!r}",
            f"option --{what}-name",
            f"did you mean {close!r}?" if close else f"its {what}s are {', '.join(usual)}",
        )


# ---- the stream ----------------------------------------------------------------------------------


def _stream(
    options: Namespace, inputs: Arrays, outputs: Sequence[str], constants: Arrays
) -> "Stream":
    """Make the stream for arrays of these sizes."""
    from tconv.onnx import Stream

    axis, first = options.time_axis, next(iter(inputs.values()))
    shapes: Any = list(inputs)
    if axis is not None:
        for name, array in inputs.items():
            if not 0 < axis < array.ndim:
                raise UsageError(
                    f"--time-axis {axis} is no axis of {name!r}, which has shape {array.shape}",
                    "option --time-axis",
                    "give one, counted from 0, that is not the first, which is the batch",
                )
        shapes = {
            name: tuple(None if n == axis else size for n, size in enumerate(array.shape))
            for name, array in inputs.items()
        }
    settings = {"batch": first.shape[0] if first.ndim else 1, "threads": options.threads}
    try:
        return Stream(
            options.model, inputs=shapes, outputs=outputs, constants=constants, **settings
        )
    except ShapeError as error:
        if "which axis is time is not clear" not in str(error):
            raise
        raise UsageError(
            str(error).partition(": which axis")[0] + ": which axis is time is not clear",
            "option --stream",
            "give the axis by --time-axis N, counted from 0",
        ) from None


def _compared(options: Namespace, inputs: Arrays, results: Arrays, constants: Arrays) -> Any:
    """Compare results with those of ONNX Runtime alone, of the whole input."""
    from tconv.onnx.compare import compare_results
    from tconv.onnx.model_part import model_of_part, open_model

    shapes = {name: array.shape for name, array in inputs.items()}
    model = model_of_part(open_model(options.model), shapes, list(results), constants)
    return compare_results(model, inputs, results, threads=options.threads)
