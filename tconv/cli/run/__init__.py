"""Verb `run`: an ONNX model, as a whole or along time, or one layer on a volume."""

from argparse import Namespace

from tconv.cli.console import Answer
from tconv.cli.run.kinds import check_kind
from tconv.cli.run.model import run_model
from tconv.cli.run.stream import run_stream
from tconv.cli.run.volume import convert_volume

__all__ = ["answer"]


def answer(options: Namespace) -> Answer:
    """Run what the options name, write the results, and report."""
    check_kind(options)
    if options.volume is not None:
        return convert_volume(options)
    return run_stream(options) if options.stream else run_model(options)
