"""An ONNX model as a whole: inputs from files, outputs to files, and a report."""

from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from tconv.cli.console import Answer, at, in_typed_words
from tconv.cli.feeds import PictureSettings, Source, is_picture, read_feeds, sources
from tconv.cli.model_layers import layer_shapes
from tconv.cli.options import UsageError
from tconv.cli.outputs import Output
from tconv.cli.run.results import described, output_of, verdict_of, written
from tconv.cli.standard_streams import DASH, place_of_file
from tconv.engine import wait_for_optimised
from tconv.system.files import regular_file
from tconv.tables import Table

if TYPE_CHECKING:
    from tconv.onnx import Comparison, Report, Session

__all__ = ["run_model"]

R = TypeVar("R", "Report", "Comparison")

_SHORT_MS, _TIMED_RUNS = 1e3, 3  # layers of a program are timed if a run takes no longer
_LONG_S = 10.0  # a run that takes longer is not repeated for its time
_FOR_PICTURES = ("size", "range", "mean", "std")


def run_model(options: Namespace) -> Answer:
    """Run the model, write its outputs, and report on every ConvTranspose.

    Everything that can be checked before the model runs is checked before.
    """
    _check(options)
    with regular_file(options.model):  # to report a wrong path before onnx is imported
        pass
    words = sources(options.inputs, ())
    output = output_of(options, words)
    from tconv.onnx import Session, check_weights  # which needs optional libraries

    with at(f"model {options.model!r}"):
        check_weights(options.model)
        session = Session(options.model, **_session_arguments(options))
    declared = session.get_inputs()
    given = sources(options.inputs, [each.name for each in declared])
    settings = _picture_settings(options, given)
    with at(f"model {options.model!r}"):
        feeds = read_feeds(given, declared, settings, cast=options.cast, dtype=options.dtype)
    chosen = output.choose(session.get_outputs()) if output else None
    files = ", ".join(place_of_file(source.path).removeprefix("file ") for source in given)
    with at(f"model {options.model!r}" + (f" with {files}" if files else "")):
        if options.compare:
            return _compared(options, feeds, output, chosen)
        found, first_ms, is_again = _run(session, feeds)
    arrays = {each.name: a for each, a in zip(session.get_outputs(), found, strict=True)}
    wrote = written(output, arrays, chosen)
    report, is_timed = _in_typed_words(session.report()), False
    if any(node.x_shape is None for node in report.nodes):
        is_timed = is_again and bool(report.programs) and (report.elapsed_ms or 0) <= _SHORT_MS
        with at(f"model {options.model!r}"):
            report = _with_layers(report, session, feeds, options.model, is_timed)
    result = {
        **report.as_dict(),
        "first_run_ms": first_ms,
        "is_first_run": not is_again,
        "outputs": described(arrays),
        "written": options.output,
    }
    table = report.table()
    lines = (table.footer, _about_times(first_ms, is_again, is_timed))
    table = replace(table, footer="\n".join(lines))
    return Answer((table, *wrote), result, beside=options.output == DASH)


def _run(session: "Session", feeds: dict[str, NDArray[Any]]) -> tuple[list[Any], float, bool]:
    """Run a model, and once more for its times unless the first run was long.

    Returns
    -------
    outputs of the first run, its milliseconds, and whether there was a second run
    """
    began = perf_counter()
    found = session.run(None, feeds)
    first_s = perf_counter() - began
    is_again = first_s <= _LONG_S
    if is_again:
        wait_for_optimised()
        session.run(None, feeds)
    return found, 1e3 * first_s, is_again


