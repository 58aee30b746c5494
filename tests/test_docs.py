"""The documentation says what is there: its examples run, its links and names resolve."""

import doctest
import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import tconv

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
FENCE = re.compile(r"^ *```.*$", re.MULTILINE)
PUBLIC = [name for name in tconv.__all__ if not name.startswith("__")]


def without_code(text):
    parts = FENCE.split(text)
    assert len(parts) % 2 == 1, "a code block is not closed"
    return "".join(parts[::2])


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    for heading in re.findall(r"^#+ +(.*)$", without_code(page.read_text("utf-8")), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@each_page
def test_the_examples_of_a_page_run(page):
    text = FENCE.sub("", page.read_text("utf-8"))  # a fence would count as expected output
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=flags).run(examples, out=report.append)
    assert not failed, "".join(report)


@each_page
def test_the_links_of_a_page_lead_somewhere(page):
    text = without_code(page.read_text("utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", text):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_start_page_leads_to_every_page_and_names_what_is_installed():
    start = (ROOT / "docs" / "index.md").read_text("utf-8")
    nav = set(re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M))
    assert nav == {
        page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")
    }
    assert nav - {"index.md"} <= set(re.findall(r"\]\(([^)#\s]+)", start))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [re.split(r"[<>=~\[]", each)[0] for each in project["dependencies"]]
    installed = start.partition("pip install .  ")[2].partition("\n")[0]
    assert all(name.lower() in installed.lower() for name in needed), needed


def test_the_picture_of_the_readme_is_what_explain_makes():
    assert (ROOT / "docs" / "stamp.svg").read_text("utf-8") == tconv.explain().svg()


@pytest.mark.parametrize(
    ("name", "how"),
    [("stream_stamp", {"lens": "stamp", "step": 3}), ("stream_cell", {"cell": (0, 4)})],
)
def test_the_pictures_of_streams_are_what_explain_makes_and_what_the_page_links_to(name, how):
    explainer = tconv.explain([1, 2, 3, 4, 5], [1, 3, 3, 1], stride=2, padding=1, **how)
    assert (ROOT / "docs" / f"{name}.svg").read_text("utf-8") == explainer.svg()
    page = (ROOT / "docs" / "streams.md").read_text("utf-8")
    assert f"]({name}.svg)" in page
    assert f'#open-the-page "{explainer.url_state()}")' in page


def test_the_architecture_names_every_room_and_no_file_that_is_gone():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    package = ROOT / "tconv"
    rooms = {path.parent.name for path in package.rglob("*.py")} - {"tconv"}
    files = {path.name for path in package.glob("*.py")} - {"__main__.py"}
    for name in sorted({f"{room}/" for room in rooms} | files):
        assert f"{name}`" in text, f"ARCHITECTURE.md does not name {name}"
    known = {path.name for path in ROOT.rglob("*.py")}
    for name in re.findall(r"[\w./-]+\.(?:py|css|md|toml|yml)\b", text):
        if "HOST" not in name and "VERB" not in name and "*" not in name:
            one = name in known or any((folder / name).exists() for folder in (ROOT, package))
            assert one, f"ARCHITECTURE.md names {name}, which is not there"
    symbols = {  # what is written as code, and looks like a name of the package's
        word for word in re.findall(r"`([A-Za-z_]\w{3,})`", text) if not word.isupper()
    }
    source = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    for symbol in sorted(symbols):
        assert re.search(rf"\b{symbol}\b", source), f"ARCHITECTURE.md names `{symbol}`"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented(name):
    value = getattr(tconv, name)
    assert re.search(rf"^::: tconv\.(\w+\.)*{name}$", API, re.MULTILINE), "missing in docs/api.md"
    assert inspect.isfunction(value) or inspect.isclass(value)
    examples = doctest.DocTestFinder(recurse=False).find(value, name)[0].examples
    # The doctests of modules run with the tests of their package, so these examples run too.
    assert examples, "its docstring has no example"
    assert value.__module__.startswith("tconv.")


@pytest.mark.parametrize("module", ["checkerboard", "images", "onnx", "tinynet"])
def test_what_a_public_module_exports_is_documented(module):
    found = re.findall(rf"^::: tconv\.{module}\.(\w+)$", API, re.MULTILINE)
    assert sorted(found) == sorted(import_module(f"tconv.{module}").__all__)


API = (ROOT / "docs" / "api.md").read_text("utf-8")
