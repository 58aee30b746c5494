"""A lowered plan on disk is the one that lowering gives, and nothing else is believed."""

from itertools import product

import numpy as np
import pytest
from engine.values import same

from tconv.arrays.activations import as_activation
from tconv.engine import lowered_plan
from tconv.engine.choose import best_plans
from tconv.engine.layouts import layout_of
from tconv.engine.lowering import Lowering
from tconv.engine.plan.encoding import as_bytes
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry

GEOMETRIES = [
    Geometry.of((2, 6, 9, 10), (6, 8, 3, 3), stride=2, padding=1),
    Geometry.of((1, 16, 12, 12), (16, 8, 4, 4), stride=2, padding=1),
    Geometry.of((1, 8, 20), (8, 3, 8), stride=4, groups=2),
    Geometry.of((1, 4, 5, 6, 7), (4, 3, 2, 2, 2), stride=2),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path))
    return tmp_path


def plans(geometry, dtype="float32", **more):
    problem = Problem(geometry, **more)
    return [(problem, plan) for plan in best_plans(problem, dtype, target(), 2)]


def kept(problem, plan, dtype, make=None):
    layout = (problem, plan, np.dtype(dtype), target())
    make = make or (lambda: Lowering(layout_of(*layout)).lower())
    return lowered_plan.load_or_lower(lowered_plan.digest(("test", problem, plan, dtype)), make)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_it_comes_back_as_it_was_made(geometry, dtype):
    activation = as_activation(("leaky_relu", 0.1))
    for problem, plan in plans(geometry, dtype, activation=activation):
        made = kept(problem, plan, dtype)
        assert same(kept(problem, plan, dtype, make=lambda: pytest.fail("made again")), made)


def test_a_damaged_one_is_made_again(folder, monkeypatch):
    ((problem, plan), *_) = plans(GEOMETRIES[0])
    made = kept(problem, plan, "float32")
    (shelf,) = folder.rglob("*.plans")
    whole = shelf.read_bytes()
    shelf.write_bytes(whole[:-1] + b"!")
    monkeypatch.setattr("tconv.engine.compile.disk_cache._has_warned", False)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert same(kept(problem, plan, "float32"), made)
    assert shelf.read_bytes().endswith(whole)


@pytest.mark.parametrize(
    "change",
    [
        lambda lowered_plan: 5,
        lambda lowered_plan: lowered_plan[:-1],
        lambda lowered_plan: lowered_plan[::-1],
        lambda lowered_plan: (*lowered_plan[:-1], lowered_plan[-1][::-1]),
        lambda lowered_plan: (),
    ],
)
def test_what_is_whole_and_none_is_made_again_with_a_warning(folder, monkeypatch, change):
    ((problem, plan), *_) = plans(GEOMETRIES[0])
    with monkeypatch.context() as patch:
        patch.setattr(lowered_plan, "as_bytes", lambda made: as_bytes(change(tuple(made))))
        made = kept(problem, plan, "float32")
    monkeypatch.setattr("tconv.engine.compile.disk_cache._has_warned", False)
    with pytest.warns(RuntimeWarning, match="holds something else") as caught:
        assert same(kept(problem, plan, "float32"), made)
    assert len(caught) == 1
    assert same(kept(problem, plan, "float32", make=lambda: pytest.fail("made again")), made)


def test_plans_and_types_are_told_apart(monkeypatch):
    keys = set()
    monkeypatch.setattr(lowered_plan, "write_plan", lambda key, _: keys.add(key))
    found = [*product(plans(GEOMETRIES[0]), ("float32", "float64"))]
    for (problem, plan), dtype in found:
        kept(problem, plan, dtype)
    assert len(keys) == len(found)


def test_what_is_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(lowered_plan, "_MOST_BYTES", 100)
    monkeypatch.setattr(lowered_plan, "write_plan", None)
    ((problem, plan), *_) = plans(GEOMETRIES[0])
    kept(problem, plan, "float32")
