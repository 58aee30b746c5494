"""Command line: streams, colours, JSON, exit codes, and errors in three lines."""

import ast
import io
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tconv
from tconv import errors
from tconv.cli import main
from tconv.cli.console import Answer, at, in_typed_words, place_of, print_answer
from tconv.cli.options import VERBS, parser_of
from tconv.tables import Column, Table

PACKAGE = Path(tconv.__file__).parent
TABLE = Table((Column("k", right=True), Column("note")), (("4", "1–2 × even"),))
ANSWER = Answer(("first", TABLE), {"numbers": (1, 2)}, 0)
HEAVY = {"numpy", "onnx", "onnxruntime", "rich", "PIL"}


def fails(monkeypatch, error, verb="info"):
    """Let a verb raise an error."""

    def answer(options):
        raise error

    monkeypatch.setitem(sys.modules, f"tconv.cli.{verb}", SimpleNamespace(answer=answer))


# ---- help, versions, what is loaded --------------------------------------------------------------

WORDS_WITHOUT_WORK = [
    (["--help"], 0),
    (["--version"], 0),
    (["help"], 0),
    (["help", "run"], 0),
    (["help", "rnu"], 2),
    ([], 2),
    (["shpe"], 2),
    (["run", "--no-such-option"], 2),
    (["shape", "64", "-k", "a"], 2),
    *([verb, "--help"] for verb in VERBS),
]


@pytest.mark.parametrize(
    ("words", "code"), [w if isinstance(w, tuple) else (w, 0) for w in WORDS_WITHOUT_WORK]
)
def test_help_and_usage_errors_load_the_standard_library_only(command, words, code):
    start = (
        "import sys; before = set(sys.modules)\n"
        "from tconv.cli import main; code = main(sys.argv[1:])\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print('loaded', *loaded); sys.exit(code)"
    )
    done = command(*words, code=start)
    assert done.returncode == code, done.stderr
    loaded = set(re.findall(r"^loaded (.*)$", done.stdout, re.MULTILINE)[0].split())
    assert loaded - set(sys.stdlib_module_names) == {"tconv"}


def test_the_version_is_that_of_the_package(command):
    assert command("--version").stdout == f"tconv {tconv.__version__}\n"


