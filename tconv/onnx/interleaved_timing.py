"""Interleaved timings of two contenders, and which of them is faster.

A loaded machine slows both, but not every run equally: a thread that waits for another to be
scheduled makes a fast node look slow. In the fastest run of a node no thread waited. A contender
counts as faster only if it is faster in every round.
"""

from collections.abc import Callable, Sequence
from statistics import median

__all__ = ["Rounds"]

_LEAST_APART = 0.03  # of the time; a smaller difference counts as equal


class Rounds:
    """Milliseconds of each run, round by round.

    >>> ours, theirs = Rounds([[1.0, 9.0], [1.1]]), Rounds([[2.0], [1.0, 3.0]])
    >>> ours.fastest, theirs.median
    (1.0, 2.0)
    >>> ours.faster_than(theirs, min) is None  # the two rounds disagree
    True
    """

    def __init__(self, rounds: Sequence[Sequence[float]]) -> None:
        self.rounds = [list(each) for each in rounds if len(each)]

    def __len__(self) -> int:
        return sum(map(len, self.rounds))

    @property
    def fastest(self) -> float | None:
        """The fastest run of all; None without runs."""
        return min(map(min, self.rounds), default=None)

    @property
    def median(self) -> float | None:
        """The median of the rounds' medians; None without runs."""
        return median(map(median, self.rounds)) if self.rounds else None

    def faster_than(
        self, others: "Rounds", of_round: Callable[[Sequence[float]], float]
    ) -> bool | None:
        """Whether these runs are faster than the others; None if the rounds disagree.

        `of_round` is min to compare the fastest runs, median to compare the medians.

        >>> Rounds([[1.0], [1.1]]).faster_than(Rounds([[2.0], [1.2]]), median)
        True
        >>> Rounds([[1.0], [1.0]]).faster_than(Rounds([[1.01], [1.02]]), min) is None  # too close
        True
        """
        pairs = [
            (of_round(a), of_round(b)) for a, b in zip(self.rounds, others.rounds, strict=False)
        ]
        if pairs and all(a < b * (1 - _LEAST_APART) for a, b in pairs):
            return True
        if pairs and all(b < a * (1 - _LEAST_APART) for a, b in pairs):
            return False
        return None
