"""Templates of self-contained pages: HTML with gaps for styles, scripts and data."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

__all__ = ["fill_template", "page_source"]


def fill_template(package: str, name: str, parts: Mapping[str, str]) -> str:
    """Return a template, a file below a package, with each of its gaps filled once.

    Raises
    ------
    ValueError : a gap is missing from the template, or stands in it twice
    """
    gaps = re.compile("|".join(map(re.escape, parts)))
    page, count = gaps.subn(lambda gap: parts[gap[0]], page_source(package, name))
    if count != len(parts):
        raise ValueError(f"{name} must hold every one of {', '.join(parts)} once")
    return page


@cache
def page_source(package: str, name: str) -> str:
    """Read a file below a package without indentation, blank lines and whole-line comments."""
    text = files(package).joinpath(name).read_text("utf-8")
    return without_comments(text, name.rpartition(".")[2])


def without_comments(text: str, kind: str) -> str:
    r"""Remove indentation, blank lines and whole-line comments.

    In a script "js", the lines of a template literal stay as they are: one begins and ends where
    a line has an odd number of backticks. No other line can begin within a string or a pattern.

    >>> without_comments("// Twice.\n  f(`// no\\n  comment`);  // stays", "js")
    'f(`// no\\n  comment`);  // stays'
    """
    opening, closing = {"js": ("//", ""), "css": ("/*", "*/")}.get(kind, ("<!-- ", "-->"))
    kept, in_literal = [], False
    for line in text.splitlines():
        bare = line.strip()
        if not in_literal:
            if not bare or (bare.startswith(opening) and bare.endswith(closing)):
                continue
            line = line.lstrip()
        if kind == "js" and line.count("`") % 2:
            in_literal = not in_literal
        kept.append(line if in_literal else line.rstrip())
    if in_literal:
        raise ValueError("a script must have an even number of backticks")
    return "\n".join(kept)
