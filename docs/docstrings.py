"""Turn the docstrings of tconv into Markdown for the reference.

They are written to be read as they stand: numpydoc's sections, each entry in running text, examples
last and without a heading. The parser of docstrings would cut an entry in two after its first line.
"""

import re
from collections.abc import Iterator
from typing import Any

import griffe

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
_CODE = re.compile(r"(``?)(.+?)\1", re.DOTALL)


class Markdown(griffe.Extension):
    """Rewrite every docstring as it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        # It only takes keywords that do not exist, for an error that says which may be meant.
        if "unknown" in func.parameters:
            del func.parameters["unknown"]
        for parameter in list(func.parameters):
            annotation = parameter.annotation
            if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Unpack":
                typed_dict = func.modules_collection[annotation.slice.canonical_path]
                if keywords := list(_keywords(typed_dict)):
                    del func.parameters[parameter.name]
                    for each in keywords:
                        func.parameters.add(each)


def _keywords(typed_dict: griffe.Class) -> Iterator[griffe.Parameter]:
    """One parameter for each entry ``Annotated[type, default]``, as `tconv.signatures` has them.

    griffe's own extension shows no defaults, and leaves out what a TypedDict inherits.
    """
    for entry in typed_dict.all_members.values():
        if str(entry.annotation).startswith("Annotated["):
            annotation, default = entry.annotation.slice.elements
            if isinstance(default, griffe.Expr):  # a string, taken for an annotation in quotes
                default = repr(str(default))
            kind = griffe.ParameterKind.keyword_only
            yield griffe.Parameter(entry.name, annotation=annotation, default=default, kind=kind)


def markdown(text: str) -> str:
    prose, *sections = _SECTION.split(text)
    parts = [_paragraphs(prose)]
    for heading, body in zip(sections[::2], sections[1::2], strict=True):
        entries, _, rest = body.strip().partition("\n\n")
        entries = _prose(entries) if heading == "References" else _entries(entries)
        parts.append(f"**{heading}**\n\n{entries}\n\n{_paragraphs(rest)}")
    return "\n\n".join(parts)


def _entries(text: str) -> str:
    """One list item for each line that is not indented, with the indented lines that follow it."""
    items = []
    for entry in re.split(r"\n(?! )", text):
        name, colon, what = re.sub(r"\n\s+", " ", entry).partition(" : ")
        items.append(f"- `{name}`: {_prose(what)}" if colon else f"- {_prose(name)}")
    return "\n".join(items)


def _paragraphs(text: str) -> str:
    return "\n\n".join(
        f"```pycon\n{paragraph}\n```" if paragraph.startswith(">>> ") else _prose(paragraph)
        for paragraph in text.strip().split("\n\n")
    )


def _prose(text: str) -> str:
    """Escape the stars of formulas, which are no emphasis, and write all code in single ticks."""
    parts = _CODE.split(text)
    parts[::3] = [part.replace("*", r"\*") for part in parts[::3]]
    parts[1::3] = [""] * len(parts[1::3])
    parts[2::3] = [f"`{code}`" for code in parts[2::3]]
    return "".join(parts)
