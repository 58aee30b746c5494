"""Changes by hand on the explainer's page: numbers as people type them, sizes, and the way back."""

import numpy as np
import pytest

import tconv


def typed(page, words, key="Enter", cell="#grid-x [data-sel='i0,0']"):
    page.locator(cell).dblclick()
    page.keyboard.press("Control+a")
    page.keyboard.press("Backspace")
    page.keyboard.type(words)
    page.keyboard.press(key)


def first(page):
    return page.evaluate("tconv.state().x[0][0]")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("1/2", 0.5), ("1,5", 1.5), ("+3", 3), ("\u22122", -2), (" 4 ", 4), ("-1/4", -0.25),
        (".5", 0.5), ("1 000", 1000), ("0,125", 0.125), ("2e-3", 0.002), ("1/3", 1 / 3),
        ("\u22121,25", -1.25),
        ("12,50", 12.5), ("+1/+2", 0.5),
    ],
)  # fmt: skip
def test_numbers_as_people_type_them(page, address, words, value):
    page.goto(address)
    typed(page, words)
    assert first(page) == value
    assert not page.locator("#note").is_visible()
    assert page.locator("#grid-x input").count() == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("1,500", "1,500 may be 1.5"), ("", "an empty cell"), ("abc", "abc is no number"),
        ("1/0", "divides by 0"), ("1/2/3", "is no number"), ("1e999", "float64"),
        ("--1", "is no number"), ("1.2.3", "is no number"), ("0x10", "is no number"),
        ("1/", "is no number"),
    ],
)  # fmt: skip
def test_what_is_no_number_says_why_and_can_be_mended(page, address, words, why):
    page.goto(address)
    typed(page, words)
    assert why in page.text_content("#note")
    field = page.locator("#grid-x input")
    assert field.get_attribute("aria-invalid") == "true"
    assert first(page) == 37
    page.keyboard.press("Control+a")
    page.keyboard.type("5")
    page.keyboard.press("Enter")
    assert first(page) == 5
    assert not page.locator("#note").is_visible()
    typed(page, words)
    page.keyboard.press("Escape")
    assert first(page) == 5
    assert field.count() == 0


PATTERNS = {  # an array, and the same one column and one row larger
    "1…n": ([[1, 2], [3, 4]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
    "ones": ([[1, 1], [1, 1]], np.ones((3, 3))),
    "a constant": ([[7, 7], [7, 7]], np.full((3, 3), 7)),
    "impulse": ([[0, 0], [0, 1]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    "equal steps": ([[37, 47], [67, 77]], [[37, 47, 57], [67, 77, 87], [97, 107, 117]]),
    "anything else": ([[1, 5], [0, 2]], [[1, 5, 1], [0, 2, 0], [1, 5, 1]]),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_an_array_that_grows_continues_its_pattern(page, address, name):
    small, large = (np.array(each) for each in PATTERNS[name])
    page.goto(address + tconv.explain(small.astype(float), [[1.0, 2], [3, 4]]).url_state())
    page.select_option("[data-control=i1]", "3")
    np.testing.assert_array_equal(page.evaluate("tconv.state().x"), large)
    page.select_option("[data-control=i1]", "2")
    assert len(page.evaluate("tconv.state().x")) == 2


def test_a_bilinear_kernel_stays_bilinear(page, address):
    page.goto(address + "#s=2")
    page.select_option("[data-control=k1]", "3")
    page.select_option("[data-control=w]", "bilinear")
    page.select_option("[data-control=k1]", "4")
    expected = tconv.init_bilinear((1, 1, 4, 4), stride=2)[0, 0]
    np.testing.assert_array_equal(page.evaluate("tconv.state().w"), expected)


def back(page):
    page.wait_for_timeout(300)  # an address is written within 200 ms
    page.go_back()
    page.wait_for_timeout(200)


def test_back_leads_to_the_state_before(page, address):
    page.goto(address)
    page.wait_for_timeout(300)
    start = page.evaluate("tconv.hash()")
    page.select_option("[data-control=s1]", "2")
    page.locator("#lenses [value=stamp]").check(force=True)  # before the address is written
    for _ in range(3):
        page.locator("#next").click()
    typed(page, "5")
    assert page.evaluate("[tconv.state().s[0], tconv.state().lens]") == [2, "stamp"]
    seen = []
    for _ in range(4):
        back(page)
        state = page.evaluate("tconv.state()")
        seen.append((state["x"][0][0], state["lens"], state["step"], state["s"]))
    assert seen[0] == (37, "stamp", 4, [2, 2])
    assert seen[1] == (37, "stamp", 1, [2, 2])
    assert seen[2][1:] == ("collect", seen[2][2], [2, 2])
    assert page.evaluate("tconv.hash()") == start
    page.go_forward()
    page.wait_for_timeout(200)
    assert page.evaluate("tconv.state().s") == [2, 2]


def test_many_steps_are_one_entry(page, address):
    page.goto(address)
    page.wait_for_timeout(300)
    before = page.evaluate("history.length")
    for _ in range(3):
        page.locator("#next").click()
        page.wait_for_timeout(250)
    assert page.evaluate("history.length") == before + 1


def test_boxes_of_padding_are_named_and_why_only_0_fits_is_said(page, address):
    page.goto(address)
    extra = page.locator("[data-control=extra1]")
    assert "only 0 fits" in extra.get_attribute("title")
    assert extra.locator("option").all_text_contents() == ["0 (s = d = 1)"]
    page.select_option("[data-control=s1]", "2")
    assert "only 0 fits" not in extra.get_attribute("title")
    assert extra.locator("option").all_text_contents() == ["0", "1"]
    page.locator("[data-control=apart]").check()
    named = {
        page.locator(f"label:has([data-control={key}])").inner_text().split()[0]
        for key in ("begin0", "end0", "begin1", "end1")
    }
    assert named == {"top", "bottom", "left", "right"}
