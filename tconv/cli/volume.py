"""A volume in place of a model: `tconv run --volume`, from an array on disk to a Zarr array."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from tconv.cli.console import Answer, at, at_named_argument
from tconv.cli.feeds import read_array
from tconv.cli.options import UsageError
from tconv.cli.standard_streams import place_of_file
from tconv.system.topology import core_count

__all__ = ["check_for_model", "convert_volume"]

# Options of each kind of run, by their names in the parsed options.
_OF_VOLUMES = (
    *("weight", "bias", "stride", "padding", "dilation", "op", "groups", "adjoint"),
    *("chunks", "shards", "memory", "workers", "scheduler", "verify"),
)
_OF_MODELS = (
    *("inputs", "output_name", "norm", "compare", "max_difference", "threads", "every_node"),
    *("method", "cast", "size", "range", "mean", "std"),
)
_SETTINGS = {"op": "output_padding"}  # by their names in Python, where these differ


def check_for_model(options: Namespace) -> None:
    """Refuse a run without a model, and options that only a volume has."""
    given = _first(options, _OF_VOLUMES)
    if given is not None:
        raise UsageError(
            f"{given} is for volumes", f"option {given}", "add --volume IN.zarr, or leave it out"
        )
    if options.model is None:
        raise UsageError(
            "MODEL is missing", "tconv run", "name an ONNX file, or a volume by --volume IN.zarr"
        )


def convert_volume(options: Namespace) -> Answer:
    """Convert the volume, and report what was computed and what was there before."""
    _check(options)
    from tconv.volumes import convert  # which needs optional libraries

    _limit_zarr(options.workers)

    arrays = {}
    for name in ("weight", "bias"):
        path = getattr(options, name)
        if path is not None:
            with at(f"option --{name}, {place_of_file(path)}"):
                arrays[name] = read_array(path)
    settings = {
        _SETTINGS.get(name, name): getattr(options, name)
        for name in ("stride", "padding", "dilation", "op", "groups", "dtype")
        if getattr(options, name) is not None
    }
    places = {name: f"option --{name}" for name in (*_OF_VOLUMES, "dtype", "output_padding")}
    places |= {"source": "option --volume", "target": "option -o/--output"}
    try:
        with at_named_argument(places):
            report = convert(
                options.volume,
                arrays["weight"],
                arrays.get("bias"),
                options.output,
                adjoint=options.adjoint,
                chunks=options.chunks,
                shards=options.shards,
                memory="2GB" if options.memory is None else options.memory,
                workers=options.workers,
                scheduler=options.scheduler,
                overwrite=options.force,
                verify=options.verify,
                **settings,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; run the same command again, and it goes on where it was"
        ) from None
    return Answer((report.table(),), report.as_dict())


def _limit_zarr(workers: int | None) -> None:
    """Let Zarr use no more threads than there are cores, and little memory for each task.

    For this process alone, and before Zarr starts its threads: the function `convert` leaves the
    settings of a program as they are.
    """
    import zarr

    threads = min(workers or core_count(), core_count())
    zarr.config.set({"async.concurrency": 2, "threading.max_workers": threads})


def _check(options: Namespace) -> None:
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
