"""Add the explainer's page to the documentation, made by the library as the site is built."""

from typing import Any

from mkdocs.structure.files import File

import tconv


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Put the page beside the others, so that links to it are checked like links to them."""
    files.append(File.generated(config, "explainer.html", content=tconv.explain().html()))
    return files
