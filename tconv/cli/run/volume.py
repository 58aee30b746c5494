"""A volume in place of a model: `tconv run --volume`, from an array on disk to a Zarr array."""

from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from tconv.cli.console import Answer, at, at_named_argument
from tconv.cli.feeds import read_array
from tconv.cli.run.kinds import OF_VOLUMES
from tconv.cli.standard_streams import place_of_file
from tconv.system.topology import core_count

if TYPE_CHECKING:
    from tconv.volumes import Conversion

__all__ = ["convert_volume", "converted", "limit_zarr"]

_SETTINGS = {"op": "output_padding"}  # by their names in Python, where these differ


def convert_volume(options: Namespace) -> Answer:
    """Convert the volume, and report what was computed and what was there before."""
    from tconv.volumes import convert  # which needs optional libraries

    limit_zarr(options.workers)

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
    places = {name: f"option --{name}" for name in (*OF_VOLUMES, "dtype", "output_padding")}
    places |= {"source": "option --volume", "target": "option -o/--output"}
    with at_named_argument(places):
        return converted(
            lambda: convert(
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
        )


def converted(run: "Callable[[], Conversion]") -> Answer:
    """Run a conversion and report it; Ctrl-C says how to go on."""
    try:
        report = run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; run the same command again, and it goes on where it was"
        ) from None
    return Answer((report.table(),), report.as_dict())


def limit_zarr(workers: int | None) -> None:
    """Let Zarr use no more threads than there are cores, and little memory for each task.

    For this process alone, and before Zarr starts its threads: the function `convert` leaves the
    settings of a program as they are.
    """
    import zarr

    threads = min(workers or core_count(), core_count())
    zarr.config.set({"async.concurrency": 2, "threading.max_workers": threads})
