"""Pages that speak of PyLops: their code runs, and what it returns fits the samples."""

import re
from pathlib import Path

import numpy as np
import pylops

from tconv.scipy import ConvOperator

DOCS = Path(__file__).parents[3] / "docs"


def block_with(page, words):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    (found,) = (each for each in blocks if words in each and ">>>" not in each)
    return found


def test_the_recipe_recovers_from_samples():
    blur = ConvOperator(np.ones((1, 1, 3)) / 3, 60, padding=1, padding_mode="circular")
    names = {"blur": blur, "steps": np.repeat([0.0, 2.0, 1.0], 20)}
    exec(block_with("recipes.md", "import pylops"), names)
    assert np.shape(names["smooth"]) == (60,)
    assert np.abs(blur @ names["smooth"] - blur @ names["steps"]).max() < 0.1


def test_an_operator_stands_in_a_stack():
    op = ConvOperator(np.ones((1, 1, 3, 3)), 8, padding=1)
    names = {"op": op}
    exec(block_with("operators.md", "import pylops"), names)
    assert names["stacked"].shape == (64 + 3 * 64, 64)
    assert pylops.utils.dottest(names["stacked"])
