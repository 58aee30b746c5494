"""The explainer's page in a browser: it shows what Python computes.

Needs Debian's Chromium and Playwright (`make test-hosts` brings both), and fails without them.
"""

import io
import json
import random
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from explained import drawn_calls, same_bits
from PIL import Image

import tconv
from tconv.errors import ParameterError, ShapeError

OUT = Path(__file__).parents[3] / "out"
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 600, "height": 900}
FORM = "#x=1,2,3;4,5,6;7,8,9&w=1,2,1;2,4,2;1,2,1&s=2&p=1&op=1"  # crop, extra cells and gaps
OPEN = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
FINAL = """() => [...document.querySelectorAll('#grid-y > :not(.away) [data-sel^=o]')].map(
    cell => cell.firstChild.data)"""
# What is lit on the page, as flat indices; entries of the matrix as they are named.
LIT = """() => { const facts = tconv.facts(), found = {};
    const columns = {x: facts.input_size[1], w: facts.kernel_size[1], y: facts.output_size[1]};
    for (const name of 'xwym') {
        const cells = [...document.querySelectorAll(`#grid-${name} .lit[data-sel]`)];
        const places = cells.map(cell => cell.dataset.sel.slice(1));
        const flat = place => { const [r, c] = place.split(','); return r * columns[name] + +c; };
        found[name] = name === 'm' ? places : places.map(flat).sort((a, b) => a - b);
    }
    return found; }"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    tconv.explain().save(path)
    return path.as_uri()


@pytest.fixture(scope="module")
def tab(browser):
    """The tab that most tests share, and what went wrong in it."""
    with browser.new_context(viewport=WIDE, accept_downloads=True) as context:
        opened, errors = context.new_page(), []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("console", lambda said: errors.append(said.text))
        yield opened, errors


@pytest.fixture
def page(tab):
    """An empty page whose errors fail the test."""
    opened, errors = tab
    errors.clear()
    opened.goto("about:blank")
    opened.emulate_media(media="null")
    opened.mouse.move(1270, 790)
    yield opened
    assert not errors


def wait_until(page, expression):
    """Wait for what the page's policy lets nobody wait for inside it."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"{expression} did not come true")


def drawn_explainers(count):
    """Scenes of every kind, the same in every run."""
    rng = random.Random(7)
    found = []
    while len(found) < count:
        rank = rng.choice((1, 2, 2, 2))

        def numbers(most, rank=rank):
            rows, columns = rng.randint(1, most), rng.randint(1, most)
            grid = [
                [rng.choice((rng.randint(-9, 9), rng.randint(-99, 99) / 4)) for _ in range(columns)]
                for _ in range(rows)
            ]
            return grid[0] if rank == 1 else grid

        def each(low, high, rank=rank):
            return tuple(rng.randint(low, high) for _ in range(rank))

        begins, ends = each(0, 3), each(0, 3)
        settings = {
            "stride": each(1, 5),
            "dilation": each(1, 4),
            "padding": tuple(zip(begins, ends, strict=True)),
            "output_padding": each(0, 2),
        }
        try:
            found.append(tconv.explain(numbers(6), numbers(5), **settings))
        except (ParameterError, ShapeError):
            continue
    return found


EXPLAINERS = drawn_explainers(300)


# ---- 1 the worked example ------------------------------------------------------------------------


def test_the_worked_example(page, address):
    page.goto(address)
    texts = page.locator("#grid-y .cell").evaluate_all("all => all.map(c => c.firstChild.data)")
    assert texts == ["37", "121", "94", "178", "500", "342", "201", "499", "308"]
    page.locator("#grid-y [data-sel='o1,1']").hover()
    lit = page.evaluate(LIT)
    assert lit == {
        "x": [0, 1, 2, 3],
        "w": [0, 1, 2, 3],
        "y": [4],
        "m": ["4,0", "4,1", "4,2", "4,3"],
    }
    entries = page.locator("#grid-m .lit").evaluate_all("all => all.map(c => c.firstChild.data)")
    assert entries == ["4", "3", "2", "1"]
    assert page.locator("#grid-x .lit").count() == page.locator("#grid-w .lit").count() == 4
    assert page.text_content("#equation") == "y[1,1] = 4·37 + 3·47 + 2·67 + 1·77 = 500"
    assert page.text_content("#contributions") == "4 contributions"
    # A tap has a letter in the kernel and in the matrix, not a colour alone.
    letter = "cell => getComputedStyle(cell, '::before').content"
    assert page.locator("#grid-m [data-sel='m4,0']").evaluate(letter) == '"d"'
    assert page.locator("#grid-w [data-sel='k1,1']").evaluate(letter) == '"d"'


def test_the_default_state_fits_a_projector(page, address):
    page.goto(address)
    width, height = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert width <= 1280
    assert height <= 800


FULL_HD = {"width": 1920, "height": 1080}


def ramp(rows, columns):
    return ";".join(",".join(str(r * columns + c + 1) for c in range(columns)) for r in range(rows))


# The six states of the tutorial, and larger ones up to the limits.
SHOWN = [
    *("", FORM, f"#x={ramp(5, 5)}&w={ramp(3, 3)}&s=2", f"#x={ramp(3, 3)}&w={ramp(2, 2)}&s=3&d=4"),
    *(f"#x={ramp(4, 4)}&w={ramp(7, 7)}&p=2", "#x=1,2,3,4,5&w=1,2,1&s=2&p=1&op=1"),
    *(f"#x={ramp(8, 8)}&w={ramp(6, 6)}&s=3", f"#x={ramp(8, 8)}&w={ramp(4, 4)}&s=4"),
    "#x=1,1,1;1,1,1;1,1,1&w=" + ";".join(["0.0625,0.1875,0.1875,0.0625"] * 4) + "&s=2&p=1",
    f"#x={ramp(2, 5)}&w={ramp(3, 2)}&s=2x3&p=0-1x1-0&d=2x1",
]
BOXES = """() => ['scroll-x', 'scroll-w', 'scroll-y', 'equation', 'transport'].map(id => {
    const node = document.getElementById(id), box = node.getBoundingClientRect();
    return [id, box.left, box.top, box.right, box.bottom,
        id === 'equation' && node.scrollHeight > node.clientHeight + 1]; })"""


