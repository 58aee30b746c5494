"""Verb `shape`: output sizes, other libraries' arguments, and settings for a size."""

import io
import json
import re
from textwrap import dedent

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from tconv.cli import main
from tconv.cli.options import parser_of
from tconv.cli.shape import answer
from tconv.geometry.solver import solve


def asked(words):
    return answer(parser_of("shape").parse_args(words.split()))


def piped(words, width=None):
    parts = asked(words).parts
    return "\n\n".join(part if isinstance(part, str) else part.plain(width) for part in parts)


def on_terminal(words, width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system="standard")
    for part in asked(words).parts:
        if not isinstance(part, str):
            console.print(part, crop=False)
    lines = console.file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def text(golden):
    return dedent(golden).strip("\n")


# ---- one size ------------------------------------------------------------------------------------

UNEVEN = """
64x48 → 128x96
out = (in - 1)*s + d*(k - 1) + 1 - p_begin - p_end + op

axis  with numbers                            out  taps/phase  overlap
0     (64 - 1)*2 + 1*(3 - 1) + 1 - 1 - 1 + 1  128  1–2         uneven 2×
1     (48 - 1)*2 + 1*(3 - 1) + 1 - 1 - 1 + 1   96  1–2         uneven 2×
overlap uneven 4×: away from the border 1 to 4 taps reach a cell

library            "valid"  "same"  this padding  its arguments
tconv               129x97  128x96        128x96  padding=1, output_padding=1
PyTorch             129x97       –        128x96  padding=1, output_padding=1
ONNX                129x97  128x96        128x96  pads=[1, 1, 1, 1], output_padding=[1, 1]
Keras, TensorFlow   129x97  128x96             –  –
JAX, Flax           129x97  128x96        128x96  padding=((1, 2), (1, 2))
"""


@pytest.mark.parametrize("width", [None, 200])
def test_piped_every_axis_has_its_formula(width):
    assert piped("64x48 -k 3 -s 2 -p 1 --op 1", width) == text(UNEVEN)


def test_piped_in_80_columns_the_arguments_fold():
    lines = piped("64x48 -k 3 -s 2 -p 1 --op 1", 80).splitlines()
    assert lines[:7] == text(UNEVEN).splitlines()[:7]
    assert lines[11:13] == [
        "ONNX                129x97  128x96        128x96  pads=[1, 1, 1, 1],",
        "                                                  output_padding=[1, 1]",
    ]


@pytest.mark.parametrize("width", [80, 200])
def test_on_a_terminal_the_overlap_has_a_colour(width):
    golden = """
     axis  with numbers                            out  taps/phase  overlap
    ────────────────────────────────────────────────────────────────────────
     all   (64 - 1)*2 + 1*(4 - 1) + 1 - 1 - 1 + 0  128  2           <green>even
    overlap even: away from the border 4 taps reach every cell
     library            "valid"   "same"  this padding  its arguments
    ───────────────────────────────────────────────────────────────────────────
     tconv              130x130  128x128       128x128  padding=1
     PyTorch            130x130        –       128x128  padding=1
     ONNX               130x130  128x128       128x128  pads=[1, 1, 1, 1]
     Keras, TensorFlow  130x130  128x128       128x128  padding="same"
     JAX, Flax          130x130  128x128       128x128  padding=((2, 2), (2, 2))
    """
    shown = on_terminal("64 -k 4 -s 2 -p 1", width).replace("\x1b[32m", "<green>")
    assert [line.rstrip("─") for line in shown.splitlines()] == [
        line.rstrip("─") for line in dedent(golden).strip("\n").splitlines()
    ]


