"""Scratch memory of calls, full of NaN: a call that reads what another left behind shows it."""

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