@pytest.mark.parametrize("presents", [False, True], ids=["all", "presented"])
@pytest.mark.parametrize("lens", ["stamp", "collect", "conv"])
@pytest.mark.parametrize("view", [WIDE, FULL_HD], ids=["1280x800", "1920x1080"])
def test_every_state_is_seen_without_scrolling(browser, address, view, lens, presents):
    with browser.new_context(viewport=view) as context:
        opened = context.new_page()
        opened.goto(address)
        if presents:
            opened.keyboard.press("p")
        for hash_ in SHOWN:
            opened.evaluate("hash => tconv.set(hash)", (hash_ or "#") + f"&lens={lens}")
            last = int(opened.get_attribute("#step", "max"))
            for step in (1, last // 2 + 1, last):
                opened.locator("#step").evaluate(
                    "(node, to) => { node.value = to; node.dispatchEvent(new Event('input')); }",
                    step,
                )
                boxes = opened.evaluate(BOXES)
                for name, left, top, right, bottom, cut in boxes:
                    inside = 0 <= top < bottom <= view["height"] and 0 <= left < right
                    assert inside, (hash_, step, name, top, bottom)
                    assert right <= view["width"], (hash_, step, name, right)
                    assert not cut, (hash_, step)
                for n, (one, left, top, right, bottom, _) in enumerate(boxes):
                    for other, *box, _ in boxes[n + 1 :]:
                        # Boxes have four pixels around them for outlines.
                        apart = max(box[0] - right, left - box[2], box[1] - bottom, top - box[3])
                        assert apart >= -8, (hash_, step, one, other, apart)
                lit = "#grid-y > :not(.away) .lit, #grid-y .window:not([hidden])"
                assert opened.locator(lit).count() > 0


def test_presentation_is_large_and_left_by_escape(page, address):
    page.goto(address + FORM)
    side = "document.querySelector('#grid-y .cell').offsetWidth"
    before = page.evaluate(side)
    page.keyboard.press("p")
    assert page.evaluate(side) > before
    assert not page.locator("#controls").is_visible()
    for key, step in (("PageDown", 16), ("PageUp", 15)):
        page.keyboard.press(key)
        assert page.evaluate("tconv.state().step") == step
    assert page.text_content("#present").endswith("Leave (Esc)")
    page.keyboard.press("Escape")
    assert page.locator("#controls").is_visible()
    assert page.evaluate(side) == before
    page.click("#present")
    assert not page.locator("#controls").is_visible()
    page.click("#present")
    assert page.evaluate(side) == before


@pytest.mark.parametrize("lens", ["stamp", "collect", "conv"])
def test_what_is_lit_is_in_the_window_of_a_large_grid(page, address, lens):
    page.goto(address + f"#x={ramp(8, 8)}&w={ramp(6, 6)}&s=3&lens={lens}")
    for part in (0, 0.3, 1):
        page.locator("#step").evaluate(
            "(node, part) => { node.value = Math.round(part * (node.max - 1)) + 1;"
            " node.dispatchEvent(new Event('input')); }",
            part,
        )
        box = page.locator("#scroll-y").bounding_box()
        lit = "#grid-y .window" if lens == "stamp" else "#grid-y > :not(.away) .lit"
        cell = page.locator(lit).first.bounding_box()
        for start, length in (("x", "width"), ("y", "height")):
            assert box[start] <= cell[start]
            assert cell[start] + cell[length] <= box[start] + box[length]
        assert "scroll: rows" in page.text_content("#more-y")
        assert page.evaluate("parseFloat(getComputedStyle(document.querySelector("
                             "'#grid-y > :not(.away)')).fontSize)") >= 10  # fmt: skip


@pytest.mark.parametrize(
    ("sel", "lit", "sentence"),
    [
        ("i0,1", {"x": [1], "w": [0, 1, 2, 3], "y": [1, 2, 4, 5]}, "3·47 onto y[1,1]"),
        ("k1,0", {"x": [0, 1, 2, 3], "w": [2], "y": [3, 4, 6, 7]}, "tap c, used 4 times"),
        ("m4,1", {"x": [1], "w": [2], "y": [4]}, "(W*)ᵀ[4,1] = 3: tap c joins x[0,1] to y[1,1]"),
        ("m0,3", {"x": [3], "w": [], "y": [0]}, "(W*)ᵀ[0,3] = 0: x[1,1] and y[0,0] are not conn"),
    ],
)
def test_selecting_one_thing_lights_the_others(page, address, sel, lit, sentence):
    page.goto(address)
    page.locator(f"[data-sel='{sel}']").hover()
    found = page.evaluate(LIT)
    assert {name: found[name] for name in "xwy"} == lit
    assert sentence in page.text_content("#equation")


@pytest.mark.parametrize(
    ("symbol", "lit"), [("fp", "#grid-y .crop.lit"), ("fo", "#grid-y .extra.lit"), ("fs", ".lit")]
)
def test_a_symbol_of_the_formula_lights_what_it_makes(page, address, symbol, lit):
    page.goto(address + FORM)
    page.locator(f"[data-sel={symbol}]").first.hover()
    count = {"fp": 49 - 36, "fo": 11, "fs": 9}[symbol]
    assert page.locator(lit).count() == count


def test_every_extra_cell_carries_its_tag(page, address):
    page.goto(address + FORM)
    tagged = page.locator("#grid-y .cell").evaluate_all(
        """all => all.filter(cell => getComputedStyle(cell).backgroundImage.includes('>op</text>'))
            .map(cell => cell.ariaLabel)"""
    )
    assert len(tagged) == 11
    assert all(label.endswith("extra, still computed") for label in tagged)
    assert page.locator("#key-extra").is_visible()


@pytest.mark.parametrize("forced", ["none", "active"], ids=["any", "forced"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_tag_and_the_dots_are_seen_in_all_colors(browser, address, scheme, forced):
    with browser.new_context(viewport=WIDE, color_scheme=scheme, forced_colors=forced) as context:
        opened = context.new_page()
        opened.goto(address + FORM)
        opened.locator("#step").hover()
        cell = opened.locator("#grid-y .extra").first.bounding_box()
        for left, top in ((0.5, 0.75), (0.2, 0.97)):  # of the tag, and of the dots below
            corner = {"x": cell["x"] + left * cell["width"], "y": cell["y"] + top * cell["height"]}
            size = {"width": 0.4 * cell["width"], "height": 0.15 * cell["height"]}
            picture = Image.open(io.BytesIO(opened.screenshot(clip=corner | size))).convert("L")
            darkest, lightest = picture.getextrema()
            assert lightest - darkest > 180


# ---- 2 and 3: the same as Python, through every lens ---------------------------------------------


@pytest.mark.parametrize("part", range(3))
def test_the_facts_and_the_link_are_those_of_python(page, address, part):
    page.goto(address)
    explainers = EXPLAINERS[part::3]
    states = page.evaluate(
        """hashes => hashes.map(hash => { tconv.set(hash);
            return [tconv.facts(), tconv.hash(), document.getElementById('note').hidden]; })""",
        [each.url_state() for each in explainers],
    )
    for explainer, (found, hash_, fits) in zip(explainers, states, strict=True):
        assert fits
        assert hash_ == explainer.url_state()
        expected = json.loads(json.dumps(explainer.facts()))
        for name in ("ripple", "ripple_db"):  # the two that are no sums of products
            mine, theirs = found.pop(name), expected.pop(name)
            assert mine == theirs or mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
        assert found == expected, explainer.url_state()


@pytest.mark.parametrize("part", range(3))
def test_the_lenses_end_alike(page, address, part):
    page.goto(address)
    explainers = EXPLAINERS[part::3]
    lenses = ["stamp", "collect", "conv"]
    found = page.evaluate(
        f"""([hashes, lenses]) => hashes.map(hash => lenses.map(lens => {{
            tconv.set(`${{hash || '#'}}&lens=${{lens}}&step=9999`); return ({FINAL})(); }}))""",
        [[each.url_state() for each in explainers], lenses],
    )
    for explainer, ends in zip(explainers, found, strict=True):
        assert ends[0] == ends[1] == ends[2]
        assert len(ends[0]) == len(explainer.facts()["equations"])


@pytest.mark.parametrize("hash_", ["#lens=conv", FORM + "&lens=conv", "#w=1,2,3&p=0x3-0&x=1,2,3,4"])
def test_the_window_of_the_convolution_reads_what_is_summed(page, address, hash_):
    page.goto(address + hash_)
    page.evaluate("h => tconv.set(h)", page.evaluate("tconv.hash()") + "&lens=conv")
    windows = """() => [...document.querySelectorAll('#grid-y [data-sel^=o]')].map(output => {
        output.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));
        const box = document.querySelector('#grid-x .window').getBoundingClientRect();
        const cells = [...document.querySelectorAll('#grid-x > :not(.away) [data-sel]')];
        return cells.filter(cell => {
            const r = cell.getBoundingClientRect(), x = r.x + r.width/2, y = r.y + r.height/2;
            return x > box.left && x < box.right && y > box.top && y < box.bottom;
        }).map(cell => cell.dataset.sel.slice(1).split(',').map(Number)); })"""
    facts = page.evaluate("tconv.facts()")
    columns = facts["input_size"][1]
    inside = [[i * columns + j for i, j in cells] for cells in page.evaluate(windows)]
    summed = [[i for i, _ in pairs] for pairs in facts["contributions"]]
    assert inside == summed  # dilation is 1 in these


def test_stamps_grow(page, address):
    page.goto(address + "#lens=stamp&step=1")
    assert page.evaluate(FINAL) == ["37", "74", "0", "111", "148", "0", "0", "0", "0"]
    page.click("#next")
    assert page.evaluate(FINAL) == ["37", "121", "94", "111", "289", "188", "0", "0", "0"]
    page.click("#next")
    page.click("#next")
    assert page.evaluate(FINAL) == ["37", "121", "94", "178", "500", "342", "201", "499", "308"]
    assert "finished" in page.text_content("#hint-y")


# ---- 4 offline -----------------------------------------------------------------------------------


def test_the_page_loads_nothing_else(browser, address):
    with browser.new_context(viewport=WIDE) as context:
        asked, said = [], []

        def answer(route):
            asked.append(route.request.url)
            route.continue_()

        context.route("**/*", answer)
        opened = context.new_page()
        opened.on("console", lambda message: said.append(message.text))
        opened.add_init_script(
            "window.broken = []; document.addEventListener('securitypolicyviolation',"
            " event => window.broken.push(event.violatedDirective))"
        )
        opened.goto(address)
        opened.evaluate(OPEN)
        opened.click("#play")
        opened.wait_for_timeout(400)
        assert asked == [address]
        assert opened.evaluate("window.broken") == []
        assert said == []


# ---- 5 links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("explainer", EXPLAINERS[:12], ids=lambda e: e.url_state()[:40])
def test_a_link_restores_the_state(page, address, explainer):
    page.goto(address + explainer.url_state() + "&lens=stamp&step=1&sel=i0,0")
    written = page.evaluate("tconv.hash()")
    facts, state = page.evaluate("[tconv.facts(), tconv.state()]")
    page.goto("about:blank")
    page.goto(address + written)
    assert page.evaluate("[tconv.facts(), tconv.state()]") == [facts, state]
    assert page.evaluate("tconv.hash()") == written
    assert page.evaluate("tconv.state().sel") == "i0,0"


def test_the_address_follows_and_is_followed(page, address):
    page.goto(address)
    page.locator("#grid-y [data-sel='o0,2']").click()
    wait_until(page, "location.hash === '#sel=o0,2'")
    page.evaluate("location.hash = '#s=3'")
    wait_until(page, "tconv.facts().output_size[0] === 5")


def test_the_links_of_the_documentation_lead_to_eight_states(page, address):
    text = (OUT.parent / "docs" / "transposed_convolution.md").read_text("utf-8")
    links = set(re.findall(r'\(#open-the-page "(#[^"]*)"\)', text))
    seen = set()
    for hash_ in links:
        page.goto("about:blank")
        page.goto(address + hash_)
        assert not page.locator("#note").is_visible(), hash_
        assert page.evaluate("tconv.hash()") == hash_
        seen.add(json.dumps(page.evaluate("tconv.state()")))
    assert len(seen) == len(links) == 8


def fuzzed(rng):
    keys = ["x", "w", "s", "p", "d", "op", "lens", "step", "sel", "zzz", "__proto__", "constructor"]
    values = [
        *("NaN", "1e999", "-1e999", "<img src=x onerror=alert(1)>", "%", "%E0%A4%A", "", ",", ";"),
        *("1,2;3", "1;2,3", "0", "-1", "99", "1x2x3", "1-2-3", "0x", "6x6", "9" * 400, "1,2,3"),
        *("stamp", "toString", "o9,9", "q1,1", "o1", "1e308,1e308", "javascript:alert(1)", "\x00"),
    ]
    parts = [f"{rng.choice(keys)}={rng.choice(values)}" for _ in range(rng.randint(1, 5))]
    return "#" + rng.choice(("&", "&&")).join(parts) + rng.choice(("", "&x=" + "1," * 1500, "junk"))


def test_no_link_breaks_the_page(page, address):
    page.goto(address)
    rng = random.Random(3)
    hashes = [fuzzed(rng) for _ in range(200)]
    known, *found = page.evaluate(
        """hashes => ['', ...hashes].map(hash => { tconv.set(hash);
            const tags = [...document.querySelectorAll('*')].map(node => node.tagName);
            const {x, w} = tconv.state(), numbers = [...x.flat(), ...w.flat()];
            return [[...new Set(tags)].sort(), numbers.every(Number.isFinite),
                document.getElementById('note').hidden]; })""",
        hashes,
    )
    for hash_, (tags, finite, _) in zip(hashes, found, strict=True):
        assert tags == known[0], hash_
        assert finite, hash_
    assert sum(not fits for *_, fits in found) > 150


# ---- the numbers that were passed ----------------------------------------------------------------

HELD = "JSON.stringify(['x', 'w'].map(k => tconv.state()[k].map(r => r.map(v => [v, 1 / v < 0]))))"
KEPT = "decodeURIComponent(location.hash) === tconv.hash()"


def held(page):
    """What the page has as x and w."""
    found = json.loads(page.evaluate(HELD))
    return [
        [[-0.0 if negative and not value else value for value, negative in row] for row in rows]
        for rows in found
    ]


def in_floats(facts):
    """Facts with all their numbers as text, by which NaN equals NaN, and 0 equals -0."""
    if isinstance(facts, dict):
        return {name: in_floats(each) for name, each in facts.items()}
    if isinstance(facts, list):
        return [in_floats(each) for each in facts]
    return facts if isinstance(facts, str) else repr(float(facts) + 0.0)


def reloaded(page):
    """Open the address of a page once more, which must not change what it shows."""
    wait_until(page, KEPT)
    before = page.evaluate(HELD), page.evaluate("[tconv.facts(), tconv.state()]")
    page.reload()
    assert not page.locator("#note").is_visible()
    assert (page.evaluate(HELD), page.evaluate("[tconv.facts(), tconv.state()]")) == before


def saved(explainer, path):
    explainer.save(path)
    return path.as_uri()


@pytest.mark.parametrize("part", range(3))
def test_the_arrays_that_were_passed_are_shown(page, tmp_path, part):
    for n, (x, w, settings) in enumerate(drawn_calls(30)[part::3]):
        explainer = tconv.explain(x, w, **settings)
        page.goto(saved(explainer, tmp_path / f"{n}.html"))
        assert not page.locator("#note").is_visible()
        assert not page.locator("#custom").is_visible()
        assert page.evaluate("tconv.hash()") == ""
        found_x, found_w = held(page)
        assert same_bits(found_x, x)
        assert same_bits(found_w, w)
        found, expected = page.evaluate("tconv.facts()"), explainer.facts()
        for name in ("y", "canvas", "phase_sums", "not_the_inverse", "equations", "contributions"):
            assert in_floats(found[name]) == in_floats(expected[name])
        page.locator("#grid-w [data-sel='k0,0']").dblclick()
        field = page.locator("#grid-w input")
        assert float(field.input_value()) == np.ravel(w)[0]
        field.press("Enter")
        assert same_bits(held(page)[1], w)  # as nothing was typed
        page.locator("#grid-w [data-sel='k0,0']").dblclick()
        page.keyboard.type("0.1234567890123456789")
        page.keyboard.press("Enter")
        edited = np.atleast_2d(w).astype(np.float64)
        edited[0, 0] = 0.1234567890123456789
        assert same_bits(held(page)[1], edited)
        assert same_bits(held(page)[0], x)
        reloaded(page)
        assert page.evaluate("location.hash").startswith("#w=0.12345678901234568")
        # The whole state, as what goes behind the example's address.
        link = tconv.explain(x, edited if w.ndim == 2 else edited[0], **settings).url_state()
        page.goto(saved(tconv.explain(), tmp_path / "example.html") + link)
        assert not page.locator("#note").is_visible()
        assert same_bits(held(page)[1], edited)
        assert page.evaluate("tconv.hash()") == link


@pytest.mark.parametrize("kernel", [2, 5])
@pytest.mark.parametrize("start", ["example", "random"])
def test_every_preset_lasts(page, address, tmp_path, kernel, start):
    if start == "random":
        rng = np.random.default_rng(kernel)
        x, w = rng.standard_normal((3, 3)), rng.standard_normal((kernel, kernel), np.float32)
        address = saved(tconv.explain(x, w), tmp_path / "page.html")
    page.goto(address)
    page.select_option("[data-control=k1]", str(kernel))
    page.select_option("[data-control=s1]", "3")
    for control in ("w", "x"):
        names = page.locator(f"[data-control={control}] option").all_text_contents()[1:]
        for name in names:
            page.select_option(f"[data-control={control}]", name)
            reloaded(page)
    page.click("#reset")
    reloaded(page)
    assert page.evaluate("tconv.facts()") == json.loads(json.dumps(tconv.explain().facts()))


def test_the_address_says_what_differs_from_the_page(page, tmp_path):
    explainer = tconv.explain(np.ones((3, 3)), np.full((3, 3), 1 / 3), stride=2, padding=1)
    page.goto(saved(explainer, tmp_path / "page.html"))
    for change, hash_ in (
        ("padding", "#p=2"),
        ("stride", "#s=3&p=2"),
        ("stride back", "#p=2"),
        ("padding back", ""),
    ):
        name, _, back = change.partition(" ")
        control = {"padding": "begin1", "stride": "s1"}[name]
        now = page.locator(f"[data-control={control}]").input_value()
        page.select_option(f"[data-control={control}]", str(int(now) + (-1 if back else 1)))
        assert re.sub(r"[#&]step=\d+", "", page.evaluate("tconv.hash()")) == hash_
        reloaded(page)
    page.goto(page.url.partition("#")[0] + "#x=1,2,3&p=0")
    assert page.evaluate("tconv.state().w") == [[1 / 3] * 3] * 3
    assert page.evaluate("tconv.state().s") == [2, 2]
    assert page.evaluate("tconv.hash()") == "#x=1,2,3&p=0"


def test_the_longest_address_is_read(page, address):
    longest = -1.2345678901234567e-300
    x, w = np.full((8, 8), longest), np.full((7, 7), np.nextafter(longest, 0))
    settings = {"padding": ((1, 2), (3, 4)), "stride": (2, 3), "dilation": (1, 2)}
    explainer = tconv.explain(x, w, **settings, output_padding=(1, 2))
    page.goto(address + explainer.url_state())
    found_x, found_w = held(page)
    assert same_bits(found_x, x)
    assert same_bits(found_w, w)
    assert page.evaluate("tconv.hash()") == explainer.url_state()
    reloaded(page)


@pytest.mark.parametrize("number", ["9007199254740993", "-9007199254740993", "1" + "0" * 23])
def test_whole_numbers_that_cannot_be_held_are_refused(page, address, number):
    page.goto(address + f"#x={number},1;1,1")
    assert "x is not as it should be" in page.text_content("#note")
    assert page.evaluate("tconv.state().x") == [[37, 47], [67, 77]]
    page.goto(address)
    page.locator("#grid-x [data-sel='i0,0']").dblclick()
    page.keyboard.type(number)
    page.keyboard.press("Enter")
    assert page.text_content("#note").startswith(f"{number} is no number that float64 holds")
    assert page.locator("#note").is_visible()
    assert page.evaluate("tconv.state().x") == [[37, 47], [67, 77]]
    page.keyboard.press("Escape")
    page.locator("#grid-x [data-sel='i0,0']").dblclick()
    page.keyboard.type("9007199254740992")
    page.keyboard.press("Enter")
    assert not page.locator("#note").is_visible()
    assert page.evaluate("tconv.state().x[0][0]") == 2**53


def test_a_long_number_is_shown_short_and_told_whole(page, address):
    page.goto(address + "#x=123456789,0.1234567890123456;1,1&w=1,1;1,1")
    cells = page.locator("#grid-x .cell").evaluate_all("all => all.map(c => c.firstChild.data)")
    assert cells == ["1.2346e8", "0.12346", "1", "1"]
    assert "123460000" not in page.content()
    cell = page.locator("#grid-x [data-sel='i0,1']")
    cell.hover()
    assert "value 0.1234567890123456" in cell.get_attribute("title")
    assert "x[0,1] = 0.1234567890123456 is stamped" in page.text_content("#equation")
    page.locator("#grid-x [data-sel='i0,0']").hover()
    assert "1·123456789 onto y[0,0]" in page.text_content("#equation")


@pytest.mark.parametrize("view", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_picture_holds_the_whole_of_a_long_sum(browser, tmp_path, view):
    rng = np.random.default_rng(2)
    explainer = tconv.explain(rng.standard_normal((4, 4)), rng.standard_normal((4, 4)), stride=2)
    with browser.new_context(viewport=view, accept_downloads=True) as context:
        opened = context.new_page()
        opened.goto(saved(explainer, tmp_path / "page.html"))
        with opened.expect_download() as kept:
            opened.click("#svg")
        kept.value.save_as(tmp_path / "page.svg")
        opened.goto((tmp_path / "page.svg").as_uri())
        width, lines = opened.evaluate(
            """() => [document.documentElement.width.baseVal.value,
                [...document.querySelectorAll('text')].map(each => [each.textContent,
                    each.getBBox().x + each.getBBox().width])]"""
        )
    (first,) = (n for n, (text, _) in enumerate(lines) if text.startswith("y["))
    told = " ".join(text for text, _ in lines[first:])
    assert told in explainer.facts()["equations"]
    assert len(told) > 100
    assert all(end <= width for _, end in lines)


def test_a_long_sum_is_told_short_and_kept_whole(page, tmp_path):
    rng = np.random.default_rng(1)
    explainer = tconv.explain(rng.standard_normal((5, 5)), rng.standard_normal((5, 5)))
    page.goto(saved(explainer, tmp_path / "page.html"))
    for sel, flat in (("o4,4", 40), ("o0,0", 0)):
        page.locator(f"#grid-y [data-sel='{sel}']").hover()
        whole, shown = explainer.facts()["equations"][flat], page.text_content("#equation")
        if len(whole) > 240:
            assert shown.count(" ≈ ") == 2
            assert " = " not in shown
            assert page.get_attribute("#equation", "title") == whole
            assert len(shown) < len(whole) / 1.8
        else:
            assert shown == whole
            assert page.get_attribute("#equation", "title") == ""


def test_sums_beyond_what_is_held_are_told(page, tmp_path):
    explainer = tconv.explain([[1e308, 1e308]], [[1e308, -1e308]], stride=(1, 1))
    page.goto(saved(explainer, tmp_path / "page.html"))
    cells = page.locator("#grid-y .cell").evaluate_all("all => all.map(c => c.firstChild.data)")
    assert cells == ["inf", "nan", "-inf"]
    page.evaluate(OPEN)
    wait_until(page, "document.querySelectorAll('#inverse td').length > 0")
    page.locator("#grid-y [data-sel='o0,2']").hover()
    assert page.text_content("#equation") == "y[0,2] = (-1e+308)·1e+308 = -inf"


@pytest.mark.parametrize(
    "hash_",
    ["#s=9", "#x=1,NaN", "#x=1e999", "#p=6", "#op=3", "#lens=none", "#sel=o9,9", "#" + "x" * 3000,
     "#x=<img src=x onerror=alert(1)>", "#w=1,2;3", "#s=2.5", "#step=99"],
)  # fmt: skip
def test_an_impossible_link_shows_the_nearest_state_and_says_so(page, address, hash_):
    page.goto(address + hash_)
    assert "not quite right" in page.text_content("#note")
    assert page.locator("#note").is_visible()
    assert page.locator("img").count() == 0
    assert page.locator("#grid-y .cell").count() > 0


# ---- 6 the keyboard ------------------------------------------------------------------------------


def test_everything_is_reached_by_tab(page, address):
    page.goto(address)
    page.keyboard.press("Tab")
    reached = []
    for _ in range(60):
        here = page.evaluate(
            """() => { const n = document.activeElement, grid = n.closest('[role=grid]');
            return grid ? grid.parentNode.id : n.id || n.dataset.control || n.value
                || n.dataset.sel || n.tagName + (n.parentNode.id || ''); }"""
        )
        if [here] == reached[:1] or here.startswith("BODY"):
            break
        reached.append(here)
        page.keyboard.press("Tab")
    for name in (
        *("collect", "back", "play", "next", "step", "speed", "copy", "svg", "png"),
        *("grid-x", "grid-w", "grid-y", "grid-m", "turn", "fs", "fp", "fd", "fo"),
        *("i1", "k1", "s1", "begin1", "d1", "extra1", "apart", "x", "w", "reset"),
        *("SUMMARYoverlap", "SUMMARYcode", "SUMMARYinverse"),
    ):
        assert name in reached, f"{name} is not among {reached}"
    for grid in ("grid-x", "grid-w", "grid-y", "grid-m"):
        assert reached.count(grid) == 1


def test_a_grid_is_walked_by_arrows_and_pinned_by_enter(page, address):
    page.goto(address)
    page.locator("#grid-y [tabindex='0']").focus()
    for keys, sel in (
        (["ArrowRight", "ArrowDown"], "o1,1"),
        (["Home"], "o1,0"),
        (["End"], "o1,2"),
        (["Control+End"], "o2,2"),
        (["ArrowRight"], "o2,2"),
        (["Control+Home"], "o0,0"),
    ):
        for key in keys:
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.sel") == sel
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("tconv.state().sel") == "o1,0"
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label == "output row 1 column 0, value 178, 2 contributions"
    page.wait_for_timeout(400)
    assert page.text_content("#live") == page.text_content("#equation")
    page.keyboard.press("Escape")
    assert page.evaluate("tconv.state().sel") == ""


@pytest.mark.parametrize("lens", ["stamp", "collect", "conv"])
def test_focus_stays_while_cells_are_drawn_again(page, address, lens):
    page.goto(address + f"#lens={lens}")
    page.locator("#grid-y [tabindex='0']").focus()
    for key, cell in (("ArrowRight", "o0,1"), ("ArrowDown", "o1,1"), ("ArrowLeft", "o1,0")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.sel") == cell
        name = f"y[{cell[1:]}] = "
        assert page.text_content("#equation").startswith(name)
        assert page.evaluate(FINAL)[4] == "500"  # what is pointed at is shown finished
    page.locator("#step").focus()
    page.wait_for_timeout(50)
    assert page.text_content("#equation").startswith("x[" if lens == "stamp" else "y[1,1]")


def test_steps_lenses_and_playing_by_keys(page, address):
    page.goto(address)
    page.locator("#step").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("tconv.state().step") == 6
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("1")
    assert page.evaluate("tconv.state().lens") == "stamp"
    page.keyboard.press("3")
    assert page.evaluate("tconv.state().lens") == "conv"
    page.keyboard.press("2")
    page.locator("#grid-x > :not(.away) [tabindex='0']").focus()
    page.keyboard.press("Space")
    assert "Pause" in page.text_content("#play")
    page.keyboard.press("Space")
    assert "Play" in page.text_content("#play")


def test_focus_moves_along_when_a_lens_shows_another_grid(page, address):
    page.goto(address + "#s=2")
    for place, sel in (("grid-x", "i1,0"), ("grid-y", "o2,1")):
        page.locator(f"#{place} > :not(.away) [data-sel='{sel}']").focus()
        for key in "1323":
            page.keyboard.press(key)
            here = page.evaluate(
                """() => { const cell = document.activeElement, grid = cell.closest('[role=grid]');
                return [cell.dataset.sel, grid.className, grid.parentNode.id]; }"""
            )
            assert here == [sel, "", place]
            assert page.locator(f"#{place} [role=grid]:not(.away)").count() == 1
            if key == "1":  # growing, and not looked at
                assert page.evaluate(FINAL).count("0") > 9


def test_lenses_of_many_cells_are_drawn_ahead_and_nobody_sees_it(page, address):
    explainer = tconv.explain([[1, 2, 3, 4, 5]] * 5, stride=4)
    page.goto("about:blank")
    page.goto(address + explainer.url_state())
    wait_until(page, "document.querySelectorAll('#grid-x > .away, #grid-y > .away').length === 2")
    assert page.evaluate("tconv.hash()") == explainer.url_state()
    output = page.locator("#grid-y > [role=grid]:not(.away)")
    assert output.get_attribute("aria-label") == "output"
    assert output.locator(".lit").count() == 1
    ends = page.evaluate(FINAL)
    for key in "13":
        page.keyboard.press(key)
        page.evaluate("document.getElementById('step').value = 9999")
        page.locator("#step").dispatch_event("input")
        assert page.evaluate(FINAL) == ends
    labels = page.locator("#grid-x > :not(.away) [data-sel]").evaluate_all(
        "all => all.map(cell => cell.ariaLabel)"
    )
    assert labels[:2] == [f"input row 0 column {n}, value {n + 1}" for n in (0, 1)]


def test_playing_ends_at_the_last_step(page, address):
    page.goto(address + "#step=7")
    page.select_option("#speed", "300")
    page.click("#play")
    wait_until(page, "tconv.state().step === 9")
    assert "Play" in page.text_content("#play")
    assert page.text_content("#equation") == "y[2,2] = 4·77 = 308"


@pytest.mark.parametrize("sel", ["o0,1", "i1,0", "k0,1", "m7,2"])
def test_focus_tells_what_hovering_tells(page, address, sel):
    page.goto(address)
    page.locator(f"[data-sel='{sel}']").hover()
    hovered = page.evaluate(LIT), page.text_content("#equation")
    page.mouse.move(1270, 790)
    assert page.evaluate(LIT) != hovered[0]
    page.locator(f"[data-sel='{sel}']").focus()
    assert (page.evaluate(LIT), page.text_content("#equation")) == hovered


def test_a_number_is_edited(page, address):
    page.goto(address)
    page.locator("#grid-x [data-sel='i0,0']").focus()
    page.keyboard.press("F2")
    page.keyboard.type("100")
    page.keyboard.press("Escape")
    assert page.evaluate("tconv.state().x[0][0]") == 37
    page.keyboard.press("F2")
    page.keyboard.type("100")
    page.keyboard.press("Enter")
    expected = tconv.explain([[100, 47], [67, 77]])
    assert page.evaluate("tconv.facts().equations") == expected.facts()["equations"]
    assert page.evaluate("document.activeElement.dataset.sel") == "i0,0"
    assert page.locator("#custom").is_visible()
    page.locator("#grid-w [data-sel='k1,1']").dblclick()
    page.keyboard.type("nonsense")
    page.keyboard.press("Enter")
    assert page.evaluate("tconv.state().w") == [[1, 2], [3, 4]]
    page.locator("#grid-w [data-sel='k1,1']").dblclick()
    page.keyboard.type("-2.5")
    page.keyboard.press("Enter")
    assert page.evaluate("tconv.state().w[1][1]") == -2.5


def test_a_control_offers_what_fits(page, address):
    page.goto(address)
    options = "id => [...document.querySelector(`[data-control=${id}]`).options].map(o => +o.value)"
    assert page.evaluate(options, "extra1") == [0]
    assert page.evaluate(options, "begin1") == [0, 1]  # 2 would leave nothing
    page.select_option("[data-control=s1]", "3")
    assert page.evaluate(options, "extra1") == [0, 1, 2]
    page.select_option("[data-control=extra1]", "2")
    assert page.evaluate(options, "s1") == [3, 4, 5]
    page.check("[data-control=apart]")
    page.select_option("[data-control=end0]", "2")
    assert page.evaluate("tconv.state().p") == [[0, 2], [0, 0]]
    assert not page.locator("#note").is_visible()


def test_labels_follow_what_is_seen_and_at_once_where_focus_is(page, address):
    page.goto(address + "#x=1,2,3&w=1,2&s=2")
    labels = """() => [...document.querySelectorAll('#grid-y > :not(.away) [data-sel]')].map(
        cell => [cell.dataset.sel, cell.firstChild.data, cell.ariaLabel])"""

    def right(found):
        for sel, value, label in found:
            row, column = sel[1:].split(",")
            place = f"output row {row} column {column}, " if sel[0] == "o" else "cropped cell, "
            assert label.startswith(f"{place}value {value}"), label

    for hash_ in ("#s=2", "#s=2&p=1", "#s=3&op=2&lens=stamp&step=2", FORM):
        page.evaluate("hash => tconv.set(hash)", hash_)
        page.wait_for_timeout(20)
        right(page.evaluate(labels))
    page.locator("#grid-y > :not(.away) [data-sel='o0,0']").focus()
    right(page.evaluate(f"hash => {{ tconv.set(hash); return ({labels})(); }}", "#p=1&s=2"))


# ---- 7 accessibility -----------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["light", "dark", "narrow", "all open", "narrow, all open"])
@pytest.mark.parametrize("hash_", ["", FORM + "&lens=conv"])
def test_axe_finds_nothing_serious(browser, address, state, hash_):
    scheme = "dark" if state == "dark" else "light"
    view = NARROW if "narrow" in state else WIDE
    with browser.new_context(viewport=view, color_scheme=scheme, bypass_csp=True) as context:
        opened = context.new_page()
        opened.goto(address + hash_)
        if "open" in state:
            opened.evaluate(OPEN)
        assert opened.evaluate("document.documentElement.scrollWidth") <= view["width"]
        found = Axe().run(opened).response["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not grave, json.dumps(
        [(g["id"], g["help"], [n["html"][:150] for n in g["nodes"][:3]]) for g in grave], indent=1
    )


# ---- 8 motion ------------------------------------------------------------------------------------


def test_nothing_moves_by_itself(browser, address):
    with browser.new_context(viewport=WIDE, reduced_motion="reduce") as context:
        opened = context.new_page()
        opened.clock.install()
        opened.goto(address)
        before = opened.evaluate("tconv.state()")
        opened.locator("#grid-y [data-sel='o0,0']").hover()
        assert opened.evaluate("document.getAnimations().length") == 0
        opened.clock.run_for(3000)
        assert opened.evaluate("tconv.state()") == before


# ---- 9 exports -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_", ["", FORM + "&lens=stamp&step=5"])
def test_the_page_exports_what_it_shows(page, address, tmp_path, hash_):
    page.goto(address + hash_)
    page.mouse.move(1270, 790)
    with page.expect_download() as kept:
        page.click("#svg")
    kept.value.save_as(tmp_path / "page.svg")
    source = (tmp_path / "page.svg").read_text("utf-8")
    root = ElementTree.fromstring(source)
    assert "href" not in source
    assert "url(" not in source
    assert root.find("{*}title").text == "Transposed convolution"
    assert page.text_content("#equation") in root.find("{*}desc").text
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for cell in page.locator("#grid-y .cell").all_text_contents():
        assert re.match(r"-?[\d.]+", cell)[0] in texts
    _, _, width, height = map(int, root.get("viewBox").split())
    with page.expect_download() as kept:
        page.click("#png")
    kept.value.save_as(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (2 * width, 2 * height)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
    OUT.mkdir(exist_ok=True)
    shutil.copy(
        tmp_path / "page.png", OUT / f"explainer-export-{'form' if hash_ else 'default'}.png"
    )


def test_copy_link_offers_the_link(page, address):
    page.goto(address + "#s=2")
    page.click("#copy")
    page.wait_for_timeout(100)
    field = page.locator("#link input")
    assert field.input_value().endswith("page.html#s=2")


# ---- 10 notebooks --------------------------------------------------------------------------------


def test_the_notebook_shows_the_page_in_a_frame(page):
    page.set_content(tconv.explain(stride=2)._repr_mimebundle_()["text/html"])
    frame = page.frame_locator("iframe")
    frame.locator("#grid-y [data-sel='o3,3']").hover()
    assert frame.locator("#equation").text_content() == "y[3,3] = 4·77 = 308"
    frame.locator("#copy").click()
    page.wait_for_timeout(100)
    assert frame.locator("#link input").input_value() == tconv.explain(stride=2).url_state()
    with page.expect_download():
        frame.locator("#svg").click()


def test_without_scripts_there_is_a_picture(browser, tmp_path):
    with browser.new_context(java_script_enabled=False, viewport=WIDE) as context:
        opened = context.new_page()
        # Chromium's switch does not reach into frames, so their own is turned off as well.
        html = tconv.explain()._repr_mimebundle_()["text/html"].replace("allow-scripts ", "")
        (tmp_path / "notebook.html").write_text(f"<!doctype html>{html}", "utf-8")
        opened.goto((tmp_path / "notebook.html").as_uri())
        opened.frame_locator("iframe").locator("svg").wait_for(state="visible", timeout=5000)
        assert not opened.frame_locator("iframe").locator("#figure").is_visible()
        opened.locator("summary").click()
        assert opened.locator("details > svg").is_visible()
        tconv.explain().save(tmp_path / "page.html")
        opened.goto((tmp_path / "page.html").as_uri())
        assert opened.locator("svg").is_visible()


# ---- 12 pictures for eyes ------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [WIDE, NARROW], ids=["wide", "narrow"])
def test_pictures_for_eyes(browser, address, scheme, view):
    OUT.mkdir(exist_ok=True)
    with browser.new_context(viewport=view, color_scheme=scheme) as context:
        opened = context.new_page()
        opened.goto(address)
        path = OUT / f"explainer-{view['width']}x{view['height']}-{scheme}.png"
        opened.screenshot(path=path)
    with Image.open(path) as picture:
        assert picture.size == (view["width"], view["height"])


def test_print_opens_everything_and_drops_controls(page, address):
    page.goto(address)
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("#controls").is_visible()
    assert page.locator("#equation").is_visible()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == 4
