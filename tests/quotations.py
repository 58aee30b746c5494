"""Quotations of the documentation, by which a claim and its test stay together."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def claims(page, *words):
    """Mark a test with what a page claims, which the fixture `claim` of its file checks."""
    ids = [f"{page}: {each}" for each in words]
    return pytest.mark.parametrize("claim", [(page, words)], ids=["; ".join(ids)], indirect=True)


def text_of(page):
    """The text of a page, by its path, with one space between words."""
    return " ".join((ROOT / page).read_text("utf-8").split())


def check_quotation(page, words):
    """Fail if a page does not have the words any more that a test was written for."""
    for each in words:
        assert each in text_of(page), f"{page} does not say {each!r}: does this test still fit?"
