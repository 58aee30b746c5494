"""Claims of the documentation that no example runs, tried as a reader would try them."""

import os
import pickle
import re
import subprocess
import sys
import tomllib

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper
from onnx.reference import ReferenceEvaluator
from quotations import ROOT, check_quotation, claims, text_of

import tconv
import tconv.onnx
from onnx_graphs import by_onnx_runtime, model_of
from strategies import integers_like


@pytest.fixture(autouse=True)
def claim(request):
    """What the page of a test says, in words that it has to have."""
    check_quotation(*request.param)


def run(*words, folder=ROOT):
    """Run a command of Python in a process of its own, inside a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def documents():
    """All pages, with their paths below the root."""
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        yield page.relative_to(ROOT).as_posix(), page.read_text("utf-8")


# ---- what the operation is -----------------------------------------------------------------------


@claims("docs/transposed_convolution.md", "turn the kernel by 180°, and slide it with stride 1")
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(2, 1, 1), (3, 0, 1), (2, 2, 2)])
def test_zeros_a_border_a_turned_kernel_and_stride_1_give_the_same(stride, padding, dilation):
    x, w = integers_like((4, 3), "float64", 1), integers_like((3, 3), "float64", 2)
    spaced = np.zeros([(n - 1) * stride + 1 for n in x.shape])
    spaced[::stride, ::stride] = x
    bordered = np.pad(spaced, dilation * (3 - 1) - padding)
    reach = dilation * (3 - 1) + 1
    windows = sliding_window_view(bordered, (reach, reach))[..., ::dilation, ::dilation]
    by_windows = np.sum(windows * w[::-1, ::-1], axis=(2, 3))
    how = {"stride": stride, "padding": padding, "dilation": dilation}
    np.testing.assert_array_equal(
        tconv.conv_transpose(x[None, None], w[None, None], **how)[0, 0], by_windows
    )


@claims(
    "docs/transposed_convolution.md",
    "when a kernel of 2 is stamped with stride 2, and no copies overlap",
)
def test_stamps_that_do_not_overlap_are_a_kronecker_product():
    x, w = integers_like((2, 2), "float64", 1), integers_like((2, 2), "float64", 2)
    y = tconv.conv_transpose(x[None, None], w[None, None], stride=2)[0, 0]
    assert y.shape == (4, 4)
    np.testing.assert_array_equal(y, np.kron(x, w))


@claims("docs/definition.md", "With stride 2 and a kernel of 3, it maps both 9 and 10 cells to 4.")
def test_a_convolution_maps_two_sizes_to_one():
    w = np.ones((1, 1, 3))
    sizes = {n: tconv.conv(np.ones((1, 1, n)), w, stride=2).shape[-1] for n in (8, 9, 10, 11)}
    assert sizes == {8: 3, 9: 4, 10: 4, 11: 5}


@claims("docs/conventions.md", "`plan` has no such keyword: pack `weight.conj()`.")
def test_a_plan_of_the_adjoint_packs_the_conjugate():
    rng = np.random.default_rng(0)
    y, w = (rng.integers(-4, 5, s) + 1j * rng.integers(-4, 5, s) for s in ((2, 4, 9), (3, 4, 5)))
    x_shape = (2, 3, 3)
    call = tconv.plan(x_shape, w.shape, stride=2, want="x", dtype="complex128")
    with pytest.raises(TypeError, match="conjugate"):
        tconv.plan(x_shape, w.shape, stride=2, want="x", conjugate=True)
    found = call(y, call.pack(w.conj()))
    np.testing.assert_array_equal(found, tconv.conv(y, w, stride=2, conjugate=True))
    assert not np.array_equal(found, tconv.conv(y, w, stride=2))


@claims("docs/conventions.md", "gives 77, 254 and 167 where `renormalise` gives 78, 255 and 168.")
def test_code_that_truncates_shows_other_levels():
    picture = np.array([[37, 121, 94], [178, 500, 342], [201, 499, 308]])
    truncated = (255 * (picture - 37) / (500 - 37 + 1e-5)).astype(np.uint8)
    shown = tconv.images.renormalise(picture, "minmax")
    places = ([1, 1, 1], [0, 1, 2])
    assert truncated[places].tolist() == [77, 254, 167]
    assert shown[places].tolist() == [78, 255, 168]


@claims("docs/volumes.md", "an interpolating kernel darkens the border", "`padding=3` instead of 1")
def test_outermost_cells_that_are_repeated_keep_the_border_bright():
    x = np.full((1, 1, 5, 6, 7), 8.0)
    w = tconv.init_bilinear((1, 1, 4, 4, 4), stride=2)
    dark = tconv.conv_transpose(x, w, stride=2, padding=1)
    repeated = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1)], "edge")
    bright = tconv.conv_transpose(repeated, w, stride=2, padding=3)
    assert dark.shape == bright.shape == (1, 1, 10, 12, 14)
    assert (dark[..., 1:-1, 1:-1, 1:-1] == 8).all()
    assert dark[0, 0, 0].max() == 6
    assert (bright == 8).all()


# ---- how it is computed --------------------------------------------------------------------------


@claims(
    "docs/algorithms.md",
    "nearly a quarter of them for 4 x 4 cells, kernel 4 and stride 2",
    "nearly a quarter of all products of a 4 × 4 image",
)
def test_a_quarter_of_the_products_of_a_small_image_are_by_zeros():
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 4, 4))
    y = tconv.conv_transpose(x, w, stride=2, padding=1)  # each output counts its cells of x
    taps_of_a_phase = w.size // 4
    by_zero = 1 - y.sum() / (y.size * taps_of_a_phase)
    assert y.shape == (1, 1, 8, 8)
    assert 0.2 < by_zero < 0.25


@claims("docs/algorithms.md", "does not own its data, so it cannot be resized in place.")
def test_a_large_result_does_not_own_its_data():
    w = np.ones((1, 1, 1), np.float32)
    large = tconv.conv_transpose(np.ones((1, 1, 2**22), np.float32), w)
    small = tconv.conv_transpose(np.ones((1, 1, 2**10), np.float32), w)
    assert not large.flags.owndata
    with pytest.raises(ValueError, match="does not own its data"):
        large.resize((2**23,))
    assert small.flags.owndata


# ---- ONNX ----------------------------------------------------------------------------------------


X = integers_like((1, 4, 5), "float32", 1)


@claims("docs/onnx.md", "which is wrong for groups, and for a bias with depthwise weights")
@pytest.mark.parametrize("case", ["groups", "a bias and depthwise weights"])
def test_the_evaluator_of_onnx_is_wrong_and_tconvs_operator_right(case):
    groups, is_biased = (2, False) if case == "groups" else (4, True)
    w = integers_like((4, 4 // groups, 3), "float32", 2)
    stored = {"w": w, "b": np.arange(1, 1 + w.shape[1] * groups, dtype=np.float32)}
    operands = ["x", "w", "b"] if is_biased else ["x", "w"]
    node = helper.make_node("ConvTranspose", operands, ["y"], group=groups)
    model = model_of([node], {"x": X}, ["y"], {name: stored[name] for name in operands[1:]})
    right = by_onnx_runtime(model, {"x": X})[0]
    ours = ReferenceEvaluator(model, new_ops=[tconv.onnx.ConvTranspose]).run(None, {"x": X})[0]
    np.testing.assert_array_equal(ours, right)
    theirs = ReferenceEvaluator(model)
    if case == "groups":
        with pytest.raises(ValueError, match="broadcast"):
            theirs.run(None, {"x": X})
    else:
        assert not np.array_equal(theirs.run(None, {"x": X})[0], right)


@claims("docs/onnx.md", "with `sess_options` cannot be pickled")
def test_a_session_with_options_cannot_be_pickled():
    model = tconv.ConvTranspose1d(4, 2, 3, rng=0).to_onnx()
    again = pickle.loads(pickle.dumps(tconv.onnx.Session(model)))
    assert again.run(None, {"x": X})[0].shape == (1, 2, 7)
    session = tconv.onnx.Session(model, onnxruntime.SessionOptions())
    with pytest.raises(tconv.UnsupportedError, match="sess_options cannot be pickled"):
        pickle.dumps(session)


@claims("docs/onnx.md", "stay the same if you change the file, the ModelProto or arrays")
def test_nothing_from_outside_changes_the_weights_of_a_session(tmp_path):
    layer = tconv.ConvTranspose1d(4, 2, 3, rng=0)
    model, path = layer.to_onnx(), tmp_path / "model.onnx"
    onnx.save(model, path)
    for source in (model, path):
        session = tconv.onnx.Session(source, force=True)
        (first,) = session.run(None, {"x": X})
        kept = first.copy()
        for stored in model.graph.initializer:
            stored.raw_data = bytes(len(stored.raw_data))
        path.write_bytes(b"no model")
        first[:] = 0
        (second,) = session.run(None, {"x": X})
        np.testing.assert_array_equal(second, kept)
        assert kept.any()
        model = layer.to_onnx()
        onnx.save(model, path)


RUN = ("Relu", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "MaxPool", "Exp", "Log", "Sqrt")
MISSING = (
    *("Erf", "Selu", "Softplus", "Softsign", "Mish", "Gelu", "Elu", "HardSigmoid", "HardSwish"),
    *("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "LRN"),
)


@claims(
    "docs/onnx.md",
    "| Relu, Sigmoid, Tanh, Softmax, LogSoftmax,",
    "| AveragePool, GlobalAveragePool, GlobalMaxPool, LpPool, MaxUnpool, Resize, Upsample,",
)
@pytest.mark.parametrize("operator", [*RUN, *MISSING])
def test_onnx_runtime_has_float64_of_the_operators_of_the_table(operator):
    windows = {name: {"kernel_shape": [2, 2]} for name in ("MaxPool", "AveragePool", "LpPool")}
    settings = {**windows, "LRN": {"size": 3}}.get(operator, {})
    x = np.ones((1, 3, 4, 4))
    node = helper.make_node(operator, ["x"], ["y"], **settings)
    model = model_of([node], {"x": x}, ["y"], opset=20)
    if operator in RUN:
        assert by_onnx_runtime(model, {"x": x})[0].dtype == np.float64
    else:
        with pytest.raises(Exception, match=r"NOT_IMPLEMENTED|Could not find an implementation"):
            by_onnx_runtime(model, {"x": x})


# ---- streams -------------------------------------------------------------------------------------


def overlap_added(x, w, ends, **how):
    """What pushes up to some cells give that add their stamps to what the pushes before left."""
    y = np.zeros(tconv.output_shape(x.shape, w.shape, **how), x.dtype)
    start, stride = 0, how["stride"]
    for end in (*ends, x.shape[2]):
        part = tconv.conv_transpose(x[:, :, start:end], w, method="direct", **how)
        y[:, :, start * stride : start * stride + part.shape[2]] += part
        start = end
    return y


@claims("docs/streams.md", "in an order that depends on where the pushes end")
def test_tails_that_are_added_have_other_bits_for_other_pushes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 16, 40), np.float32)
    w = rng.standard_normal((16, 4, 16), np.float32)
    ways = [overlap_added(x, w, ends, stride=2) for ends in ((10, 20, 30), (7, 13, 29), ())]
    for one in ways[:2]:
        np.testing.assert_allclose(one, ways[2], rtol=0, atol=1e-4)
        assert not np.array_equal(one, ways[2])
    assert not np.array_equal(*ways[:2])
    layer = tconv.ConvTranspose1d(16, 4, 16, stride=2, bias=False)
    layer.weight.value = w
    stream = layer.stream()
    parts = [stream.push(x[:, :, :7]), stream.push(x[:, :, 7:]), stream.flush()]
    np.testing.assert_array_equal(np.concatenate(parts, 2), ways[2])


@claims(
    "docs/streams.md",
    "powers of two, at most eight",
    "A run may be longer than what is left of a push, where that is expected to take less time",
)
def test_seven_frames_of_a_large_layer_are_one_run_of_eight():
    layer = tconv.ConvTranspose1d(256, 128, 16, stride=8, rng=0)
    lengths = tconv.onnx.Stream(layer.to_onnx(), threads=1)._runner.lengths
    assert lengths.cut(7) == [8]
    assert lengths.all == [2**n for n in range(8)]


@claims("docs/streams.md", "set `is_pointwise = True` on the class.")
def test_a_layer_that_works_cell_by_cell_has_a_stream():
    class Halved(tconv.Layer):
        is_pointwise = True

        def compute(self, x):
            return x / 2, None

    stream = tconv.Sequential(tconv.Conv1d(4, 2, 3, rng=0), Halved()).stream()
    whole = tconv.Conv1d(4, 2, 3, rng=0).predict(X) / 2
    found = np.concatenate([stream.push(X[:, :, :3]), stream.push(X[:, :, 3:]), stream.flush()], 2)
    np.testing.assert_array_equal(found, whole)


NODE = helper.make_node
REFUSED = {  # nodes from x to y, what they read beside x, and a word of the refusal
    "reflected": ([NODE("Pad", ["x", "p"], ["y"], mode="reflect")],
                  {"p": np.array([0, 0, 1, 0, 0, 1])}, "mode reflect"),
    "global pooling": ([NODE("GlobalAveragePool", ["x"], ["y"])], {}, "all of time"),
    "normalised": ([NODE("InstanceNormalization", ["x", "s", "s"], ["y"])],
                   {"s": np.ones(4, np.float32)}, "needs all of time"),
    "softmax": ([NODE("Softmax", ["x"], ["y"], axis=2)], {}, "over time"),
    "recurrent": ([NODE("LSTM", ["x", "w", "r"], ["y"], hidden_size=2)],
                  {"w": np.ones((1, 8, 5), np.float32), "r": np.ones((1, 8, 2), np.float32)},
                  "LSTM"),
    "auto_pad": ([NODE("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2])],
                 {"w": np.ones((4, 4, 3), np.float32)}, "pads by the size"),
    "output_shape": ([NODE("ConvTranspose", ["x", "w"], ["y"], strides=[2], output_shape=[9])],
                     {"w": np.ones((4, 4, 3), np.float32)}, "ConvTranspose"),
    "resized": ([NODE("Resize", ["x", "", "f"], ["y"], mode="linear")],
                {"f": np.array([1, 1, 1.5], np.float32)}, "Resize"),
    "rates": ([NODE("AveragePool", ["x"], ["half"], kernel_shape=[2], strides=[2]),
               NODE("Concat", ["x", "half"], ["y"], axis=1)], {}, "Concat"),
}  # fmt: skip


@claims(
    "docs/streams.md",
    "| padding by reflected, repeated or wrapped cells |",
    "| normalisation over time, global pooling |",
    "| attention and Softmax over time |",
    "| recurrent layers |",
    "| a Conv with `auto_pad` SAME and a stride, a ConvTranspose with `output_shape` |",
    "| Resize by a factor that is no whole number |",
    "| a sum of branches whose rates differ |",
)
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_streamed_is_refused_by_name(what):
    nodes, stored, word = REFUSED[what]
    model = model_of(nodes, {"x": X}, ["y"], stored)
    with pytest.raises(tconv.UnsupportedError, match=word):
        tconv.onnx.Stream(model, inputs={"x": (1, 4, None)})


# ---- commands and files --------------------------------------------------------------------------

SHELL = re.compile(r"^```(?:sh|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@claims("docs/command_line.md", "`tconv help VERB` or `tconv VERB --help` the options of one")
def test_options_of_commands_in_the_documentation_are_listed_by_help():
    used = set()
    for page, text in documents():
        for block in SHELL.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                command = re.match(r"(?:\$ )?tconv (\w+)(?= )(.*)", line)
                if command:
                    options = re.findall(r"(?<= )--?[a-z][a-z-]*", command[2])
                    used |= {(page, command[1], option) for option in options}
    assert len(used) > 30
    shown = {verb: run("-m", "tconv", verb, "--help").stdout for verb in {u[1] for u in used}}
    unknown = [u for u in used if not re.search(rf"(?<![\w-]){u[2]}(?![\w-])", shown[u[1]])]
    assert not unknown, unknown


@claims("docs/command_line.md", "$ tconv shape 64 --to 128 --limit 4")
def test_the_list_of_settings_is_what_the_command_prints():
    page = (ROOT / "docs" / "command_line.md").read_text("utf-8")
    shown = re.search(r"\$ tconv (shape 64 .*)\n((?:.+\n)+)```", page)
    done = run("-m", "tconv", *shown[1].split())
    assert (done.returncode, done.stdout) == (0, shown[2])


@claims("docs/command_line.md", "error[model]: '/photos/page.png' is damaged", "| 2 | usage,")
def test_a_picture_in_place_of_a_model_is_the_error_of_the_page(tmp_path):
    page = (ROOT / "docs" / "command_line.md").read_text("utf-8")
    shown = re.search(r"```text\n(error\[model\]: (?:.+\n)+)```", page)[1]
    tmp_path.joinpath("page.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run("-m", "tconv", "run", "page.png", "x.npy", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.replace(str(tmp_path), "/photos").split() == shown.split()


@claims(
    "docs/benchmarks.md",
    "`python -m bench.run` takes `--group published|sampled|tutorial|upconv7`",
    "`python -m bench.convolutions` takes `--threads`",
)
def test_the_benchmarks_take_the_options_of_their_page():
    text = text_of("docs/benchmarks.md")
    for module, end in (("bench.run", "Four more tools"), ("bench.convolutions", "## Method")):
        said = text.partition(f"`python -m {module}` takes")[2].partition(end)[0]
        options = re.findall(r"`(?:[^`]* )?(--[a-z]+)", said)
        shown = run("-m", module, "--help").stdout
        assert len(options) >= 4
        assert [option for option in options if f"{option} " not in shown] == []
        for choices in re.findall(r"--[a-z]+ (\w+(?:\|\w+)+)", said):
            assert "{" + choices.replace("|", ",") + "}" in shown


@claims("CONTRIBUTING.md", "Every target below builds the environment that it runs in.")
def test_targets_that_the_documentation_names_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    there = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
    for page, text in documents():
        if page != "CHANGELOG.md":
            code = [each for block in SHELL.findall(text) for each in block.splitlines()]
            code += re.findall(r"`([^`\n]+)`", text)
            named = [re.match(r"(?:\w+=\w+ )*make ((?:[a-z0-9-]+ ?)+)", each) for each in code]
            unknown = {word for each in named if each for word in each[1].split()} - there
            assert not unknown, (page, unknown)
    listed = re.findall(
        r"^\| `make ([a-z-]+)` \|", dict(documents())["CONTRIBUTING.md"], re.MULTILINE
    )
    assert len(listed) > 5
    for target in listed:
        line = re.search(rf"^{target}: (.*?)(?: ##|$)", makefile, re.MULTILINE)[1]
        assert re.search(r"\$\((?:VENV|HOSTS|LOWEST)\)/\w+(?:\.stamp)?|/stamp", line), target


@claims("docs/algorithms.md", "Each step is a function of `bench/steps.py`")
def test_files_that_the_documentation_names_are_there():
    roots = (ROOT, ROOT / "tconv", ROOT / "docs", ROOT / "examples", ROOT / "tests")
    named = set()
    for page, text in documents():
        if page not in {"CHANGELOG.md", "ARCHITECTURE.md"}:  # test_docs.py has the second
            found = re.findall(r"`(?:python )?((?:[\w.]+/)*\w+\.(?:py|md|csv|toml))[` ]", text)
            named |= {(page, name) for name in found}
    assert len(named) > 20
    gone = [(page, name) for page, name in named if not any((r / name).exists() for r in roots)]
    assert not gone, gone


@claims("docs/index.md", "install it from a copy of the repository, or from a wheel built from one")
def test_extras_that_the_documentation_installs_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    named = {
        extra
        for page, text in documents()
        if page != "CHANGELOG.md"
        for words in re.findall(r"pip install '?\.\[([\w,]+)\]", text)
        for extra in words.split(",")
    }
    assert {"cli", "onnx", "volumes"} <= named <= extras
