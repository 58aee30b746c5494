"""Drivers that are compiled twice: the same bits from a draft, and better code afterwards."""

from importlib import import_module

import numpy as np
import pytest

from tconv.engine.executor import Ready
from tconv.engine.known import known_plan
from tconv.engine.problem import Problem
from tconv.engine.target import read_target, target
from tconv.geometry import Geometry

drafts = import_module("tconv.engine.drafts")
executor = import_module("tconv.engine.executor")
CPU = target() if target().uses_engine else read_target({})


@pytest.fixture
def unknown(monkeypatch, tmp_path):
    """Drivers that neither this process nor the disk has; nothing happens by itself."""
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(executor, "VERSION", f"test {tmp_path}")
    monkeypatch.setattr(drafts, "_drafts", {})
    monkeypatch.setattr(drafts, "_start", lambda: None)


def computed(ready, rng):
    geometry = ready.problem.geometry
    x = rng.standard_normal(geometry.x_shape).astype(np.float32)
    share = (geometry.groups, -1, *geometry.weight_shape[1:])
    weight = rng.standard_normal(geometry.weight_shape).astype(np.float32).reshape(share)
    y = np.empty(geometry.y_shape, np.float32)
    ready(x, ready.pack(weight), ready.pack_bias(None), y)
    return y


@pytest.mark.parametrize("size", [4, 40])
@pytest.mark.parametrize("channels", [3, 64])
def test_drafts_give_the_same_bits_and_give_way(unknown, size, channels):
    geometry = Geometry.of((1, channels, size, size), (channels, 8, 4, 4), stride=2, padding=1)
    plan = known_plan(Problem(geometry), "float32", CPU, 1)
    ready = Ready(Problem(geometry), "float32", CPU, plan)
    assert len(drafts._drafts) == 2
    before = ready._job.function, ready._packing.function
    of_drafts = computed(ready, np.random.default_rng(0))
    drafts._finish()
    assert not drafts._drafts
    assert all(
        a != b for a, b in zip(before, (ready._job.function, ready._packing.function), strict=True)
    )
    assert np.array_equal(computed(ready, np.random.default_rng(0)), of_drafts)


def test_what_is_known_needs_no_draft(unknown):
    geometry = Geometry.of((1, 3, 4, 4), (3, 8, 4, 4), stride=2)
    plan = known_plan(Problem(geometry), "float32", CPU, 1)
    Ready(Problem(geometry), "float32", CPU, plan)
    drafts._finish()
    Ready(Problem(geometry), "float32", CPU, plan)
    assert not drafts._drafts
