"""Tiles of a network over an array on disk: `tconv run net.onnx in.zarr --tile 64`."""

from argparse import Namespace

from tconv.cli.console import Answer, at_named_argument
from tconv.cli.run.volume import converted, limit_zarr

__all__ = ["run_tiles"]


def run_tiles(options: Namespace) -> Answer:
    """Run the model over the input, and report what was computed and what was there before."""
    from tconv.volumes import run  # which needs optional libraries

    limit_zarr(options.workers)
    tile = options.tile
    names = ("tile", "memory", "workers", "scheduler", "verify", "input_name", "output_name")
    places = {name: f"option --{name.replace('_', '-')}" for name in names}
    places |= {"source": "INPUT", "target": "option -o/--output", "model": "MODEL"}
    with at_named_argument(places):
        return converted(
            lambda: run(
                options.model,
                options.inputs[0],
                options.output,
                tile=tile[0] if tile != "auto" and len(tile) == 1 else tile,
                input_name=options.input_name[0] if options.input_name else None,
                output_name=options.output_name,
                memory="2GB" if options.memory is None else options.memory,
                workers=options.workers,
                scheduler=options.scheduler,
                overwrite=options.force,
                verify=options.verify,
            )
        )