@pytest.mark.parametrize(
    ("words", "first", "overlap"),
    [
        ("4 -k 3", "4x4 → 6x6", "even: away from the border 9 taps reach every cell"),
        ("4 -k 3 --rank 1", "4 → 6", "even: away from the border 3 taps reach every cell"),
        ("4 -k 2 -s 2", "4x4 → 8x8", "even: away from the border 1 tap reaches every cell"),
        ("5 -k 3 -s 5", "5x5 → 23x23", "uneven, gaps: away from the border 0 to 1 taps reach a"),
        ("8 -k 5 -s 2", "8x8 → 19x19", "uneven 2.25×: away from the border 4 to 9 taps reach a"),
        ("8x8 -k 4x3 -s 2", "8x8 → 18x17", "uneven 2×: away from the border 2 to 4 taps reach a"),
        ("8 -k 3 -s 2 -d 2", "8x8 → 19x19", "uneven, gaps: away from the border 0 to 9 taps"),
        ("4,5,6 -k 3", "4x5x6 → 6x7x8", "even: away from the border 27 taps reach every cell"),
        ("4 -k 3 -s 2x2x2", "4x4x4 → 9x9x9", "uneven 8×: away from the border 1 to 8 taps"),
        ("4 -k 3 -s 2 -p same", "4x4 → 8x8", "uneven 4×: away from the border 1 to 4 taps"),
        ("4 -k 3 -p=-1:2", "4x4 → 5x5", "even"),
        ("4 -k 3 -p 0x1:2", "4x4 → 6x3", "even"),
    ],
)
def test_sizes_and_overlap(words, first, overlap):
    shown = piped(words)
    assert shown.startswith(f"{first}\n")
    assert f"\noverlap {overlap}" in shown


def test_the_formula_has_the_numbers_of_the_law():
    for formula, axis in zip(
        asked("7x5 -k 3x4 -s 2x3 -p=-1:2x1 -d 2 --op 1").result["formula"],
        asked("7x5 -k 3x4 -s 2x3 -p=-1:2x1 -d 2 --op 1").result["axes"],
        strict=True,
    ):
        assert eval(formula) == axis["output"]


def test_json_has_the_same_numbers(capsys):
    assert main(["shape", "5", "-k", "3", "-s", "5", "--rank", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["verb"]) == (1, "shape")
    result = shown["result"]
    assert list(result) == [
        "input_size", "output_size", "axes", "formula", "even", "overlap", "conventions",
    ]  # fmt: skip
    assert result["axes"] == [
        {
            "input": 5, "kernel": 3, "output": 23, "stride": 5, "dilation": 1, "begin": 0,
            "end": 0, "extra": 0, "taps_per_phase": [0, 1], "even": False,
        }
    ]  # fmt: skip
    sizes = {row["library"]: (row["valid"], row["same"]) for row in result["conventions"]}
    assert sizes == {
        "tconv": ([23], [25]),
        "PyTorch": ([23], None),
        "ONNX": ([23], [23]),
        "Keras, TensorFlow": ([25], [25]),
        "JAX, Flax": ([25], [25]),
    }


# ---- settings for a size -------------------------------------------------------------------------


def test_candidates_come_in_the_order_of_the_solver():
    golden = """
     k  s  p  op  taps/phase  overlap       note
     2  2  0   0  1           even          no overlap (≡ 1×1 conv + pixel shuffle)
     4  2  1   0  2           even          common choice; bilinear fits
     6  2  2   0  3           even
     8  2  3   0  4           even
    10  2  4   0  5           even
    12  2  5   0  6           even
    14  2  6   0  7           even
    16  2  7   0  8           even
     1  2  0   1  0–1         uneven, gaps  needs output_padding
     3  2  1   1  1–2         uneven 4×     needs output_padding
    """
    lines = ("\n" + dedent(golden).strip("\n")).splitlines()[1:]
    assert piped("64 --to 128 --limit 10").splitlines() == lines
    assert piped("64 --to 128 --limit 10", 80) == piped("64 --to 128 --limit 10", 200)
    found = asked("64 --to 128 --limit 100").result["candidates"]
    assert [(row["kernel_size"][0], row["padding"][0]) for row in found] == [
        (row.kernel_size, row.padding) for row in solve(input_size=64, output_size=128, limit=100)
    ]


@pytest.mark.parametrize("width", [80, 200])
def test_candidates_on_a_terminal(width):
    golden = """
     k  s  p  op  taps/phase  overlap    note
    ──────────────────────────────────────────────────────────
     4  2  1   0  2           <green>even       common choice; bilinear fits
     3  2  1   1  1–2         <red>uneven 4×  needs output_padding
    """
    words = "64 --to 128 -s 2 -p 1"
    shown = on_terminal(words, width).replace("\x1b[32m", "<green>").replace("\x1b[31m", "<red>")
    assert [line.rstrip("─") for line in shown.splitlines()] == [
        line.rstrip("─") for line in dedent(golden).strip("\n").splitlines()
    ]


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("64 --to 192 -k 5", "5  3  1   0  1–2         uneven 4×  common choice; bilinear fits"),
        ("64 --to 64 -k 1 -s 1", "1  1  0   0  1           even"),
        ("64x32 --to 128x65 -k 4", "4  2  1  0x1  2           even     needs output_padding"),
        ("8x9 --to 16x27 -k 2x3 -s 2x3",
         "2x3  2x3  0   0  1           even     no overlap (≡ 1×1 conv + pixel shuffle)"),
        ("8 --to 17 -k 3 -s 2 -p 0:0", "3  2  0   0  1–2         uneven 4×"),
        ("8 --to 16 -k 3 -s 2 -p 0:1", "3  2  0:1   0  1–2         uneven 4×"),
        ("8 --to 19 -k 3 -s 2 -d 2", "3  2  0   0  0–3         uneven, gaps"),
        ("8 --to 16 -k 4 -s 2 --rank 1", "4  2  1   0  2           even     common choice;"),
        ("46x62 --to 368x489 -k 16 -s 8", "16  8  4x8  0x1  2           even     needs output"),
        ("64 --to 100 -k 3 -s 2",
         "3  2  15   1  1–2         uneven 4×  crops more than the kernel; needs output_padding"),
        ("64 --to 65 -k 3 -s 1", "3  1  0:1   0  3           even"),
        ("64 --to 5000", "79  79  28   0  1           even"),
    ],
)  # fmt: skip
def test_what_a_candidate_is_good_for(words, row):
    assert any(line.lstrip().startswith(row) for line in piped(words).splitlines()), piped(words)


