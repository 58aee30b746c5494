"""Settings that every test shares: the hypothesis profiles."""

import os

from hypothesis import HealthCheck, settings

# The profile is named by the environment variable HYPOTHESIS_PROFILE. There is no deadline and no
# complaint about slow data: how long an example takes depends on what else the machine is doing.
_slow = [HealthCheck.too_slow]
settings.register_profile("quick", max_examples=50, deadline=None, suppress_health_check=_slow)
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