def _with_layers(
    report: "Report",
    session: "Session",
    feeds: dict[str, NDArray[Any]],
    model: str,
    is_timed: bool,
) -> "Report":
    """Add the sizes of layers that are not computed one by one, and their times in a program."""
    shapes = layer_shapes(model, {name: value.shape for name, value in feeds.items()})
    ms = defaultdict[str, float](float)
    for step in session.profile(feeds, _TIMED_RUNS).steps if is_timed else ():
        for name in step.nodes:
            ms[name] += step.ms or 0.0
    names, nodes = Counter(node.name for node in report.nodes), []
    for node in report.nodes:
        if node.x_shape is None and node.output in shapes:
            x, weight, y = shapes[node.output]
            node = replace(node, x_shape=x, weight_shape=weight, y_shape=y)
        if node.ms is None and names[node.name] == 1:
            node = replace(node, ms=ms.get(node.name))
        nodes.append(node)
    return replace(report, nodes=tuple(nodes))


def _in_typed_words(report: R) -> R:
    """The report with reasons that name options of the command line, not arguments of Python."""
    nodes = [replace(node, reason=in_typed_words(node.reason)) for node in report.nodes]
    decision = report.decision
    if decision is not None:
        decision = replace(decision, reason=in_typed_words(decision.reason))
    return replace(report, nodes=tuple(nodes), decision=decision)


def _about_times(first_ms: float, is_again: bool, is_timed: bool) -> str:
    first = f"{first_ms:,.0f} ms" if first_ms >= 10 else f"{first_ms:.1f} ms"
    first += " (plans, compiles kernels, packs weights)"
    if not is_again:
        return f"times above: of the first run, {first}"
    layers = f", layers alone: the least of {_TIMED_RUNS}" if is_timed else ""
    return f"first run {first} · times above: of a second run{layers}"


def _compared(
    options: Namespace,
    feeds: Mapping[str, NDArray[Any]],
    output: Output | None,
    chosen: str | None,
) -> Answer:
    """Compare with ONNX Runtime alone, and check the difference against --max-difference."""
    from tconv.onnx import compare

    comparison = _in_typed_words(compare(options.model, feeds, **_session_arguments(options)))
    wrote = written(output, comparison.outputs, chosen)
    code, verdict = verdict_of(options, comparison.largest_difference)
    result = {
        **comparison.as_dict(),
        "outputs": described(comparison.outputs),
        "written": options.output,
    }
    parts: tuple[str | Table, ...] = (comparison.table(), *wrote, *verdict)
    return Answer(parts, result, code, beside=options.output == DASH)


def _session_arguments(options: Namespace) -> dict[str, Any]:
    """Arguments of `Session` and `compare`."""
    method = options.method or "auto"
    return {"threads": options.threads, "method": method, "force": options.every_node}


def _check(options: Namespace) -> None:
    """Refuse options that exclude each other or would have no effect."""
    if options.every_node and options.method not in (None, "auto"):
        raise UsageError(
            f"--every-node excludes --method {options.method}",
            "option --every-node",
            "leave one of the two out",
        )
    for name, value in (("--output-name", options.output_name), ("--norm", options.norm)):
        if value is not None and options.output is None:
            raise UsageError(f"{name} needs -o/--output", f"option {name}", "add -o PATH")
    if (options.size is not None and len(options.size) > 2) or min(options.size or (1,)) < 1:
        raise UsageError(
            f"--size {'x'.join(map(str, options.size))} is no height and width",
            "option --size",
            "write --size 256x256, say",
        )


def _picture_settings(options: Namespace, given: Sequence[Source]) -> PictureSettings:
    typed = {name: getattr(options, name) for name in _FOR_PICTURES}
    typed = {name: value for name, value in typed.items() if value is not None}
    if typed and not any(map(is_picture, given)):
        name = next(iter(typed))
        raise UsageError(
            f"--{name} is for pictures, and no input is one",
            f"option --{name}",
            "leave it out, or give a picture",
        )
    if options.dtype is not None and given and all(map(is_picture, given)):
        raise UsageError(
            "--dtype is for arrays, and no input is one",
            "option --dtype",
            "leave it out, a picture gets the type of its input",
        )
    if "size" in typed and len(typed["size"]) == 1:
        typed["size"] *= 2
    return PictureSettings(**typed)
