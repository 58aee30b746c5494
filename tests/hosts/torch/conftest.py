"""Modules that always choose tconv, so that small sizes try it; unless a test has `predicted`."""

import pytest

from tconv.torch.module_weights import choices


@pytest.fixture(autouse=True)
def _always(request, monkeypatch):
    if "predicted" not in request.fixturenames:
        monkeypatch.setattr(choices, "is_worth", lambda *_: True)


@pytest.fixture
def predicted():
    """Let modules choose by prediction."""
