"""Control block of the thread pool: the places of the words that callers and workers share.

It has a line for the flag that a caller uses the workers, one of constants, and one for each
worker: its box.
"""

__all__ = [
    "ACQUIRE",
    "ARGS",
    "CALLER_LOCK",
    "JOB",
    "LINE_BYTES",
    "LINE_WORDS",
    "LOCK",
    "NAME",
    "RELEASE",
    "SPINS",
]

NAME = "tconv_thread_pool"
"""The function that gives the addresses of the pool's code."""

LINE_BYTES = 128  # x86 fetches pairs of 64, and those of Apple's processors are as long
LINE_WORDS = LINE_BYTES // 8
SPINS, ACQUIRE, RELEASE, CALLER_LOCK = range(LINE_WORDS, LINE_WORDS + 4)
JOB, ARGS, LOCK = 1, 2, 3  # words of a box, after its state
