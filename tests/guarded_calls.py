"""Make random calls on operands that begin and end where memory does; a stray access ends this.

python tests/guarded_calls.py FIRST COUNT

The seed of each call is printed before it is made, so the last one printed is that of a crash.
"""

import sys
from pathlib import Path

import numpy as np
from random_calls import calls, check

sys.path.append(str(Path(__file__).with_name("engine")))

from guarded import guarded


def bounded(rng):
    """What allocates bytes between two pages that nobody may touch."""

    def allocate(size):
        return (
            guarded(np.zeros(size, np.uint8), rng.random() < 0.7) if size else np.empty(0, np.uint8)
        )

    return allocate


def main(first, count):
    made = 0
    for seed in range(first, first + count):
        print(seed, flush=True)
        for call, form, rng in calls(seed, count=2):
            check(call, form, rng, bounded(rng))
            made += 1
    print(made, "calls")


def stray(step):
    """Read a byte before or after such memory."""
    memory = guarded(np.zeros(1, np.uint8), step > 0)
    np.lib.stride_tricks.as_strided(memory, (2,), (step,)).sum()


if __name__ == "__main__":
    if sys.argv[1] == "stray":
        stray(int(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