def test_help_goes_to_standard_output_and_without_a_verb_to_standard_error(command):
    asked, lost = command("--help"), command()
    assert asked.stdout == lost.stderr
    assert asked.stderr == lost.stdout == ""
    lines = asked.stdout.splitlines()
    for verb, (summary, *_) in VERBS.items():
        assert summary in " ".join(asked.stdout.split())
        assert any(line.startswith(f"  {verb} ") for line in lines)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_its_terminal(terminal, columns):
    for words in ("--help", "help", "help help"):
        shown = terminal(*words.split(), columns=columns)
        assert max(map(len, shown.splitlines())) <= columns
    assert "tconv VERB --help" in " ".join(shown.split())


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_a_verb(verb, capsys):
    assert main(["help", verb]) == 0
    shown = capsys.readouterr().out
    assert main([verb, "--help"]) == 0
    assert shown == capsys.readouterr().out
    assert shown.startswith(f"usage: tconv {verb} ")


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_a_terminal_and_shows_examples(verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert parser_of(verb).color is False  # or Python 3.14 colours it before --color is read
    text = parser_of(verb).format_help()
    assert max(map(len, text.splitlines())) <= 86  # examples and summaries are not folded
    for option in ("--json", "--color", "--debug", f"tconv {verb}"):
        assert option in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_a_verb_can_be_parsed(verb):
    for example in VERBS[verb].examples.splitlines():
        parser_of(verb).parse_args(shlex.split(example)[2:])


# ---- usage errors --------------------------------------------------------------------------------

USAGE = [
    ("shpe 4", "there is no verb 'shpe'", "tconv shpe 4", "did you mean tconv shape?"),
    ("x", "there is no verb 'x'", "tconv x", "tconv --help lists the verbs"),
    ("hlep", "there is no verb 'hlep'", "tconv hlep", "did you mean tconv help?"),
    ("help shpe", "there is no verb 'shpe'", "tconv help shpe", "did you mean tconv shape?"),
    ("help run see", "'see' is one argument too many", "tconv help", "name one verb, or none"),
    (
        "--json info",
        "there is no verb '--json'",
        "tconv --json info",
        "write the verb first, as in tconv shape 64 -k 4 -s 2",
    ),
    ("shape 64 --kernal 3", "there is no option --kernal", "tconv shape", "did you mean --kernel?"),
    (
        "shape 64 --zzz",
        "there is no option --zzz",
        "tconv shape",
        "tconv shape --help lists the options",
    ),
    (
        "shape 64 65 -k 3",
        "'65' is one argument too many",
        "tconv shape",
        "tconv shape --help lists the options",
    ),
    (
        "shape",
        "IN is missing",
        "tconv shape",
        "write it as in tconv shape 64 -k 4 -s 2 -p 1; tconv shape --help lists the options",
    ),
    (
        "run",
        "MODEL is missing",
        "tconv run",
        "name an ONNX file, or a volume by --volume IN.zarr",
    ),
    (
        "run -w w.npy m.onnx",
        "--weight is for volumes",
        "option --weight",
        "add --volume IN.zarr, or leave it out",
    ),
    (
        "run --volume x.zarr m.onnx",
        "MODEL 'm.onnx' and --volume exclude each other",
        "option --volume",
        "leave one of the two out",
    ),
    (
        "run --volume x.zarr --compare",
        "--compare is for models",
        "option --compare",
        "leave it out",
    ),
    (
        "run --volume x.zarr -w w.npy",
        "--volume needs -o/--output",
        "option --volume",
        "add -o PATH",
    ),
    (
        "shape 64 -k",
        "-k/--kernel needs a value",
        "option -k/--kernel",
        "give it one, and if it begins with a minus as -k=-1",
    ),
    (
        "shape 64 -k 3 -p -1:2",
        "-p/--padding needs a value",
        "option -p/--padding",
        "give it one, and if it begins with a minus as -p=-1",
    ),
    ("info --json=1", "--json takes no value", "option --json", "leave the value out"),
    (
        "shape 64 -k 3.5",
        "-k/--kernel must be a whole number or one per axis, not '3.5'",
        "option -k/--kernel",
        "write it as 4 or 4x3",
    ),
    (
        "shape 64 -k 3 -p 1:2:3",
        "-p/--padding must be a whole number, a pair begin:end, one of these per axis, or same "
        "or valid, not '1:2:3'",
        "option -p/--padding",
        "write it as 1, 1:2 or 1x0:1",
    ),
    (
        "shape 64 --to 9 --limit 0",
        "--limit must be a whole number of 1 or more, not '0'",
        "option --limit",
        "write 2, say",
    ),
    (
        "run m.onnx --scale 1/0",
        "--scale must be a number or a fraction, not '1/0'",
        "option --scale",
        "write it as 0.5 or 1/255",
    ),
    (
        "run m.onnx --mean 1,nan",
        "--mean must be a number or a fraction, not 'nan'",
        "option --mean",
        "write it as 0.5 or 1/255",
    ),
    (
        "info --color alwys",
        "--color must be one of auto, always, never, not 'alwys'",
        "option --color",
        "did you mean always?",
    ),
    (
        "run m.onnx --mode grey",
        "--mode must be one of zero, minmax, positive, not 'grey'",
        "option --mode",
        "write one of these",
    ),
]


@pytest.mark.parametrize(("words", "what", "where", "fix"), USAGE)
def test_what_cannot_be_understood_is_told_in_three_lines(capsys, words, what, where, fix):
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error[usage]: {what}\n  at: {where}\n  help: {fix}\n"


# ---- other errors --------------------------------------------------------------------------------

CODES = [
    (errors.ParameterError("stride[0]=0 must be at least 1; pass 1."), "parameter"),
    (errors.ShapeError("x and y differ; pass others."), "shape"),
    (errors.OutputSizeError("9 cannot be reached; pass 8."), "output-size"),
    (errors.DTypeError("x has dtype bool; convert it."), "dtype"),
    (errors.MemoryLimitError("needs 9 bytes; split the batch."), "memory"),
    (errors.UnsupportedError("no range; convert it."), "unsupported"),
    (errors.ModelError("the model is damaged; export it again."), "model"),
    (errors.TConvError("no; yes."), "parameter"),
    (MemoryError(), "memory"),
    (
        ImportError("The ONNX tools need onnx and onnxruntime: pip install onnx onnxruntime."),
        "missing-extra",
    ),
    (ImportError("libfoo.so: cannot open"), "missing-extra"),
    (FileNotFoundError(2, "No such file or directory", "none.npy"), "file"),
    (PermissionError(13, "Permission denied", "x.npy"), "file"),
    (IsADirectoryError(21, "Is a directory", "folder"), "file"),
    (OSError(28, "No space left on device"), "file"),
    (OSError(5, "Input/output error"), "file"),
    (OSError("image file is truncated"), "file"),
    (OSError("'x.npy' is damaged; write it again."), "file"),
]


@pytest.mark.parametrize(("error", "code"), CODES)
def test_each_kind_of_error_has_its_code(monkeypatch, capsys, error, code):
    fails(monkeypatch, error)
    assert main(["info"]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"error\[{code}\]: \S.*[^.;]", first)
    assert re.fullmatch(r"  at: \S.*", second)
    assert re.fullmatch(r"  help: \S.*[^.;]", third)


def test_the_parts_of_a_message_are_shared_out(monkeypatch, capsys):
    for error, where, lines in [
        (CODES[0][0], "option -s", ["stride[0]=0 must be at least 1", "option -s", "pass 1"]),
        (CODES[9][0], "tconv run", None),
    ]:
        with pytest.raises(type(error)), at(where):
            raise error
        fails(monkeypatch, error)
        main(["info"])
        expected = lines or [
            "The ONNX tools need onnx and onnxruntime",
            where,
            "pip install onnx onnxruntime",
        ]
        what, place, fix = capsys.readouterr().err.splitlines()
        assert [what.partition(": ")[2], place[6:], fix[8:]] == expected


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (
            errors.RuleError("found Elu; use rule='gradient', or a layer that see_layers shows."),
            "found Elu",
            "use --rule gradient, or a layer that --list shows",
        ),
        (
            errors.ParameterError("target='y' is there; pass overwrite=True to replace it."),
            "target='y' is there",
            "pass -f to replace it",
        ),
        (
            errors.ShapeError("the image is 9x9; pass size=(8, 6), and pictures are resized."),
            "the image is 9x9",
            "pass --size 8x6, and pictures are resized",
        ),
        (errors.ShapeError("any size; pass size=(224,), say."), "any size", "pass --size 224, say"),
        (
            errors.ParameterError("threads=2000 must be at most 1,024; pass fewer, or None."),
            "threads=2000 must be at most 1,024",
            "pass fewer, or leave it out",
        ),
        (
            errors.ParameterError("step and cell must be None for a .gif; save a .png."),
            "step and cell must be left out for a .gif",
            "save a .png",
        ),
        (
            errors.ParameterError("stride=(2, 1) must be one integer; pass 1 or (1, 1, 1)."),
            "stride=(2, 1) must be one integer",
            "pass 1 or 1,1,1",
        ),
        (
            errors.MemoryLimitError('memory=9 must be at least 99; pass memory="99MB" or less.'),
            "memory=9 must be at least 99",
            "pass --memory 99MB or less",
        ),
        (
            errors.DTypeError('x.dtype=int8 and weight, which dtype=int8 cannot hold; dtype="f4".'),
            "x.dtype=int8 and weight, which --dtype int8 cannot hold",
            "--dtype f4",
        ),
    ],
)
def test_a_message_names_what_can_be_typed(monkeypatch, capsys, error, what, fix):
    fails(monkeypatch, error)
    main(["info"])
    first, _, third = capsys.readouterr().err.splitlines()
    assert (first.partition(": ")[2], third) == (what, f"  help: {fix}")


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "fix"),
    [
        ((3, 4, 4, 4), (9, 4, 3, 3, 3), "save a weight of axes (C, M, *kernel)."),
        ((4, 4, 3), (3, 2, 3, 3), "save an array of axes (N, C, *cells)."),
    ],
)
def test_advice_about_layouts_names_those_of_a_volume(x_shape, weight_shape, fix):
    with pytest.raises(errors.ShapeError, match="_format=") as raised:
        tconv.output_shape(x_shape, weight_shape)
    said = in_typed_words(str(raised.value))
    assert "(--groups 1) takes" in said
    assert said.endswith(f"or another weight, or {fix}")


