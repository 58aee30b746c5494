"""Pages from templates: every gap is filled once, and only comments and indentation are removed."""

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import tconv
from tconv.explainer.html_page import SCRIPTS
from tconv.page_templates import fill_template, page_source, without_comments

FILES = [
    *(
        ("tconv.explainer", f"page/{name}")
        for name in (*SCRIPTS, "explainer.css", "explainer.html")
    ),
    *(("tconv.deconvnet", f"gallery.{kind}") for kind in ("js", "css", "html")),
]


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        ("// a\n  f();\n\n\t// b\n}", "f();\n}"),
        ('const a = "// no";', 'const a = "// no";'),
        ("  const a = `\n  // ${b}\n\n`;\n// c", "const a = `\n  // ${b}\n\n`;"),
        ("const a = `x ${`y`} // z`;", "const a = `x ${`y`} // z`;"),
        ("  return /[/] \\/\\/ x/;  // stays", "return /[/] \\/\\/ x/;  // stays"),
        ("f(a); // it's", "f(a); // it's"),
        ("  a = `b\n  c` + `d\n  e`;\n  f()", "a = `b\n  c` + `d\n  e`;\nf()"),
    ],
)
def test_only_whole_comments_and_indentation_leave_a_script(script, kept):
    assert without_comments(script, "js") == kept


def test_a_style_loses_comments_of_one_line_only():
    style = '/* a */\n  b { content: "/* c */"; }\n  /* d\n     e */'
    assert without_comments(style, "css") == 'b { content: "/* c */"; }\n/* d\ne */'


def test_an_open_literal_is_an_error():
    with pytest.raises(ValueError, match="even number of backticks"):
        without_comments("// `a`\nb = `c", "js")


@pytest.mark.parametrize(("package", "name"), FILES, ids=lambda value: value)
def test_what_leaves_a_file_is_blank_or_a_comment(package, name):
    kind = name.rpartition(".")[2]
    text, comment = page_source(package, name), {"js": "//", "css": r"/\*"}.get(kind, "<!-- ")
    assert re.search(rf"^\s*(?:$|{comment})", text, re.M) is None
    assert len(text) > 500
    assert without_comments(text, kind) == text


def test_every_gap_of_a_template_is_filled_once():
    with pytest.raises(ValueError, match=r"^gallery\.html must hold every one of .* once$"):
        fill_template("tconv.deconvnet", "gallery.html", {"{title}": "a", "{nothing}": "b"})
    with pytest.raises(ValueError, match="once"):
        fill_template("tconv.deconvnet", "gallery.html", {"<section": "b"})


def test_pages_are_made_from_an_archive(tmp_path):
    package = Path(tconv.__file__).parent
    with ZipFile(tmp_path / "package.zip", "w") as archive:
        for file in package.rglob("*.*"):
            if "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(package.parent))
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'package.zip')!r})\n"
        "import tconv\n"
        "from tconv.page_templates import page_source\n"
        "assert 'package.zip' in tconv.__file__ and page_source('tconv.deconvnet', 'gallery.js')\n"
        "print(tconv.explain().html())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == tconv.explain().html() + "\n"
