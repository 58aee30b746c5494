"""Scratch that calls borrow from each other, full of NaN: whoever reads what was left is found."""

from contextlib import contextmanager

import pytest

from tconv.engine.runtime import job


@contextmanager
def full_of_nan():
    """Within, all bits of what a call borrows are set: NaN in every type of floats."""
    borrowed = job._borrowed

    def spoiled(size):
        found = borrowed(size)
        found.memory[:] = 255
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "_borrowed", spoiled)
        yield
