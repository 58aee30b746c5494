"""The benchmark of gradients, halves and networks: answers are checked, losses are shown."""

import copy
import json
from math import prod

import numpy as np
import pytest
from test_bench import RESULTS, row

from bench.cases import PUBLISHED, UPCONV7, Case
from bench.examples import NETWORKS, Network, autoencoder, example, in_dtype, in_onnx
from bench.peers import as_array, operands
from bench.picture import as_text
from bench.report import page, ratios, summary
from bench.rounds import Limits
from bench.run import Part, installed, main, measure_examples, measure_part
from bench.server import TOLERANCES, Server, function_of, tolerance
from bench.wants import WANTS
from slow import mostly_slow
from tconv.arrays.dtypes import as_dtype
from tconv.nn.activations import LeakyReLU, ReLU
from tconv.nn.conv import Conv2d, ConvTranspose2d
from tconv.nn.layer import Sequential

CASES = [
    Case("plain", 2, 3, 4, (5, 3), 4, 2, 1, 0, 1, 1, "made up"),
    Case("left over", 1, 2, 3, (6,), 3, 3, 1, 2, 1, 1, "made up"),
    Case("a position left over", 2, 2, 4, (5, 4), 3, 1, 2, 1, 2, 2, "made up"),
    Case("depthwise", 1, 4, 4, (2, 3, 2), 2, 2, 0, 1, 1, 4, "made up"),
]
each_want = pytest.mark.parametrize("want", WANTS)
each_type = pytest.mark.parametrize("dtype", TOLERANCES)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

# ---- operands and answers ------------------------------------------------------------------------


@each_want
@each_case
def test_operands_are_the_same_whatever_is_wanted(want, case):
    geometry = case.geometry
    shapes = {"x": geometry.x_shape, "w": geometry.weight_shape, "y": geometry.y_shape}
    letters = {"y": "xw", "x": "yw", "w": "xy", "step": "xwy"}[want]
    found = operands(case, "float64", 5, want)
    assert [a.shape for a in found[: len(letters)]] == [shapes[letter] for letter in letters]
    x, weight, dy = operands(case, "float64", 5, "step")
    known = {"x": x, "w": weight, "y": dy}
    for letter, array in zip(letters, found, strict=False):
        assert np.array_equal(array, known[letter])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each_want
def test_the_halves_are_those_of_float32_rounded(want, dtype):
    wide, rounded = (operands(CASES[0], each, 2, want) for each in ("float32", dtype))
    for a, b in zip(wide, rounded, strict=True):
        assert b.dtype == as_dtype(np, dtype)
        assert np.array_equal(a.astype(b.dtype), b)


@each_case
@each_type
@each_want
def test_tconv_gives_the_answer_by_every_way(tmp_path, want, dtype, case):
    order = {"case": case, "dtype": dtype, "seed": 1, "want": want}
    functions, path = WANTS[want].contenders, str(tmp_path / "reference")
    Server(function_of(functions["portable"])).refer(**order, path=path)
    letters = WANTS[want].letters
    saved = [np.load(tmp_path / "reference" / f"{n}.npy") for n in range(len(letters))]
    assert [a.shape for a in saved] == [case.geometry.shape_of(letter) for letter in letters]
    for name in {"plan", "functional", "portable"} & set(functions):
        server = Server(function_of(functions[name]))
        ready = server.prepare(**order, threads=1, reference=path)
        # One rounding at the end: half a unit in the last place, and the sums before.
        assert ready["error"] <= max(TOLERANCES[dtype] / 4, 1e-6) * 1.01
        assert server.check() == ready["error"]


@each_case
def test_onnx_runtime_convolves_or_says_why_not(tmp_path, case):
    order = {"case": case, "dtype": "float32", "seed": 1, "want": "x"}
    functions, path = WANTS["x"].contenders, str(tmp_path / "reference")
    Server(function_of(functions["portable"])).refer(**order, path=path)
    server = Server(function_of(functions["onnx_conv"]))
    if case.a >= case.s:
        with pytest.raises(Exception, match="cells of y over"):
            server.prepare(**order, threads=1, reference=path)
    else:
        assert server.prepare(**order, threads=1, reference=path)["error"] < 1e-5


MADE_UP = """
from bench.gradients import portable_conv, portable_step
from bench.peers import as_array, portable

def wrong_gradient(case, arrays, threads):
    call = portable_step(case, arrays, threads)
    def wrong():
        y, dx, dw = call()
        return y, dx, dw * 1.001
    return wrong

def no_gradient(case, arrays, threads):
    call = portable_step(case, arrays, threads)
    return lambda: call()[:2]

def rounded_too_early(case, arrays, threads):
    return lambda: portable(case, arrays, threads)().astype("float16").astype("float32")

def rounded_too_coarsely(case, arrays, threads):
    from ml_dtypes import bfloat16
    return lambda: portable(case, arrays, threads)().astype(bfloat16).astype("float16")

def slow(case, arrays, threads):
    from time import sleep
    call = portable_conv(case, arrays, threads)
    calls = []
    def wait():
        calls.append(sleep(0.32))
        return call() + (len(calls) > 2)
    return wait
"""


