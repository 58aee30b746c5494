"""Picture of the explainer: a small grey landscape, drawn by formulas."""

from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

__all__ = ["GREYS", "landscape", "picture_text"]

GREYS = 64
_SIZE = 48
_FIRST = 63  # "?", the first of 64 printable characters, none of which ends a script
_LONGEST_RUN = 27  # whose character is ":"


@cache
def landscape() -> NDArray[np.float64]:
    """Draw a lake before mountains as 48×48 whole numbers, from 0 (black) to 63 (white).

    Sky and water are smooth, so that a pattern which repeats with the stride stands out there; the
    boat and the trees have edges.

    >>> landscape().shape, float(landscape().min()), float(landscape().max())
    ((48, 48), 6.0, 62.0)
    """
    r, c = np.mgrid[:_SIZE, :_SIZE].astype(np.float64)
    far = 22 - np.maximum(14 - np.abs(c - 13) * 1.05, 9 - np.abs(c - 33) * 0.75)
    snow = far + 4 + np.abs((c * 0.5) % 2 - 1) * 2
    near = 27 - np.maximum(0, 8 - ((c - 46) / 5) ** 2) - np.maximum(0, 4 - ((c + 2) / 6) ** 2)
    to_sun = np.sqrt((r - 9) ** 2 + (c - 36) ** 2)

    image = 108 + 3.2 * r + 70 / (1 + (to_sun / 5) ** 2)  # the sky, lighter below
    image = np.where(to_sun < 4.4, 250.0, image)
    slope = np.where(c < np.where(c < 23, 13, 33), 158, 104) - (r - far) * 1.5
    image = np.where(r >= far, np.where((r < snow) & (far < 16), slope + 72, slope), image)
    image = np.where(r >= near, 62 + 0.6 * (c - r), image)

    shore = 28
    lake = (
        172 - 2.4 * (r - shore) + 34 / (1 + ((c - 36) / (2 + 0.25 * np.maximum(0, r - shore))) ** 2)
    )
    image = np.where(r >= shore, lake, image)
    hull = (np.abs(c - 17) <= 8 - (r - 37) * 1.4) & (r >= 37) & (r <= 39)
    mast = (np.abs(c - 17) < 1) & (r >= 22) & (r < 37)
    sail = (c > 17) & (c - 17 <= (r - 22) * 0.55) & (r >= 22) & (r <= 35)
    jib = (c < 17) & (17 - c <= (r - 25) * 0.5) & (r >= 25) & (r <= 35)
    image = np.where(sail, 242 - (c - 17) * 4, image)
    image = np.where(jib, 214 + (c - 17) * 5, image)
    image = np.where(hull | mast, 30.0, image)

    crown = np.abs(c - 42) <= 0.9 + ((r - 18) % 6) * 0.55 + (r - 18) * 0.12
    image = np.where(crown & (r >= 18) & (r < 40), 26 + 1.2 * np.abs(c - 40), image)
    image = np.where((np.abs(c - 42) < 1) & (r >= 40) & (r < 44), 24.0, image)
    meadow = 45 - np.sqrt(np.maximum(0, 1 - ((c - 46) / 20) ** 2)) * 4
    image = np.where(r >= meadow, 50 + 2 * (r - meadow), image)
    return np.floor(np.clip(image, 0, 255) / 256 * GREYS)


def picture_text(image: NDArray[np.float64]) -> str:
    """Write a picture for the page: a character for each grey, and one for how often it repeats.

    >>> picture_text(np.array([[0.0, 0.0, 0.0], [0.0, 62.0, 63.0]]))
    '?#}~'
    """
    pieces = []
    for grey, run in groupby(image.astype(int).ravel().tolist()):
        count = len(list(run))
        for start in range(0, count, _LONGEST_RUN):
            repeats = min(_LONGEST_RUN, count - start)
            pieces.append(chr(grey + _FIRST) + (chr(repeats + 31) if repeats > 1 else ""))
    return "".join(pieces)
