"""Add the explainer's page to the documentation, made by the library as the site is built.

Markdown is read in a clone as well, where that page does not exist. So it has a picture, and links
to "Open the page" with the state in their titles; here they become a frame, and links to the page.
"""

import re
from typing import Any

from mkdocs.structure.files import File

import tconv


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Put the page beside the others, so that links to it are checked like links to them."""
    page = tconv.explain().html().replace(_PLACE, _LINKS)
    files.append(File.generated(config, "explainer.html", content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links lead to the page in their state, and put the page where its picture stands."""
    markdown = markdown.replace(_PICTURE, _FRAME)
    return _LINK.sub(lambda found: f"](explainer.html{found[1] or ''})", markdown)


_LINK = re.compile(r"\]\((?:transposed_convolution\.md)?#open-the-page(?: \"(#[^\"]*)\")?\)")
_PICTURE = (
    "[![Transposed convolution, cell by cell](stamp.svg)](transposed_convolution.md#open-the-page)"
)
_FRAME = (
    '<iframe class="explainer" src="explainer.html" title="Transposed convolution, cell by cell">'
    "</iframe>"
)
_PLACE = '<span id="links"></span>'
_LINKS = (
    '<span id="links"><a href="transposed_convolution.html" target="_top">from zero</a> · '
    '<a href="index.html" target="_top">tconv</a></span>'
)