@pytest.mark.parametrize(
    ("want", "dtype", "name", "reason"),
    [
        ("step", "float32", "wrong_gradient", "wrong: error"),
        ("step", "float32", "no_gradient", "argument 2 is longer"),
        ("y", "float32", "rounded_too_early", "wrong: error"),
        ("y", "float16", "rounded_too_coarsely", "wrong: error"),
        ("x", "float32", "slow", "not the second time: wrong: error"),
    ],
)
def test_no_wrong_gradient_is_timed(tmp_path, monkeypatch, want, dtype, name, reason):
    (tmp_path / "made_up_gradients.py").write_text(MADE_UP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    functions = {name: f"made_up_gradients:{name}"}
    part = Part("made up", CASES[:1], functions, dtype, want=want, limits=Limits(rounds=2))
    (found,) = measure_part(part, tmp_path)["rows"]
    assert reason in found["contenders"][name]["failed"]
    assert "us" not in found["contenders"][name]


# ---- a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("want", mostly_slow(WANTS, "step"))
def test_a_table_of_every_want_from_end_to_end(tmp_path, want):
    names = installed(["plan", "functional", "portable", "onnx_conv"], want)
    limits = Limits(rounds=2, slice_s=0.01)
    part = Part("made up", CASES[:2], names, want=want, limits=limits)
    found = json.loads(json.dumps(measure_part(part, tmp_path)))
    assert found["want"] == want
    for case, each in zip(part.cases, found["rows"], strict=True):
        assert each["flops"] == case.geometry.flops * (3 if want == "step" else 1)
        for result in each["contenders"].values():
            assert len(result["us"]) == 2
            assert 0 <= result["error"] < 1e-5
    text = page(RESULTS | {"parts": [found]})
    assert "| tconv, portable path | 2 |" in text
    assert "failed" not in text


def test_the_options_make_a_table_for_each_want(tmp_path, capsys):
    output = tmp_path / "a.json"
    words = "--want x w --dtype float64 --cases upconv7-1 --contenders functional --quick --output"
    main([*words.split(), str(output)])
    results = json.loads(output.read_text())
    assert [(part["want"], part["dtype"]) for part in results["parts"]] == [
        ("x", "float64"),
        ("w", "float64"),
    ]
    assert "Chosen, gradient of the weight: float64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--want w --contenders onnx_conv", "none of them computes the published, gradient of the"),
        ("--networks --bars a.svg", "no table to draw"),
    ],
)
def test_options_that_measure_nothing_are_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        main(words.split())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "products", "allowed"),
    [("float32", 9_000, 1e-5), ("float32", 80_000, 8e-5), ("float64", 50_000, 5e-12),
     ("float16", 80_000, 2**-9), ("bfloat16", 0, 2**-6)],
)  # fmt: skip
def test_longer_sums_may_be_further_off(dtype, products, allowed):
    assert tolerance(dtype, products) == pytest.approx(allowed)


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_published_outputs_are_short_sums(case):
    assert case.products("x") == case.M // case.G * case.K ** len(case.I)
    assert case.products("w") == case.N * prod(case.I)
    assert tolerance("float32", case.products("y")) == TOLERANCES["float32"]


def test_limits_end_what_is_slow(tmp_path):
    limits = Limits(rounds=4, slice_s=0, case_cap_s=0)
    part = Part("made up", CASES[:1], installed(["functional"], "x"), want="x", limits=limits)
    (found,) = measure_part(part, tmp_path)["rows"]
    assert len(found["contenders"]["functional"]["us"]) == 1


# ---- the report ----------------------------------------------------------------------------------


def gradient_part():
    """The published rows as gradients of x."""
    rows = [
        row("won", "1-D", None, 0.002, None),
        row("far", "3-D", None, 0.1, None),
        row("lost", "1-D", None, 0.003, None),
    ]
    for each, ours, theirs in zip(rows, (1e3, 1e3, 4e3), (5e2, 4e3, 4e3), strict=True):
        each["contenders"]["plan"] = {"error": 3e-7, "us": [[ours, 2 * ours]]}
        each["contenders"]["onnx_conv"] = {"error": 3e-7, "us": [[theirs, theirs]]}
    title = "published, convolution, or gradient of x"
    return {"title": title, "want": "x", "dtype": "float32", "threads": 2, "rows": rows}


def test_gradients_are_held_against_pytorch_and_losses_are_shown():
    part = gradient_part()
    assert ratios(part) == pytest.approx([2, 100, 0.75])
    text = page(RESULTS | {"parts": [part]})
    capped = (2 * 4 * 0.75) ** (1 / 3)
    assert f"| tconv, packed | PyTorch | 3 | {capped:.2f} |" in text
    assert "| tconv, packed | ONNX Runtime's Conv | 3 | 1.26 |" in text
    assert "| lost | 1×2 | 1-D | 1.000 | 4.00 | 250 | 3.00 | PyTorch | 0.75 |" in text
    assert "## Published, convolution, or gradient of x: float32, 2 threads" in text
    assert "slower in 1" in as_text(part)
    assert "0.75x" in as_text(part)


