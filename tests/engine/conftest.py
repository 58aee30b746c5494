"""Calls borrow scratch from each other: here everything that was left in it is NaN."""

import pytest

from tconv.engine.runtime import job as entering


@pytest.fixture(scope="package", autouse=True)
def _scratch_is_full_of_nan():
    borrowed = entering._borrowed

    def spoiled(size):
        found = borrowed(size)
        found.memory[:] = 255  # all bits set: NaN in every type of floats
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entering, "_borrowed", spoiled)
        yield
