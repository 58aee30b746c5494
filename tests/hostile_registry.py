"""The registry of public calls with good arguments, and small arrays for them."""

import numpy as np

__all__ = ["CALLS", "HEAVY", "SLOW", "call", "image", "setting", "w", "x", "y"]

HEAVY, SLOW = 0.2, 0.01  # how often a call is made, beside those that take less time

CALLS = {}
"""Name to (what makes a call, how often it is made, exceptions that may come from outside)."""


def call(name, often=1.0, outside=()):
    """Count a function that makes a call, a `partial` of good arguments, among `CALLS`."""

    def remember(make):
        CALLS.setdefault(name, []).append((make, often, outside))
        return make

    return remember


def x():
    return np.ones((1, 2, 4), np.float32)


def w():
    return np.ones((2, 3, 3), np.float32)


def y():
    return np.ones((1, 3, 6), np.float32)


def image():
    return np.ones((1, 1, 4, 4), np.float32)


def setting(thing, name, after):
    """What sets an attribute and does something with it then."""

    def change(value):
        setattr(thing, name, value)
        return after()

    return change