@pytest.mark.parametrize(
    ("words", "sentence", "nearest"),
    [
        (
            "64 --to 131 -k 4 -s 2 -p 1",
            "This does not take 64 to 131; the nearest size that can be reached is 129.",
            [[129], [129]],
        ),
        (
            "20 --to 100 -k 3 -s 2",
            "This does not take 20 to 100; the nearest size that can be reached is 42. Negative "
            "padding adds cells that hold the bias alone: -p=-29 --op 1.",
            [[42], [42]],
        ),
        (
            "64x32 --to 128x9600",
            "No settings that are the same on every axis take 64x32 to 128x9600; with settings per "
            "axis it can be reached, for example -k 2x300 -s 2x300.",
            None,
        ),
        (
            "64x32 --to 128x96",
            "No settings that are the same on every axis take 64x32 to 128x96; with settings per "
            "axis it can be reached, for example -k 2x3 -s 2x3.",
            None,
        ),
    ],
)
def test_where_nothing_fits_the_nearest_sizes_are_told(capsys, words, sentence, nearest):
    assert main(["shape", *words.split()]) == 1
    assert capsys.readouterr() == (sentence + "\n", "")
    assert main(["shape", *words.split(), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["candidates"] == []
    assert result["nearest"] == nearest


def test_the_solver_searches_as_far_as_is_told():
    rows = solve(input_size=4, limit=100_000)
    assert max(row.kernel_size for row in rows) == max(row.stride for row in rows) == 16


_SIZES = st.integers(1, 40)
_GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "-k": st.integers(1, 20),
        "-s": st.integers(1, 20),
        "-p": st.integers(0, 6),
        "-d": st.integers(1, 3),
    },
)


@given(st.lists(st.tuples(_SIZES, st.integers(1, 300)), min_size=1, max_size=2), _GIVEN)
@example([(46, 368), (62, 489)], {"-k": 16, "-s": 8})
@example([(64, 100)], {"-k": 3, "-s": 2})
@example([(64, 65)], {"-k": 3, "-s": 1})
@example([(2, 49)], {"-p": 0})
def test_what_shape_advises_leads_to_the_wanted_size(axes, options):
    """Candidates, settings per axis and negative padding all do; where it says no, nothing does."""
    sizes, wanted = ("x".join(map(str, each)) for each in zip(*axes, strict=True))
    typed = " ".join(f"{name} {value}" for name, value in options.items())
    found = asked(f"{sizes} --to {wanted} --rank {len(axes)} {typed} --limit 5")
    target = tuple(size for _, size in axes)
    for row in found.result["candidates"]:
        for n, (size, out) in enumerate(axes):
            names = ("kernel_size", "stride", "padding", "output_padding", "dilation")
            k, s, p, op, d = (row[name][n] for name in names)
            begin, end = (p, p) if isinstance(p, int) else p
            assert (size - 1) * s + d * (k - 1) + 1 - begin - end + op == out
            assert 0 <= op < max(s, d)
    assert (found.code == 0) == bool(found.result["candidates"])
    if found.code == 0:
        return
    (sentence,) = found.parts
    advised = re.findall(r"(?:example|alone:)((?: -[-\w]+[= ][-:x\d]+)+)\.", sentence)
    for words in advised:
        free = {n: v for n, v in options.items() if f" {n}" not in words}
        rest = " ".join(f"{name} {value}" for name, value in free.items())
        if len(axes) == 1 or "example" in sentence:
            got = asked(f"{sizes} --rank {len(axes)} {rest} {words}").result["output_size"]
            assert got == target
    if not advised:  # all that is asked for is given but, perhaps, kernel or stride
        assert "-p" in options
        assert any(not _reachable(*axis, options) for axis in axes)


