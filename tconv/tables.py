"""Tables: columns padded by spaces, or on a terminal a table of rich."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["Column", "Table", "Tabular"]

_GAP = "  "
_SIGNS = re.compile(r"[._,-](?![0-9])")  # after which a name may be broken
_BREAKS = re.compile(r"(?<=[^\s/]/)|(?<=[._,-])(?![0-9])")
_LEAST_ROOM = 12  # of a field in a list; lines are longer rather than torn into less


class Column(NamedTuple):
    """Head of a column: right-aligned for numbers, folded for long names."""

    title: str
    right: bool = False
    folds: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under titles; ``print`` it for plain text, or give it to rich.

    ``footer`` is the text below. ``accent`` is the one column that may be coloured: green in the
    rows where ``good`` is True, red where it is False; the words there say the same. Control
    characters, which a name from a file may hold, are shown as escapes.

    >>> columns = (Column("library"), Column("size", right=True))
    >>> print(Table(columns, (("tconv", "9"), ("ONNX", ""))))
    library  size
    tconv       9
    ONNX
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: str = ""
    accent: int | None = None
    good: tuple[bool | None, ...] = ()

    def __str__(self) -> str:
        return self.plain(None)

    def plain(self, width: int | None) -> str:
        """Return the table as text without a box, in lines of at most `width` if possible.

        Columns that fold become narrower. A table that is still too wide, or taller than that, is a
        list: one line for each field, a blank line between rows. Nothing is cut off. None is the
        natural width.

        >>> columns = (Column("node", folds=True), Column("ms", right=True))
        >>> table = Table(columns, (("/up/conv", "7"), ("/out", "12.25")))
        >>> print(table.plain(12))
        node      ms
        /up/       7
        conv
        /out   12.25
        >>> print(table.plain(10))
        node  /up/conv
        ms    7
        <BLANKLINE>
        node  /out
        ms    12.25
        """
        gaps = len(_GAP) * (len(self.columns) - 1)
        if self.is_list(width, gaps):
            assert width is not None
            lines = [f"{title}{value}".rstrip() for title, value, _ in self.fields(width)]
            return "\n".join([*lines, *([""] if self.footer else []), *self.notes(width)])
        widths, rows = self.folded(width, gaps)
        lines = []
        for row in rows:
            for parts in zip_longest(*row, fillvalue=""):
                cells = zip(parts, self.columns, widths, strict=True)
                padded = [p.rjust(w) if column.right else p.ljust(w) for p, column, w in cells]
                lines.append(_GAP.join(padded).rstrip())
        return "\n".join([*lines, *self.notes(width)])

    def is_list(self, width: int | None, gaps: int) -> bool:
        """Whether rows are shown as lists of fields: the columns do not fit, or fold much.

        >>> Table((Column("k"), Column("note")), (("4", "even"),)).is_list(6, 2)
        True
        """
        if width is None or not self.rows:
            return False
        widths, (_, *rows) = self.folded(width, gaps)
        if sum(widths) + gaps > width:
            return True
        height = sum(max(map(len, row)) for row in rows)
        return height > len(self.fields(width))

    def fields(self, width: int) -> list[tuple[str, str, str]]:
        """Return the lines of a list: title, value, and the colour of the value.

        Empty fields are left out. Values are broken after blanks; those of columns that fold, also
        within words.

        >>> Table((Column("k"), Column("note")), (("4", "even"),)).fields(20)
        [('k     ', '4', ''), ('note  ', 'even', '')]
        """
        titles = [_printable(column.title) for column in self.columns]
        margin = max(map(len, titles), default=0) + len(_GAP)
        room = max(width - margin, _LEAST_ROOM)
        found: list[tuple[str, str, str]] = []
        for row, good in zip_longest(self.rows, self.good[: len(self.rows)]):
            if found:
                found.append(("", "", ""))
            for n, (title, column, cell) in enumerate(zip(titles, self.columns, row, strict=True)):
                text, colour = _printable(cell), self._colour(good) if n == self.accent else ""
                lines = _fold(text, room, within_words=column.folds)
                indent = " " * margin if title else ""  # without a title it heads the fields
                heads = [title.ljust(len(indent)), *[indent] * (len(lines) - 1)]
                if text.strip():
                    found += [(*both, colour) for both in zip(heads, lines, strict=True)]
        return found

    def __rich__(self) -> "RenderableType":
        return _OnTerminal(self)

    @staticmethod
    def _colour(good: bool | None) -> str:
        return "" if good is None else "green" if good else "red"

    def folded(self, width: int | None, gaps: int) -> tuple[list[int], list[list[list[str]]]]:
        """Return the width of each column and, of titles and rows, the lines of each cell.

        `gaps` counts the blanks between and around the columns; they are part of `width`. No word
        is torn: rather the columns are wider than that.

        >>> Table((Column("node", folds=True),), (("/decoder/up",),)).folded(8, 0)
        ([9], [[['node']], [['/decoder/', 'up']]])
        """
        titles = tuple(column.title for column in self.columns)
        rows = [[_printable(cell) for cell in row] for row in (titles, *self.rows)]
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        folding = [n for n, column in enumerate(self.columns) if column.folds]
        excess = 0 if width is None else sum(widths) + gaps - width
        least = {n: max(_longest_piece(row[n]) for row in rows) for n in folding}
        while excess > 0 and (wide := [n for n in folding if widths[n] > least[n]]):
            widths[max(wide, key=lambda n: widths[n])] -= 1
            excess -= 1
        return widths, [[_fold(c, w) for c, w in zip(row, widths, strict=True)] for row in rows]

    def notes(self, width: int | None) -> list[str]:
        """Return the lines of the footer.

        >>> Table((), (), "3 nodes in 7 ms").notes(10)
        ['3 nodes in', '7 ms']
        """
        lines = [_printable(line) for line in self.footer.splitlines()]
        if width is None:
            return lines
        return [part for line in lines for part in _fold(line, width, within_words=False)]


class Tabular:
    """A result that is printed as its table: plain text, or on a terminal by rich."""

    def table(self) -> Table:
        """Return the table."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.table())

    def __rich__(self) -> "RenderableType":
        return self.table().__rich__()


