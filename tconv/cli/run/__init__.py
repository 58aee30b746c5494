"""Verb `run`: an ONNX model, as a whole, along time or over a volume, or one layer on a volume."""

from argparse import Namespace

from tconv.cli.console import Answer
from tconv.cli.run.kinds import check_kind
from tconv.cli.run.model import run_model
from tconv.cli.run.stream import run_stream
from tconv.cli.run.tiles import run_tiles
from tconv.cli.run.volume import convert_volume

__all__ = ["answer"]


def answer(options: Namespace) -> Answer:
    """Run what the options name, write the results, and report."""
    check_kind(options)
    if options.volume is not None:
        return convert_volume(options)
    if options.tile is not None:
        return run_tiles(options)
    return run_stream(options) if options.stream else run_model(options)
