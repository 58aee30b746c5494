"""HOW THE FIGURE BECOMES A PAGE: one file with tiles, style and script inside, that loads nothing."""

from tconv.visualise.seen import Seen

__all__ = ["gallery_of"]


def gallery_of(seen: Seen) -> str:
    """Return the page of what was seen."""
    return ""