def _reachable(size, wanted, options):
    """Whether any kernel and stride do, tried far beyond what can matter."""
    p, d = options["-p"], options.get("-d", 1)
    kernels = [options["-k"]] if "-k" in options else range(1, wanted + 2 * p + 2)
    strides = [options["-s"]] if "-s" in options else range(1, wanted + 2 * p + 2)
    return any(
        0 <= wanted - ((size - 1) * s + d * (k - 1) + 1 - 2 * p) < max(s, d)
        for k in kernels
        for s in strides
    )


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "what", "where", "fix"),
    [
        (
            "64 -k 0", "parameter",
            "kernel_size[0]=0 must be at least 1", "option -k/--kernel", "pass a positive integer",
        ),
        (
            "0 -k 3", "parameter",
            "input_size[0]=0 must be at least 1", "IN, the input size", "pass a positive integer",
        ),
        (
            "64 -k 3 -s 0", "parameter",
            "stride[0]=0 must be at least 1", "option -s/--stride", "pass a positive integer",
        ),
        (
            "64 --to 0", "parameter",
            "output_size[0]=0 must be at least 1", "option --to", "pass a positive integer",
        ),
        (
            "64 --to 128 -d 0", "parameter",
            "dilation=0 must be at least 1", "option -d/--dilation", "pass a positive integer",
        ),
        (
            "4 -k 3 --op 1", "parameter",
            "output_padding[0]=1 must be smaller than max(stride[0]=1, dilation[0]=1)=1",
            "option --op/--output-padding",
            "pass at most 0, and lower padding for a larger output",
        ),
        (
            "4 -k 3 -p 9", "shape",
            "the output size on spatial axis 0, (4 - 1)*1 + 1*(3 - 1) + 1 - 9 - 9 + 0 = -12, "
            "must be at least 1",
            "tconv shape 4 -k 3 -p 9", "lower padding[0] to a sum of at most 5",
        ),
        (
            "4x4 -k 3 -s 2x2x2", "usage",
            "IN is for 2 axes, but -s for 3", "tconv shape, IN",
            "give one value for all axes, or 3",
        ),
        (
            "4x4 -k 3 --rank 3", "usage",
            "IN is for 2 axes, but --rank for 3", "tconv shape, IN",
            "give one value for all axes, or 3",
        ),
        (
            "64", "usage",
            "-k/--kernel is missing", "tconv shape",
            "give the kernel size, as in tconv shape 64 -k 4 -s 2, or the wanted size by --to",
        ),
        (
            "64 -k 3 --limit 3", "usage",
            "--limit needs --to", "tconv shape",
            "leave --limit out, or name the wanted size by --to",
        ),
        (
            "64 --to 128 --op 1", "usage",
            "--op does not go with --to, which finds it", "option --op/--output-padding",
            "leave --op out",
        ),
        (
            "64 --to 128 -p same", "usage",
            "-p same does not go with --to, which compares numbers", "option -p/--padding",
            "give the padding as a number, or leave it out",
        ),
        (
            "64 -k 4 -s 2 -p same --op 1", "usage",
            "--op does not go with -p same, which sets the output size itself",
            "option --op/--output-padding",
            "leave one of them out, or give the padding as a number",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_three_lines(capsys, words, code, what, where, fix):
    assert main(["shape", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error[{code}]: {what}\n  at: {where}\n  help: {fix}\n"


def test_sizes_beyond_any_machine_are_only_numbers(capsys):
    assert main(["shape", "9" * 30, "-k", "3", "-s", "9" * 30, "--rank", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["output_size"] == [
        (10**30 - 2) * (10**30 - 1) + 3
    ]
    assert main(["shape", "9" * 5000, "-k", "3"]) == 2
    assert "must be a whole number" in capsys.readouterr().err
