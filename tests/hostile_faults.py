"""Calls that go wrong, by which the test of hostile calls is tested itself."""

import os
from functools import partial

from hostile_calls import CALLS, call


def divides(value):
    return 1 / 0


def dies(value):
    os._exit(7)


def register():
    """Put these in the place of all other calls."""
    CALLS.clear()
    call("faults.foreign")(lambda folder: partial(divides, 1))
    call("faults.fatal")(lambda folder: partial(dies, 1))
