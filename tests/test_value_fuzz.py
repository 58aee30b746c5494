"""Every public form of a call gives the numbers of a definition of its own, and stays in bounds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_calls import FORMS, calls, check

import tconv
from strategies import draws

ROOT = Path(__file__).parents[1]
GUARDED = Path(__file__).with_name("guarded_calls.py")


@draws(0.5)
@given(st.integers(0, 2**32 - 1))
def test_every_form_of_a_call_gives_the_numbers_of_the_definition(seed):
    """Eight calls of a geometry: 200 under "quick", 1,000 under "ci", 20,000 under "thorough"."""
    for call, form, rng in calls(seed):
        check(call, form, rng)


def test_all_forms_types_and_layouts_are_drawn():
    drawn = [(call, form) for seed in range(400) for call, form, _ in calls(seed)]
    assert {form for _, form in drawn} == set(FORMS)
    assert len({call.dtype for call, _ in drawn}) == 13
    assert len({call.weight_format for call, _ in drawn}) == 5
    assert {call.mode for call, _ in drawn} == {"zeros", "circular", "reflect", "replicate"}
    assert {call.rank for call, _ in drawn} == {1, 2, 3, 4}
    for value in ("padding", "last", "flip", "batch", "dtype"):
        assert len({getattr(call, value) for call, _ in drawn}) > 1


@pytest.mark.parametrize("name", ["conv_transpose", "conv", "conv_weight_gradient"])
def test_a_wrong_number_is_found(name, monkeypatch):
    right, form = getattr(tconv, name), {"conv_transpose": "y", "conv": "x"}.get(name, "w")

    def wrong(*operands, **keywords):
        found = right(*operands, **keywords)
        found[(-1,) * found.ndim] += 1
        return found

    monkeypatch.setattr(tconv, name, wrong)
    found = 0
    for seed in range(20):
        call, _, rng = next(calls(seed))
        if call.batch == 0:
            continue
        with pytest.raises(AssertionError):
            check(call, form, rng)
        found += 1
    assert found > 5


# ---- between guard pages -------------------------------------------------------------------------


def run(*words):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", str(GUARDED), *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_no_call_reads_or_writes_beside_its_operands():
    """In a process of its own: four calls of a geometry, 120, 1,000 or 20,000 by the profile."""
    count = settings().max_examples
    done = run("0", str(count))
    assert done.returncode == 0, (done.stdout.splitlines()[-1:], done.stderr)
    assert done.stdout.splitlines()[-1] == f"{2 * count} calls"


@pytest.mark.parametrize("step", ["-1", "1"])
def test_a_stray_access_ends_the_process(step):
    assert run("stray", step).returncode == -signal.SIGSEGV