def test_a_result_without_wants_is_one_of_outputs():
    assert ratios(RESULTS["parts"][0]) == ratios(RESULTS["parts"][0] | {"want": "y"})


def test_the_halves_count_at_most_four_times():
    results = copy.deepcopy(RESULTS)
    results["parts"][0]["dtype"] = "bfloat16"
    assert f"| {(2 * 4 * 0.5 * 0.97) ** 0.25:.2f} |" in "\n".join(summary(results))


def test_networks_are_shown_by_step_with_what_failed():
    found = {"layers": {"error": 0, "us": [[46e3, 92e3]]}, "torch": {"error": 0, "us": [[23e3]]}}
    found["onnx"] = {"failed": "the weights are missing"}
    networks = [{"case": "training", "steps": 23, "others": 0.1, "contenders": found}]
    text = page(RESULTS | {"extras": {"networks": networks}})
    assert "| training | 2.00 | 1.00 | – | 0.50 | – | 0.33 | – | 0.1 |" in text
    assert "training, ONNX Runtime: the weights are missing." in text
    assert "## Small measurements" not in text


# ---- networks ------------------------------------------------------------------------------------


def small_network():
    return Sequential(
        Conv2d(3, 4, 3, stride=2, padding=1, rng=0),
        LeakyReLU(0.1),
        ConvTranspose2d(4, 5, 4, stride=2, padding=1, rng=1, bias=False),
        ReLU(),
        ConvTranspose2d(5, 3, 3, rng=2),
    )


@pytest.mark.parametrize("size", [(6, 8), (9, 5)])
def test_onnx_runtime_gets_the_same_network(size):
    network = small_network()
    x = np.random.default_rng(0).standard_normal((1, 3, *size), np.float32)
    found = in_onnx(network, 1).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, network.predict(x), rtol=0, atol=1e-5)


def test_a_network_in_another_type_has_the_same_values():
    network = small_network()
    double = in_dtype(network, "float64")
    assert {each.dtype for each in double.parameters()} == {np.dtype(np.float64)}
    for name, value in network.state_dict().items():
        assert np.array_equal(double.state_dict()[name], value)


def test_an_epoch_starts_anew_in_every_call():
    steps = NETWORKS["autoencoder"].steps
    single, double = (autoencoder(dtype, 1) for dtype in ("float32", "float64"))
    first = single()
    assert first.shape == (steps,)
    assert first[-1] < first[0]
    assert np.array_equal(first, single())
    np.testing.assert_allclose(first, double(), rtol=TOLERANCES["float32"])


MADE_UP_NETWORKS = """
import numpy as np

def layers(dtype, threads):
    return lambda: np.arange(1, 4).astype(dtype)

def wrong(dtype, threads):
    return lambda: np.arange(1, 4).astype(dtype) * np.float32(1.001)

def incomplete(dtype, threads):
    raise FileNotFoundError("its weights are missing")
"""


def test_networks_are_measured_or_say_what_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "made_up_networks.py").write_text(MADE_UP_NETWORKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("bench.run.PACKAGES", {})
    functions = {"some": ("layers", "wrong", "incomplete"), "gone": ("incomplete", "layers")}
    for name, (ours, *others) in functions.items():
        found = {"layers": ours} | {f"by {other}": other for other in others}
        paths = {each: f"made_up_networks:{function}" for each, function in found.items()}
        monkeypatch.setitem(NETWORKS, name, Network(name, 2, paths))
    some, gone = measure_examples(list(functions), tmp_path)
    assert some["contenders"]["layers"]["error"] == 0
    assert len(some["contenders"]["layers"]["us"]) == 2
    assert "wrong: error" in some["contenders"]["by wrong"]["failed"]
    assert "weights are missing" in some["contenders"]["by incomplete"]["failed"]
    assert {each["failed"] for each in gone["contenders"].values()} == {"its weights are missing"}


def test_the_cases_of_the_photo_are_the_convolutions_of_its_network():
    module = example("double_photo")
    size = 64 + 2 * module.MARGIN
    for case, (given, made) in zip(
        UPCONV7, zip(module.CHANNELS, module.CHANNELS[1:], strict=False), strict=True
    ):
        layer = Conv2d(given, made, 3)
        assert case.geometry.y_shape == (1, given, size, size)
        size -= 2
        assert case.x_shape == (1, made, size, size)
        assert case.weight_shape == layer.weight.shape
    assert not {case.name for case in UPCONV7} & {case.name for case in PUBLISHED}


def test_an_array_is_one_already():
    array = np.ones(3)
    assert as_array(array) is array
