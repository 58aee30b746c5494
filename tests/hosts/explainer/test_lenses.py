"""The lenses "Channels" and "Picture" in a browser: the numbers of Python, and all ways to them."""

import base64
import io
import json
import random
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

import tconv
from tconv.errors import ParameterError, ShapeError
from tconv.explainer.picture import landscape

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HALL = {"width": 1920, "height": 1080}
THREE = "#s=2&c=3x3&lens=channels"


def drawn(count, seed=5):
    """Explainers with channels, of both ranks, with fractions and negative numbers."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        rank, ins, outs = (int(rng.integers(1, high)) for high in (3, 4, 4))
        x = rng.integers(-40, 40, (ins, *rng.integers(1, 5, rank))) / 4
        w = rng.standard_normal((ins, outs, *rng.integers(1, 4, rank)))
        settings = {
            "stride": rng.integers(1, 4, rank).tolist(),
            "padding": rng.integers(0, 2, (rank, 2)).tolist(),
            "dilation": rng.integers(1, 3, rank).tolist(),
        }
        try:
            found.append(tconv.explain(x, w, **settings))
        except (ParameterError, ShapeError):
            continue
    return found


# ---- the same as Python --------------------------------------------------------------------------


def test_channels_have_the_numbers_of_python(page, address, tmp_path):
    page.goto(address)
    for explainer in drawn(40):
        link = explainer.url_state()
        channels, hash_, fits = page.evaluate(
            """hash => { tconv.set(hash);
                const {x, w, parts, y} = tconv.channels();
                const {hidden} = document.getElementById('note');
                return [{x, w, parts, y}, tconv.hash(), hidden]; }""",
            link,
        )
        assert fits, link
        assert hash_ == link
        expected = json.loads(json.dumps(explainer.facts()["channels"]))
        assert channels == {name: expected[name] for name in ("x", "w", "parts", "y")}, link
    for n, explainer in enumerate(drawn(4, seed=6)):  # and those that a page starts with
        explainer.save(tmp_path / f"{n}.html")
        page.goto((tmp_path / f"{n}.html").as_uri())
        assert page.evaluate("tconv.hash()") == ""
        expected = json.loads(json.dumps(explainer.facts()["channels"]))
        assert page.evaluate("tconv.channels().y") == expected["y"]


def test_every_sum_of_channels_is_told_as_python_tells_it(page, address):
    page.goto(address)
    small = [each for each in drawn(9, seed=7) if max(each.facts()["output_size"]) <= 12]
    assert len(small) > 4
    for explainer in [tconv.explain(lens="channels"), *small]:
        page.evaluate("hash => tconv.set(hash)", explainer.url_state())
        told = page.evaluate(
            """() => [...document.querySelectorAll('#channels .panel:not([hidden]) [id^=grid-y]')]
                .map(grid => [...grid.querySelectorAll('[data-sel]')].map(cell => {
                    cell.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));
                    const sum = document.getElementById('equation');
                    return sum.title || sum.textContent; }))"""
        )
        assert told == explainer.facts()["channels"]["equations"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"w": np.ones((4, 4)), "padding": 1},
        {"w": np.ones((2, 2))},
        {"w": [[0.25, -1, 3]], "stride": (1, 3), "padding": ((0, 0), (1, 2))},
        {"w": np.ones((7, 7)), "stride": 5, "dilation": 2},
    ],
)
def test_the_picture_has_the_numbers_of_python(page, address, tmp_path, settings):
    explainer = tconv.explain(**settings, lens="picture")
    expected = json.loads(json.dumps(explainer.facts()))
    page.goto(address + explainer.url_state())
    explainer.save(tmp_path / "page.html")
    for shown, hash_ in ((address, explainer.url_state()), ((tmp_path / "page.html").as_uri(), "")):
        page.goto("about:blank")
        page.goto(shown + hash_)
        found = page.evaluate("tconv.facts()")
        assert not page.locator("#note").is_visible()
        assert page.evaluate("tconv.hash()") == hash_
        for name in ("ripple", "ripple_db"):
            mine, theirs = found.pop(name), expected.get(name)
            assert mine == theirs or mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
        assert found == {name: expected[name] for name in found}


def pixels(page, name):
    data = page.evaluate(
        "name => document.querySelector(`#pixels-${name} canvas`).toDataURL()", name
    )
    image = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    return np.asarray(image.convert("RGB"), np.int64)


def test_the_canvases_show_the_numbers_as_greys(page, address):
    page.goto(address + "#lens=picture")
    y = np.array(page.evaluate("tconv.facts().y"), float)
    for name, numbers in (("i", landscape()), ("o", y)):
        found = pixels(page, name)
        assert np.abs(found - 255 * (numbers / numbers.max())[..., None]).max() <= 1
    page.check("#laid")
    tinted, counts = pixels(page, "o"), np.array(page.evaluate("tconv.facts().counts"))
    tint = tinted[..., 0] - tinted[..., 2]  # of orange
    assert [len(set(tint[counts == n])) <= 2 for n in (1, 2, 4)] == [True] * 3
    means = [tint[counts == n].mean() for n in (1, 2, 4)]
    assert means == sorted(means)
    assert means[2] > 2 * means[0] > 0


# ---- links, steps and selections -----------------------------------------------------------------


@pytest.mark.parametrize(
    "hash_",
    [
        "#lens=channels&sel=o1,1,1", THREE + "&step=30&sel=i0,1,2", THREE + "&sel=k1,0,2,1",
        "#c=1x3&xc=&lens=channels" , "#xc=1,2;3,4&lens=channels",
        "#c=2x1&wc=5,6;7,8&lens=channels&step=2", "#lens=picture&sel=o40,41",
        "#s=1&lens=picture", "#w=1,1,1,1;1,2,2,1;1,2,2,1;1,1,1,1&lens=picture&step=7",
        "#lens=picture&sel=i47,0",
    ],
)  # fmt: skip
def test_a_link_restores_the_state(page, address, hash_):
    page.goto(address + hash_)
    if "xc=&" in hash_:
        assert "xc is not as it should be" in page.text_content("#note")
        return
    assert not page.locator("#note").is_visible()
    assert page.evaluate("tconv.hash()") == hash_
    state = page.evaluate("tconv.state()")
    page.reload()
    assert page.evaluate("tconv.state()") == state


def fuzzed(rng):
    keys = ["x", "w", "s", "c", "xc", "wc", "lens", "lens", "step", "sel"]
    values = [
        *("channels", "picture", "3x3", "4x1", "0x2", "1|2", "1,2;3,4|5", "|", "1,NaN", "9999"),
        *("o0,0,9", "k0,0,0", "k0,0,2,2", "i1,1,1", "o47,47", "o96,96", "m1,1", "o0,0,1,1", "1x3"),
        *("<img src=x onerror=alert(1)>", "1e999|1", "constructor", "__proto__", "2", "1,1;1,1"),
    ]
    return "#" + "&".join(
        f"{rng.choice(keys)}={rng.choice(values)}" for _ in range(rng.randint(1, 6))
    )


def test_no_link_breaks_the_page(page, address):
    page.goto(address)
    rng = random.Random(4)
    hashes = [fuzzed(rng) for _ in range(150)]
    seen = page.evaluate(
        """hashes => hashes.map(hash => { tconv.set(hash);
            const first = tconv.hash(); tconv.set(first || '#');
            return [document.querySelectorAll('img').length, first, tconv.hash()]; })""",
        hashes,
    )
    for hash_, (images, first, again) in zip(hashes, seen, strict=True):
        assert images == 0
        assert again == first, hash_


def test_the_same_state_is_seen_in_every_lens(page, address):
    page.goto(address + "#s=2")
    before = page.evaluate("tconv.facts()")
    for key in "4541235":
        page.keyboard.press(key)
    assert page.evaluate("tconv.state().lens") == "picture"
    page.keyboard.press("2")
    assert page.evaluate("tconv.facts()") == before
    assert page.evaluate("tconv.hash()") == "#s=2"


def test_the_kernel_that_the_picture_begins_with_goes_with_it(page, address):
    page.goto(address)
    page.check("input[value=picture]", force=True)
    assert page.evaluate("tconv.state().w") == [[1, 1, 1]] * 3
    assert page.evaluate("tconv.hash()") == "#lens=picture"
    page.check("input[value=collect]", force=True)
    assert page.evaluate("tconv.hash()") == ""
    page.check("input[value=picture]", force=True)
    page.get_by_role("button", name="K=4, s=2: even").click()
    page.check("input[value=stamp]", force=True)
    assert page.evaluate("tconv.state().w") == [[1] * 4] * 4  # as the reader chose it


def test_the_offered_kernels(page, address):
    page.goto(address + "#lens=picture")
    for name, even in (("K=4, s=2: even", True), ("K=2, s=2: even", True), ("K=3, s=2", False)):
        page.get_by_role("button", name=name).click()
        assert page.evaluate("tconv.facts().even") == [even, even]
        assert ("uneven" in page.text_content("#hint-y")) != even
    page.get_by_role("button", name="bilinear").click()
    assert page.evaluate("tconv.facts().ripple") == 0
    page.get_by_role("button", name="K=4, s=2: even").click()
    assert page.evaluate("tconv.state().w[0]") == [0.0625, 0.1875, 0.1875, 0.0625]
    page.get_by_role("button", name="random").click()
    assert len(set(np.ravel(page.evaluate("tconv.state().w")).tolist())) > 3


def test_stepping_goes_through_all_channels(page, address):
    page.goto(address + "#lens=channels&step=9")
    page.click("#next")
    assert page.text_content("#equation").startswith("y[1,0,0] = ")
    assert page.text_content("#title-p0") == "y[1] = part 0"
    assert page.text_content("#title-p1") == "+ part 1"
    assert page.text_content("#title-y1") == "= Output y[1]"
    assert "row 9 of (W*)ᵀ (18×8)" in page.text_content("#contributions")
    page.evaluate("document.getElementById('step').value = 18")
    page.locator("#step").dispatch_event("input")
    assert page.text_content("#equation").startswith("y[1,2,2] = ")
    assert page.text_content("#count") == "18/18"


LIT = """() => Object.fromEntries([...document.querySelectorAll('#channels .panel:not([hidden])')]
    .map(panel => [panel.lastChild.id.slice(5),
        [...panel.querySelectorAll('.lit')].map(cell => cell.dataset.sel)])
    .filter(([_, lit]) => lit.length))"""


@pytest.mark.parametrize(
    ("sel", "lit"),
    [
        ("o0,1,1", {"x0": 2, "x1": 2, "w0-1": 2, "w1-1": 2, "p0": 1, "p1": 1, "y1": 1}),
        ("i0,1,1", {"x1": 1, "w1-0": 4, "w1-1": 4, "p1": 4, "y0": 4, "y1": 4}),
        ("k1,0,0,1", {"x0": 4, "w0-1": 1, "p0": 4, "y1": 4}),
    ],
)
def test_what_belongs_together_is_lit(page, address, sel, lit):
    page.goto(address + "#lens=channels")
    page.locator(f"#channels [data-sel='{sel}']").first.hover()
    assert {name: len(cells) for name, cells in page.evaluate(LIT).items()} == lit


def test_numbers_of_channels_are_edited(page, address):
    page.goto(address + "#lens=channels")
    page.locator("[data-sel='i0,0,1']").dblclick()
    page.keyboard.type("100")
    page.keyboard.press("Enter")
    assert page.evaluate("tconv.channels().x[1]") == [[100, 3], [5, 7]]
    page.locator("[data-sel='k1,1,1,0']").focus()
    page.keyboard.press("F2")
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    assert page.evaluate("tconv.channels().w[1][0]") == [[1, 2], [3, 9]]
    assert page.evaluate("document.activeElement.dataset.sel") == "k1,1,1,0"
    hash_ = page.evaluate("tconv.hash()")
    x, w = (np.array(page.evaluate(f"tconv.channels().{name}")) for name in "xw")
    assert hash_ == tconv.explain(x, w).url_state()


def test_growing_arrays_and_channels(page, address):
    page.goto(address + "#lens=channels")
    page.select_option("[data-control=c0]", "3")
    page.select_option("[data-control=c1]", "1")
    page.select_option("[data-control=k1]", "3")
    page.select_option("[data-control=i1]", "3")
    x, w = (np.array(page.evaluate(f"tconv.channels().{name}")) for name in "xw")
    assert (x.shape, w.shape) == ((3, 3, 3), (3, 1, 3, 3))
    y = tconv.conv_transpose(x[None].astype(float), w.astype(float))[0]
    assert np.array_equal(page.evaluate("tconv.channels().y"), y)
    page.select_option("[data-control=x]", "ones")
    page.select_option("[data-control=w]", "ones")
    assert page.evaluate("tconv.channels().y[0][1][1]") == 12


def test_the_code_names_the_channels(page, address):
    page.goto(address + "#c=2x3&lens=channels")
    page.click("#code summary")
    assert "(2, 3, …)" in page.text_content("#code .hint")
    assert "Conv2DTranspose(\n    3, (2, 2)" in page.text_content("#code .body")


# ---- the keyboard and the pointer ----------------------------------------------------------------


def test_a_canvas_is_walked_by_arrows_and_pinned_by_enter(page, address):
    page.goto(address + "#lens=picture")
    page.locator("#pixels-o canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.text_content("#equation").startswith("y[49,49] = ")
    page.keyboard.press("Enter")
    assert page.evaluate("tconv.state().sel") == "o49,49"
    page.keyboard.press("Escape")
    page.locator("#pixels-i canvas").focus()
    page.keyboard.press("ArrowLeft")
    assert page.text_content("#equation").startswith("x[")
    for _ in range(60):
        page.keyboard.press("ArrowLeft")
    assert ",0] = " in page.text_content("#equation")


def test_a_pixel_pointed_at_is_told_and_enlarged(page, address):
    page.goto(address + "#lens=picture")
    box = page.locator("#pixels-o canvas").bounding_box()
    scale = box["width"] / 97
    page.mouse.move(box["x"] + 20.5 * scale, box["y"] + 60.5 * scale)
    assert page.text_content("#equation").startswith("y[60,20] = ")
    assert page.locator("#grid-z .lit").get_attribute("data-sel") == "o60,20"
    assert page.locator("#grid-z .cell").count() == 49
    facts = page.evaluate("[tconv.facts().counts[60][20], tconv.facts().y[60][20]]")
    assert page.locator("#grid-z .lit").get_attribute("data-tap") == f"{facts[0]}×"
    assert page.locator("#grid-n .lit").count() == facts[0]
    page.mouse.click(box["x"] + 20.5 * scale, box["y"] + 60.5 * scale)
    page.mouse.move(5, 5)
    assert page.evaluate("tconv.state().sel") == "o60,20"
    zoomed = page.locator("#grid-z [data-sel]").first.get_attribute("data-sel")
    page.locator("#grid-z [data-sel]").nth(3).hover()
    assert page.locator("#grid-z [data-sel]").first.get_attribute("data-sel") == zoomed


def test_everything_of_a_lens_is_reached_by_tab(page, address):
    for hash_, wanted in (
        ("#lens=picture", ["pixels-i", "pixels-o", "grid-w", "grid-z", "grid-n", "laid"]),
        ("#lens=channels", ["c0", "c1", "grid-x0", "grid-x1", "grid-w1-1", "grid-p0", "grid-y1"]),
    ):
        page.goto("about:blank")
        page.goto(address + hash_)
        reached = []
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    """() => { const n = document.activeElement, grid = n.closest('[role=grid]');
                    return (grid || n.matches('canvas') ? (grid || n).parentNode.id : n.id)
                        || n.dataset.control || n.textContent; }"""
                )
            )
        for name in wanted:
            assert name in reached, f"{name} is not among {reached}"
        assert "grid-m" not in reached


# ---- accessibility, size and export --------------------------------------------------------------


@pytest.mark.parametrize("state", ["light", "dark", "narrow", "all open", "narrow, all open"])
@pytest.mark.parametrize("hash_", [THREE + "&sel=o1,1,2", "#lens=picture"])
def test_axe_finds_nothing_serious(browser, address, state, hash_):
    scheme, view = "dark" if state == "dark" else "light", NARROW if "narrow" in state else WIDE
    with browser.new_context(viewport=view, color_scheme=scheme, bypass_csp=True) as context:
        opened = context.new_page()
        opened.goto(address + hash_)
        if "open" in state:
            opened.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert opened.evaluate("document.documentElement.scrollWidth") <= view["width"]
        found = Axe().run(opened).response["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not grave, json.dumps(
        [(g["id"], g["help"], [n["html"][:150] for n in g["nodes"][:3]]) for g in grave], indent=1
    )


@pytest.mark.parametrize("view", [WIDE, HALL], ids=["1280", "1920"])
@pytest.mark.parametrize("hash_", ["#lens=channels", THREE, "#lens=picture"])
def test_figure_and_sum_fit_the_screen(browser, address, view, hash_):
    with browser.new_context(viewport=view) as context:
        opened = context.new_page()
        opened.goto(address + hash_)
        box = opened.locator("#equation").bounding_box()
        assert box["y"] + box["height"] <= view["height"]
        for node in opened.locator("#figure .cell:visible, canvas:visible").all()[::7]:
            place = node.bounding_box()
            assert place["x"] >= 0
            assert place["x"] + place["width"] <= view["width"]
            assert place["y"] + place["height"] <= box["y"]
        assert opened.evaluate("document.documentElement.scrollWidth") <= view["width"]


@pytest.mark.parametrize("width", [390, 600, 660, 794, 1024])
def test_channels_need_no_scroll_bar(browser, address, width):
    """Where the outputs do not fit beside the kernels, they stand below them."""
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        opened = context.new_page()
        for hash_ in ("#lens=channels", THREE, "#w=1,2,3;4,5,6;7,8,9&s=3&c=3x3&lens=channels"):
            opened.goto("about:blank")
            opened.goto(address + hash_)
            widths = opened.evaluate(
                """() => { const {scrollWidth, clientWidth} = document.getElementById('channels');
                return [scrollWidth, clientWidth]; }"""
            )
            assert widths[0] == widths[1]


@pytest.mark.parametrize("hash_", ["#lens=channels", "#lens=picture"])
def test_the_page_exports_what_it_shows(page, address, tmp_path, hash_):
    page.goto(address + hash_)
    with page.expect_download() as kept:
        page.click("#svg")
    kept.value.save_as(tmp_path / "page.svg")
    root = ElementTree.fromstring((tmp_path / "page.svg").read_text("utf-8"))
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for cell in page.locator("#figure .cell:visible").all()[::5]:
        assert cell.evaluate("cell => cell.firstChild.data") in texts
    images = root.findall(".//{http://www.w3.org/2000/svg}image")
    assert len(images) == (2 if "picture" in hash_ else 0)
    assert all(image.get("href").startswith("data:image/png;base64,") for image in images)
    with page.expect_download() as kept:
        page.click("#png")
    kept.value.save_as(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_the_pixels_stay_sharp(page, address):
    page.goto(address + "#lens=picture")
    shot = Image.open(io.BytesIO(page.locator("#pixels-o canvas").screenshot())).convert("L")
    scale = shot.width // 97
    grey, found = np.array(page.evaluate("tconv.facts().y"), float), np.asarray(shot, float)
    centres = found[scale // 2 :: scale, scale // 2 :: scale][:97, :97]
    assert np.abs(centres - 255 * grey / grey.max())[:40, :40].max() < 3


def test_of_large_outputs_of_channels_a_part_is_shown_that_follows(page, address):
    rows = ";".join([",".join("12345678")] * 8)
    page.goto(address + f"#x={rows}&s=4&lens=channels")
    assert page.evaluate("tconv.facts().output_size") == [30, 30]
    cells = page.locator("#grid-y0 > :not(.away) > *")
    assert cells.count() == 12
    for sel in ("o0,0,1", "o29,29,0", "o15,3,1"):
        page.evaluate("hash => tconv.set(hash)", page.evaluate("tconv.hash()") + f"&sel={sel}")
        row, column, m = sel[1:].split(",")
        lit = page.locator(f"#grid-y{m} .lit")
        assert lit.get_attribute("data-sel") == sel
        value = page.evaluate(f"tconv.channels().y[{m}][{row}][{column}]")
        assert lit.evaluate("cell => cell.firstChild.data") == str(value)
        assert "of 30×30" in page.text_content(f"#title-y{m}")
