"""Control block of the thread pool: the places of the words that callers and workers share.

It is a row of boxes: one for the flag that a caller uses the workers, one of constants, and one for
each worker. No processor fetches two of them at once.
"""

__all__ = [
    "ACQUIRE",
    "ARGS",
    "BOX_BYTES",
    "BOX_WORDS",
    "CALLER_LOCK",
    "JOB",
    "LOCK",
    "NAME",
    "RELEASE",
    "SPINS",
]

NAME = "tconv_thread_pool"
"""The function that gives the addresses of the pool's code."""

BOX_BYTES = 128  # x86 fetches pairs of 64, and those of Apple's processors are as long
BOX_WORDS = BOX_BYTES // 8
SPINS, ACQUIRE, RELEASE, CALLER_LOCK = range(BOX_WORDS, BOX_WORDS + 4)
JOB, ARGS, LOCK = 1, 2, 3  # words of a worker's box, after its state
