"""Kinds of runs: the options that each has, and refusals of those of the others."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tconv.cli.options import UsageError

__all__ = ["OF_VOLUMES", "check_kind"]

# Options of each kind of run, by their names in the parsed options.
_OF_LAYERS = (
    *("weight", "bias", "stride", "padding", "dilation", "op", "groups", "adjoint"),
    *("chunks", "shards"),
)
_OF_DISKS = ("memory", "workers", "scheduler", "verify")
OF_VOLUMES = (*_OF_LAYERS, *_OF_DISKS)
_OF_STREAMS = ("chunk", "input_name", "time_axis")
_OF_WHOLE_MODELS = ("norm", "every_node", "method", "size", "range", "mean", "std")
_OF_MEMORY = (
    *("compare", "max_difference", "threads", "cast", "sample_rate", "stream", "chunk"),
    *("time_axis", *_OF_WHOLE_MODELS),
)
_OF_MODELS = ("inputs", "output_name", "input_name", "tile", *_OF_MEMORY)


def check_kind(options: Namespace) -> None:
    """Refuse a run without a model, and options that another kind of run has.

    Raises
    ------
    UsageError : an option would have no effect, or something is missing
    """
    if options.volume is not None:
        _check_volume(options)
        return
    if options.tile is not None:
        _check_tiles(options)
        return
    if given := _first(options, OF_VOLUMES):
        raise UsageError(
            f"{given} is for volumes", f"option {given}", "add --volume IN.zarr, or leave it out"
        )
    if options.model is None:
        raise UsageError(
            "MODEL is missing", "tconv run", "name an ONNX file, or a volume by --volume IN.zarr"
        )
    if options.max_difference is not None and not options.compare:
        raise UsageError(
            "--max-difference needs --compare", "option --max-difference", "add --compare"
        )
    if options.stream:
        if given := _first(options, _OF_WHOLE_MODELS):
            raise UsageError(
                f"{given} excludes --stream", f"option {given}", "leave one of the two out"
            )
        return
    if given := _first(options, _OF_STREAMS):
        raise UsageError(
            f"{given} is for streams", f"option {given}", "add --stream, or leave it out"
        )
    is_sound = Path(options.output or "").suffix.lower() == ".wav"
    if options.sample_rate is not None and not is_sound:
        raise UsageError(
            "--sample-rate is for sound", "option --sample-rate", "write a .wav, or add --stream"
        )


def _check_tiles(options: Namespace) -> None:
    """Refuse options that a model in memory or a layer has, and a run without input or output."""
    if given := _first(options, (*_OF_LAYERS, *_OF_MEMORY, "dtype")):
        raise UsageError(f"{given} excludes --tile", f"option {given}", "leave one of the two out")
    if options.model is None or len(options.inputs) != 1:
        raise UsageError(
            f"--tile needs MODEL and one INPUT, not {len(options.inputs)}",
            "option --tile",
            "name an ONNX file and an array on disk: tconv run MODEL.onnx IN.zarr -o OUT.zarr",
        )
    if len(options.input_name or ()) > 1:
        raise UsageError("--tile takes one --input-name", "option --input-name", "pass one")
    if options.output is None:
        raise UsageError("--tile needs -o/--output", "option --tile", "add -o OUT.zarr")


def _check_volume(options: Namespace) -> None:
    """Refuse options that only a model has, and a run without weight or output."""
    if options.model is not None:
        raise UsageError(
            f"MODEL {options.model!r} and --volume exclude each other",
            "option --volume",
            "leave one of the two out",
        )
    given = _first(options, _OF_MODELS)
    if given is not None:
        raise UsageError(f"{given} is for models", f"option {given}", "leave it out")
    for name, option in (("weight", "-w/--weight"), ("output", "-o/--output")):
        if getattr(options, name) is None:
            raise UsageError(
                f"--volume needs {option}", "option --volume", f"add {option[:2]} PATH"
            )


def _first(options: Namespace, names: Sequence[str]) -> str | None:
    """The first of some options that was typed."""
    for name in names:
        value: Any = getattr(options, name)
        if value is not None and value is not False and value != []:
            return f"--{name.replace('_', '-')}"
    return None
