"""A table has the same content as text and on a terminal, and nothing is cut off."""

import io
import subprocess
import sys
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tconv.tables import Column, Table

COLUMNS = (
    Column("layer", folds=True),
    Column("x"),
    Column("ms", right=True),
    Column("computed by"),
)
NODES = Table(
    COLUMNS,
    (
        ("/decoder/up_blocks.0/upsamplers.0/ConvTranspose", "1×256×64×64", "12.3", "tconv"),
        ("out", "", "–", "onnxruntime"),
    ),
    "1 of 2 ConvTranspose computed by tconv · whole model 40.1 ms\nmedian of 3 runs",
    accent=3,
    good=(True, False),
)


def on_terminal(table, width, **options):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, color_system="standard", **options
    )
    console.print(table, crop=False)
    return console.file.getvalue()


def text(golden):
    return dedent(golden).strip("\n")


def test_as_text_it_is_as_wide_as_it_is():
    golden = """
    layer                                            x              ms  computed by
    /decoder/up_blocks.0/upsamplers.0/ConvTranspose  1×256×64×64  12.3  tconv
    out                                                              –  onnxruntime
    1 of 2 ConvTranspose computed by tconv · whole model 40.1 ms
    median of 3 runs
    """
    assert str(NODES) == NODES.plain(None) == NODES.plain(200) == text(golden)


def test_names_are_folded_where_words_end_and_numbers_never():
    golden = """
    layer                   x              ms  computed by
    /decoder/up_blocks.0/   1×256×64×64  12.3  tconv
    upsamplers.0/
    ConvTranspose
    out                                     –  onnxruntime
    1 of 2 ConvTranspose computed by tconv · whole model
    40.1 ms
    median of 3 runs
    """
    assert NODES.plain(54) == text(golden)


def test_a_table_that_is_too_wide_is_a_list_of_fields():
    golden = """
    layer        /decoder/up_blocks.0/
                 upsamplers.0/
                 ConvTranspose
    x            1×256×64×64
    ms           12.3
    computed by  tconv

    layer        out
    ms           –
    computed by  onnxruntime

    1 of 2 ConvTranspose computed by
    tconv · whole model 40.1 ms
    median of 3 runs
    """
    assert NODES.plain(36) == text(golden)
    shown = on_terminal(NODES, 36, no_color=True).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert [line.rstrip() for line in shown.splitlines()] == text(golden).splitlines()
    coloured = on_terminal(NODES, 36)
    assert "\x1b[32mtconv\x1b[0m" in coloured
    assert "\x1b[31monnxruntime\x1b[0m" in coloured


def test_a_field_without_a_title_heads_the_others():
    columns = (Column(""), Column("array"), Column("shape"))
    table = Table(columns, (("from", "a.npy", "1×4×96×96"), ("to", "b.zarr", "1×4×192×192")))
    assert table.plain(20) == text("""
    from
    array  a.npy
    shape  1×4×96×96

    to
    array  b.zarr
    shape  1×4×192×192
    """)


def test_a_table_taller_than_the_list_is_a_list():
    columns = (Column("axis"), Column("sum", folds=True), Column("out"))
    table = Table(columns, (("all", " + ".join("1" * 10), "9"),))
    shown = table.plain(16)
    assert shown.startswith("axis  all\nsum   1 + 1 + 1 +\n      1 + 1 + 1 +\n")
    assert shown.endswith("\nout   9")
    assert table.plain(40).startswith("axis  sum")


def test_on_a_terminal_there_is_a_rule_and_one_colour():
    golden = """
     layer                  x              ms  computed by 
    ───────────────────────────────────────────────────────
     /decoder/up_blocks.0/  1×256×64×64  12.3  tconv       
     upsamplers.0/                                         
     ConvTranspose                                         
     out                                    –  onnxruntime 
    1 of 2 ConvTranspose computed by tconv · whole model
    40.1 ms
    median of 3 runs
    """  # noqa: W291 (rich fills its cells)
    # Bold titles and coloured verdicts aside, this is what is seen.
    plain = on_terminal(NODES, 55, no_color=True).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert plain.rstrip("\n") == text(golden)
    shown = on_terminal(NODES, 200)
    assert "\x1b[32mtconv      \x1b[0m" in shown
    assert "\x1b[31monnxruntime\x1b[0m" in shown
    assert shown.count("\x1b[3") == 2


def test_a_terminal_that_is_too_narrow_cuts_nothing_off():
    shown = on_terminal(NODES, 20)
    for part in ("1×256×64×64", "12.3", "onnxruntime", "/decoder"):
        assert part in shown


def test_what_an_object_makes_of_itself_is_shown():
    class Report:
        def __rich__(self):
            return NODES.__rich__()

    assert on_terminal(Report(), 80) == on_terminal(NODES, 80)


def test_a_name_can_neither_colour_nor_move_the_cursor():
    table = Table((Column("layer", folds=True),), (("\x1b[31m[red]x\n\u202e",),), "a\tb")
    assert str(table).splitlines() == ["layer", "\\x1b[31m[red]x\\n\\u202e", "a\\tb"]
    assert "\\x1b[31m[red]x\\n\\u202e" in on_terminal(table, 80)


def test_without_rows_the_titles_remain():
    assert str(Table(COLUMNS, ())) == "layer  x  ms  computed by"
    assert "computed by" in on_terminal(Table(COLUMNS, ()), 80)


cells = st.text(st.sampled_from("ab/._ –×"), max_size=40)


@given(st.lists(st.tuples(cells, cells, cells), max_size=4), st.integers(1, 120))
def test_folding_keeps_every_character(rows, width):
    columns = (Column("name", folds=True), Column("value", right=True), Column("why", folds=True))
    table = Table(columns, tuple(rows))
    shown = "".join(table.plain(width).split())
    if table.is_list(width, 4):  # titles stand before each field
        for title in ("name", "value", "why"):
            shown = shown.replace(title, "")
        titles = ()
    else:
        titles = ("name", "value", "why")
    kept = "".join((*titles, *(cell for row in rows for cell in row)))
    assert sorted(shown) == sorted("".join(kept.split()))
    assert all(line == line.rstrip() for line in table.plain(width).splitlines())


NUMBERS = st.sampled_from(["0.0011 of 2.57e+03", "1×256×64×64", "12.3", "–", "1,234.5"])
NAMES = st.sampled_from(["/decoder/up_blocks.0/upsamplers.0/ConvTranspose", "out", "v1.0.12/3.5-x"])


@given(st.lists(st.tuples(NAMES, NUMBERS, NUMBERS), min_size=1, max_size=4), st.integers(40, 200))
def test_from_40_columns_every_line_fits_and_no_number_is_broken(rows, width):
    columns = (Column("layer", folds=True), Column("difference", right=True), Column("ms"))
    table = Table(columns, tuple(rows), "whole model 40.1 ms · median of 3 runs")
    for shown in (table.plain(width), on_terminal(table, width, no_color=True)):
        plain = shown.replace("\x1b[1m", "").replace("\x1b[0m", "")
        assert max(map(len, plain.splitlines())) <= width
        words = plain.split()
        for row in rows:
            assert all(word in words for cell in row[1:] for word in cell.split())


@pytest.mark.parametrize("call", ["str(table)", "table.plain(40)"])
def test_text_needs_no_other_library(call):
    code = (
        "import sys; before = set(sys.modules)\n"
        "from tconv.tables import Column, Table\n"
        "table = Table((Column('a', folds=True),), (('b',),))\n"
        f"{call}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - set(sys.stdlib_module_names) == {"tconv"}