@dataclass(frozen=True)
class _OnTerminal:
    """A table for rich, which gives the width of the terminal only while printing."""

    table: Table

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> Iterator["RenderableType"]:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        columns = self.table.columns
        gaps = 2 * len(columns)  # one blank at either end, two between columns
        if self.table.is_list(options.max_width, gaps):
            for head, value, colour in self.table.fields(options.max_width):
                yield Text.assemble(
                    (head, "bold"), (value, colour), no_wrap=True, overflow="ignore"
                )
            yield from [Text("")] if self.table.footer else []
            yield from map(Text, self.table.notes(options.max_width))
            return
        widths, (titles, *rows) = self.table.folded(options.max_width, gaps)
        # A fixed width keeps rich from truncating cells on a narrow terminal.
        shown = RichTable(
            box=SIMPLE_HEAD,
            show_edge=False,
            collapse_padding=True,
            header_style="bold",
            width=sum(widths) + gaps,
        )
        for column, title, width in zip(columns, titles, widths, strict=True):
            justify: Literal["right", "left"] = "right" if column.right else "left"
            shown.add_column(Text("\n".join(title)), justify=justify, no_wrap=True, width=width)
        for row, good in zip_longest(rows, self.table.good[: len(rows)]):
            colour = self.table._colour(good)
            styles = (colour if at == self.table.accent else "" for at in range(len(columns)))
            shown.add_row(*(Text("\n".join(c), s) for c, s in zip(row, styles, strict=True)))
        yield shown
        yield from map(Text, self.table.notes(options.max_width))


def _printable(text: str) -> str:
    """Replace characters that control a terminal by their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _longest_piece(text: str) -> int:
    """Length of the longest part of a text that `_fold` need not tear."""
    return max(map(len, _BREAKS.sub(" ", text).split()), default=0)


def _fold(text: str, width: int, *, within_words: bool = True) -> list[str]:
    """Break text into lines: after a blank, else after a sign in a name, else anywhere.

    A point or comma within a number is no such sign. Where words stay whole, lines may be longer.
    """
    lines = []
    while len(text) > width:
        blank = text.rfind(" ", 0, width + 1)
        cuts = [blank, text.rfind("/", 0, width)]
        cuts.append(max((sign.start() for sign in _SIGNS.finditer(text, 0, width)), default=-1))
        likely = (at + 1 for at in cuts if at > width // 3)
        cut = next(likely, max(cuts) + 1 if max(cuts) > 0 else width)
        if not within_words:
            cut = (blank if blank > 0 else text.find(" ")) + 1
        if not cut:
            break
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, text]
