"""Plans that are kept on disk are those that would be chosen, and nothing else is believed."""

import marshal

import pytest

from tconv.engine import plan_cache
from tconv.engine.choose import choose_plan
from tconv.engine.compile import plan_log
from tconv.engine.plan.encoding import as_bytes, of_bytes
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry

PROBLEMS = [
    Problem(Geometry.of((1, 64, 20), (64, 16, 8), stride=4)),
    Problem(Geometry.of((2, 32, 9, 9), (32, 32, 3, 3)), "x"),
    Problem(Geometry.of((1, 1, 2), (1, 1, 2), dilation=10**6)),  # for which there is none
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def forget():
    for cached in (plan_cache.known_plan, plan_cache.known_candidates):
        cached.cache_clear()


def asked_again(problem, threads=2):
    """As another process would ask."""
    forget()
    return plan_cache.known_plan(problem, "float32", target(), threads)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_plan_comes_back_as_it_was_chosen(folder, problem, threads, monkeypatch):
    chosen = choose_plan(problem, "float32", target(), threads)
    assert asked_again(problem, threads) == chosen
    monkeypatch.setattr(plan_cache, "candidates", None)  # it is not needed any more
    found = asked_again(problem, threads)
    assert found == chosen
    assert hash(found) == hash(chosen)
    assert type(found) is type(chosen)


def test_what_a_choice_follows_from_tells_plans_apart(folder):
    for problem in PROBLEMS[:2]:
        for threads in (1, 2):
            asked_again(problem, threads)
    kept = b"".join(file.read_bytes() for file in folder.rglob("*.plans"))
    assert kept.count(plan_log._MAGIC) == 4


def test_a_damaged_plan_is_chosen_again(folder, monkeypatch):
    chosen = asked_again(PROBLEMS[0])
    (shelf,) = folder.rglob("*.plans")
    whole = shelf.read_bytes()
    shelf.write_bytes(whole[:-1] + b"!")
    monkeypatch.setattr("tconv.engine.compile.disk_cache._has_warned", False)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert asked_again(PROBLEMS[0]) == chosen
    assert shelf.read_bytes().endswith(whole)
    assert asked_again(PROBLEMS[0]) == chosen  # without a warning, which would be an error


PLAN = as_bytes(choose_plan(PROBLEMS[0], "float32", target(), 2))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        marshal.dumps(tuple(of_bytes(PLAN)), 4),
        PLAN[:-1],
        as_bytes((1, 2, 3)),
        as_bytes(of_bytes(PLAN)[:-1]),
        as_bytes((*of_bytes(PLAN)[:-1], 1)),
        as_bytes((*of_bytes(PLAN)[:11], (1, 2, 3), *of_bytes(PLAN)[12:])),
        as_bytes("plan"),
    ],
    ids=range(8),
)
def test_what_is_whole_and_no_plan_is_chosen_again_with_a_warning(folder, data, monkeypatch):
    keys = []
    monkeypatch.setattr(plan_cache, "write_plan", lambda key, _: keys.append(key))
    chosen = asked_again(PROBLEMS[0])
    monkeypatch.undo()
    monkeypatch.setenv("TCONV_CACHE", str(folder))
    monkeypatch.setattr("tconv.engine.compile.disk_cache._has_warned", False)
    plan_log.write_plan(keys[0], data)
    with pytest.warns(RuntimeWarning, match="holds something else") as caught:
        assert asked_again(PROBLEMS[0]) == chosen
    assert len(caught) == 1
    assert asked_again(PROBLEMS[0]) == chosen


def test_without_a_cache_it_is_chosen_each_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", "off")
    assert asked_again(PROBLEMS[0]) == choose_plan(PROBLEMS[0], "float32", target(), 2)