def test_messages_of_functions_name_no_options():
    """Functions speak to callers in Python; the command line puts that into its own words."""
    option = re.compile(r"(?<!tconv info )(?<![\w\"-])--[a-z]{2,}| \(-[a-z]\)")
    found = []
    for file in PACKAGE.rglob("*.py"):
        if PACKAGE / "cli" not in file.parents:
            tree = ast.parse(file.read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found += [(file.name, node.lineno, *option.findall(node.value))]
    assert [each for each in found if len(each) > 2] == []


def test_without_a_place_the_whole_command_is_shown(monkeypatch, capsys):
    fails(monkeypatch, errors.ShapeError("a; b."))
    main(["info", "--color", "never"])
    assert "  at: tconv info --color never\n" in capsys.readouterr().err


def test_the_innermost_place_counts():
    with pytest.raises(ValueError, match="no") as caught, at("model"), at("file 'x'"):
        raise ValueError("no")
    assert place_of(caught.value) == "file 'x'"
    assert place_of(ValueError()) is None


def test_a_file_with_a_close_name_is_suggested(monkeypatch, capsys, tmp_path):
    (tmp_path / "generator.onnx").write_text("")
    path = str(tmp_path / "genrator.onnx")
    fails(monkeypatch, FileNotFoundError(2, "No such file or directory", path))
    main(["info"])
    assert capsys.readouterr().err == (
        "error[file]: No such file or directory\n"
        f"  at: file {path!r}\n"
        f"  help: did you mean {str(tmp_path / 'generator.onnx')!r}?\n"
    )


def test_what_a_file_holds_cannot_reach_the_terminal(monkeypatch, capsys):
    fails(monkeypatch, errors.ModelError("node \x1b[31mred\nblue\u202e; rename it."))
    main(["info"])
    assert capsys.readouterr().err.splitlines()[0] == (
        "error[model]: node \\x1b[31mred blue\\u202e"
    )


def test_a_bug_says_how_to_report_it(monkeypatch, capsys):
    fails(monkeypatch, KeyError("phase"))
    assert main(["info"]) == 101
    python = ".".join(map(str, sys.version_info[:3]))
    assert capsys.readouterr().err == (
        f"error[internal]: KeyError: 'phase' (tconv {tconv.__version__}, Python {python})\n"
        "  at: tconv info\n"
        "  help: this is a bug in tconv; run again with --debug and file an issue with the output\n"
    )


@pytest.mark.parametrize(("error", "code"), [(KeyError("phase"), 101), (CODES[0][0], 2)])
def test_debug_shows_where_in_the_code(monkeypatch, capsys, error, code):
    fails(monkeypatch, error)
    assert main(["info", "--debug"]) == code
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert "\nerror[" in err


def test_an_interruption_is_told_and_has_its_code(monkeypatch, capsys):
    fails(monkeypatch, KeyboardInterrupt())
    assert main(["info"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_a_warning_is_one_line(monkeypatch, capsys):
    def answer(options):
        warnings.warn("x is constant,\nso its picture is flat.", stacklevel=1)
        return ANSWER

    monkeypatch.setitem(sys.modules, "tconv.cli.info", SimpleNamespace(answer=answer))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["info"]) == 0
    out, err = capsys.readouterr()
    assert err == "warning: x is constant, so its picture is flat.\n"
    assert out.startswith("first\n")


# ---- what is printed -----------------------------------------------------------------------------

PLAIN = "first\n\nk  note\n4  1–2 × even\n"


def test_json_holds_the_numbers_and_nothing_that_is_no_json(capsys):
    result = {
        "exact": 0.1 + 0.2,
        "nan": float("nan"),
        "far": [np.inf, -np.inf],
        "numpy": np.float32(0.5),
        "whole": np.int64(3),
        "array": np.arange(4).reshape(2, 2),
        "yes": True,
        "none": None,
        7: (1, 2),
        "error": ValueError("no"),
    }
    print_answer(Answer((), result), "run", as_json=True)
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert text.isascii()
    shown = json.loads(text, parse_constant=pytest.fail)
    assert shown == {
        "tconv": tconv.__version__,
        "schema": 1,
        "verb": "run",
        "result": {
            "exact": 0.1 + 0.2,
            "nan": None,
            "far": ["Infinity", "-Infinity"],
            "numpy": 0.5,
            "whole": 3,
            "array": [[0, 1], [2, 3]],
            "yes": True,
            "none": None,
            "7": [1, 2],
            "error": "no",
        },
    }


@pytest.mark.parametrize("color", ["auto", "never"])
def test_a_pipe_gets_plain_text(monkeypatch, capsys, color):
    for name in ("FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    print_answer(ANSWER, "info", as_json=False, color=color)
    assert capsys.readouterr().out == PLAIN


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("color", "environment", "boxed", "coloured"),
    [
        ("auto", {}, True, True),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("never", {}, True, False),
        ("never", {"FORCE_COLOR": "1"}, True, False),
        ("always", {"NO_COLOR": "1"}, True, True),
    ],
)
def test_a_terminal_gets_a_table_and_colours_unless_refused(
    monkeypatch, color, environment, boxed, coloured
):
    for name in ("FORCE_COLOR", "NO_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "80", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())
    table = Table(TABLE.columns, TABLE.rows, accent=1, good=(True,))
    print_answer(Answer((table,), {}), "info", as_json=False, color=color)
    shown = sys.stdout.getvalue()
    assert ("───" in shown) == boxed
    assert ("\x1b[32m" in shown) == coloured


@pytest.mark.parametrize(("color", "environment"), [("always", {}), ("auto", {"FORCE_COLOR": "1"})])
def test_a_pipe_gets_colours_if_that_is_demanded(monkeypatch, capsys, color, environment):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "80", **environment}.items():
        monkeypatch.setenv(name, value)
    print_answer(ANSWER, "info", as_json=False, color=color)
    assert "───" in capsys.readouterr().out


SHOWN = {  # what may be coloured: tables, help, errors, and a bar
    "table": ["shape", "64", "-k", "3", "-s", "2"],
    "list": ["shape", "64", "--to", "128"],
    "help": ["shape", "--help"],
    "error": ["shape", "64", "--kernal", "3"],
    "internal": ["info"],
}
BAR = (
    "import sys, time, types; from tconv import cli; from tconv.progress import progress_bar\n"
    "def answer(options):\n"
    "    with progress_bar('images') as tell:\n"
    "        for n in range(15): tell(n, 15); time.sleep(0.1)\n"
    "    raise KeyError('phase')\n"
    "sys.modules['tconv.cli.info'] = types.SimpleNamespace(answer=answer)\n"
    "sys.exit(cli.main(sys.argv[1:]))"
)


@pytest.mark.parametrize("how", ["option", "variable"])
@pytest.mark.parametrize("what", SHOWN)
def test_refused_colours_leave_no_escape_in_a_terminal(terminal, what, how):
    code = BAR if what == "internal" else None
    words, columns = SHOWN[what], 40 if what == "list" else 80
    environment = {} if how == "option" else {"NO_COLOR": "1"}
    if how == "option":
        words = [words[0], "--color", "never", *words[1:]]
    shown = terminal(*words, columns=columns, code=code, **environment)
    assert shown.strip()
    assert "\x1b" not in shown
    if what == "internal":
        assert re.search(r"\rimages \[=+ *\] \d+/15  \d+\.\d/s  0:00:0\d left", shown)
        assert re.search(r"\r +\rerror\[internal\]: KeyError", shown)


def test_a_terminal_that_takes_colours_has_a_rule_and_bold_titles(terminal):
    shown = terminal(*SHOWN["table"])
    assert "───" in shown
    assert "\x1b[1m" in shown
    assert "───" in terminal(*SHOWN["table"], NO_COLOR="1")


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize(
    "words", ["shape 64 -k 3 -s 2", "shape 64x48x9 --to 128x96x18 -s 2", "info --cache"]
)
def test_a_table_fits_its_terminal(terminal, words, columns):
    shown = terminal(*words.split(), "--color", "never", columns=columns)
    lines = [line for line in shown.splitlines() if not line.startswith("out = ")]
    assert max(map(len, lines)) <= columns


def test_without_rich_a_terminal_gets_plain_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    print_answer(ANSWER, "info", as_json=False, color="always")
    assert sys.stdout.getvalue() == PLAIN


def test_columns_sets_the_width_of_plain_text(command):
    # Folding begins where a line would be longer; without COLUMNS nothing is folded.
    words = ["shape", "64", "-k", "3", "-s", "2", "-p", "1", "--op", "1", "--rank", "3"]
    assert max(map(len, command(*words).stdout.splitlines())) > 80
    assert max(map(len, command(*words, COLUMNS="80").stdout.splitlines())) <= 80


def test_a_stream_that_lacks_signs_gets_plainer_ones(command):
    done = command("shape", "64", "-k", "3", "-s", "2", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("64x64 -> 129x129\n")
    assert "1-2         uneven 2x" in done.stdout
    boxed = command(
        "shape", "64", "-k", "3", "--color", "always", PYTHONUTF8="0", PYTHONIOENCODING="ascii"
    )
    assert boxed.returncode == 0, boxed.stderr


@pytest.mark.skipif(os.name == "nt", reason="the shell's pipe")
def test_a_reader_that_leaves_is_no_error(command):
    start = (
        "import os, sys\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "from tconv.cli import main; sys.exit(main(['info']))"
    )
    done = command(code=start)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told(command):
    start = (
        "import os, sys\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        "from tconv.cli import main; sys.exit(main(['info']))"
    )
    done = command(code=start)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error[file]: No space left on device",
        "  at: standard output",
        "  help: make room there, or choose another place",
    ]


def test_closed_streams_are_no_error(command):
    start = "import sys; sys.stdout = sys.stderr = None\nfrom tconv.cli import main\n"
    assert command(code=start + "sys.exit(main(['info']))").returncode == 0
    assert command(code=start + "sys.exit(main(['nothing']))").returncode == 2


def test_the_console_script_is_the_same_function():
    import tomllib

    with open(f"{os.path.dirname(tconv.__file__)}/../pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["scripts"] == {"tconv": "tconv.cli:main"}


def test_the_words_come_from_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tconv", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"tconv {tconv.__version__}\n"
    assert subprocess.run(
        [sys.executable, "-m", "tconv", "--version"], capture_output=True, check=True
    ).stdout
