"""Fixtures: Dynamo without memory of other tests, and programs wherever there can be any."""

import pytest
import torch

from tconv.torch.compiling import compiled_graph, regions


@pytest.fixture(autouse=True)
def _new_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def forced(monkeypatch):
    """Take a program for each region, whatever is predicted."""
    monkeypatch.setattr(
        regions.Forecast, "is_worth", property(lambda each: each.tconv_us is not None)
    )
    monkeypatch.setattr(
        compiled_graph.Outlook,
        "is_worth",
        property(lambda each: any(region.is_worth for region in each.forecasts)),
    )
