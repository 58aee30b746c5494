"""Turn the docstrings of tconv into numpydoc's full form, which the reference is built from.

In the source, examples follow the last section without a heading of their own, and an error and
its reason share a line. The parser of docstrings wants "Examples" above the former and the latter
on two lines. It does not know "References", which therefore goes below the examples.
"""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(\w+)\n-+$", re.MULTILINE)


class Numpydoc(griffe.Extension):
    """Rewrite every docstring as it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = numpydoc(obj.docstring.value)


def numpydoc(text: str) -> str:
    if "Examples\n--------" not in text:
        text = re.sub(r"(\A|\n\n)(?=>>> )", r"\1Examples\n--------\n", text, count=1)
    summary, *sections = _SECTION.split(text)
    bodies = dict(zip(sections[::2], sections[1::2], strict=True))
    if "Raises" in bodies:
        bodies["Raises"] = re.sub(
            r"^(\w.*?) : (.*)$", r"\1\n    \2", bodies["Raises"], flags=re.MULTILINE
        )
    if "References" in bodies:  # as the last paragraph of the examples, which may hold prose
        references = f"\n\n**References:**{bodies.pop('References').rstrip()}\n"
        bodies["Examples"] = bodies.get("Examples", "") + references
    return summary + "".join(f"{name}\n{'-' * len(name)}{body}" for name, body in bodies.items())
