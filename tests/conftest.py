"""Hypothesis profiles, how many kernels a process may hold, and the rule for slow tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

from slow import unknown_quick
from tconv.engine.compile import jit

# The laws draw more shapes than a program has; beyond the limit they would see the portable path.
jit._MOST_KERNELS *= 2

# The profile is named by the environment variable HYPOTHESIS_PROFILE. There is no deadline and no
# complaint about slow data: how long an example takes depends on what else the machine is doing.
_slow = [HealthCheck.too_slow]
settings.register_profile("quick", max_examples=30, deadline=None, suppress_health_check=_slow)
settings.register_profile(
    "ci",
    max_examples=250,
    deadline=None,
    suppress_health_check=_slow,
    derandomize=True,  # the same examples in every run, so a failure can be repeated
    print_blob=True,
)
settings.register_profile("thorough", max_examples=5000, deadline=None, suppress_health_check=_slow)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Refuse a slow test without a quick one for its law; with a name on the command line, all."""
    is_part = any("::" in word for word in config.args)
    if not is_part and (found := unknown_quick(items)):
        raise pytest.UsageError(f"slow, without a quicker test of the same law: {found}")
