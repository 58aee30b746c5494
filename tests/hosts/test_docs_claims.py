"""Claims of the documentation about PyTorch, JAX, ONNX Runtime and Dask, tried as by a reader."""

import os
import re
import subprocess
import sys

import dask.array as da
import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr
from onnx import helper
from quotations import ROOT, check_quotation, claims

import tconv
import tconv.dask
import tconv.torch
from onnx_graphs import by_onnx_runtime, model_of
from strategies import integers_like


@pytest.fixture(autouse=True)
def claim(request):
    """What the page of a test says, in words that it has to have."""
    check_quotation(*request.param)


# ---- where libraries differ ----------------------------------------------------------------------


@claims("docs/conventions.md", "which is a transposed convolution with the reversed kernel")
def test_jax_reverses_the_kernel_unless_told():
    x, w = integers_like((1, 2, 5), "float32", 1), integers_like((2, 3, 4), "float32", 2)

    def by_jax(kernel, **how):
        return jax.lax.conv_transpose(x, kernel, (2,), "VALID", **how)

    named = {"dimension_numbers": ("NCH", "IOH", "NCH")}
    plain = by_jax(w, **named)
    ours = tconv.conv_transpose(x, w, stride=2, flip_kernel=True)
    np.testing.assert_array_equal(plain, ours)
    # Told so, JAX takes the weight of the convolution, whose channels have the other names.
    named["dimension_numbers"] = ("NCH", "OIH", "NCH")
    told = by_jax(w, transpose_kernel=True, **named)
    np.testing.assert_array_equal(told, tconv.conv_transpose(x, w, stride=2))
    assert not np.array_equal(plain, told)


@claims(
    "docs/conventions.md",
    '| 3 cells, kernel 2, stride 3, `"same"` | 9 | JAX, Keras 9; ONNX `SAME_UPPER` 8 |',
    '| 5 cells, kernel 3, stride 5, `"valid"` | 23 | PyTorch 23; JAX, Keras 25 |',
    "stride 1, dilation 2, output_padding 1 | allowed | PyTorch allows it too |",
)
def test_the_same_settings_give_the_sizes_of_the_table():
    three, five, four = (np.ones((1, 1, n), np.float32) for n in (3, 5, 4))
    two_taps, three_taps = (np.ones((1, 1, k), np.float32) for k in (2, 3))

    def size_by_jax(x, w, stride, padding):
        numbers = ("NCH", "IOH", "NCH")
        y = jax.lax.conv_transpose(x, w, (stride,), padding, dimension_numbers=numbers)
        return y.shape[-1]

    def size_by_torch(x, w, **how):
        return F.conv_transpose1d(torch.from_numpy(x), torch.from_numpy(w), **how).shape[-1]

    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[3])
    model = model_of([node], {"x": three}, ["y"], {"w": two_taps})
    assert by_onnx_runtime(model, {"x": three})[0].shape[-1] == 8
    assert size_by_jax(three, two_taps, 3, "SAME") == 9
    assert size_by_jax(five, three_taps, 5, "VALID") == 25
    assert size_by_torch(five, three_taps, stride=5) == 23
    assert size_by_torch(four, three_taps, dilation=2, output_padding=1) == 9
    ours = [(three, two_taps, {"stride": 3, "padding": "same"}), (five, three_taps, {"stride": 5})]
    assert [tconv.conv_transpose(x, w, **how).shape[-1] for x, w, how in ours] == [9, 23]


# ---- activations ---------------------------------------------------------------------------------

CELLS = np.array([[[-np.inf, -2.0, 0.5, 2.0, np.inf, np.nan]]], np.float32)


def activated(activation):
    """What a plan makes of the cells by a weight of 1."""
    call = tconv.plan(CELLS.shape, (1, 1, 1), activation=activation)
    return call(CELLS, call.pack(np.ones((1, 1, 1), np.float32)))


@claims("docs/conventions.md", '"hard_swish" and "gelu" of −∞ are NaN', "as in PyTorch.")
@pytest.mark.parametrize(
    ("activation", "theirs"),
    [
        ("silu", F.silu),
        ("hard_swish", F.hardswish),
        ("gelu", F.gelu),
        (("gelu", "tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (("snake", 2.0), lambda x: x + torch.sin(2 * x) ** 2 / 2),
    ],
    ids=["silu", "hard_swish", "gelu", "gelu by a tanh", "snake"],
)
def test_infinity_becomes_not_a_number_where_it_does_in_pytorch(activation, theirs):
    found, expected = activated(activation), theirs(torch.from_numpy(CELLS)).numpy()
    rest = ~np.isposinf(CELLS)  # of which PyTorch's "gelu" makes NaN in vectors, else infinity
    np.testing.assert_allclose(found[rest], expected[rest], rtol=1e-6, equal_nan=True)
    assert np.isnan(found[0, 0, [0, 5]]).all()
    assert np.isnan(found[0, 0, 4]) == (activation == ("snake", 2.0))


@claims(
    "docs/conventions.md",
    "The defaults of the hard sigmoid are (1/6, 0.5) in PyTorch and (0.2, 0.5) in ONNX.",
)
def test_the_hard_sigmoid_has_two_defaults():
    by_torch = F.hardsigmoid(torch.from_numpy(CELLS)).numpy()
    np.testing.assert_allclose(activated(("hard_sigmoid", 1 / 6, 0.5)), by_torch, rtol=1e-6)
    model = model_of([helper.make_node("HardSigmoid", ["x"], ["y"])], {"x": CELLS}, ["y"])
    (by_onnx,) = by_onnx_runtime(model, {"x": CELLS})
    whole = np.isfinite(CELLS)  # ONNX does not say what a NaN gives
    np.testing.assert_allclose(
        activated(("hard_sigmoid", 0.2, 0.5))[whole], by_onnx[whole], rtol=1e-6
    )


@claims("docs/layers.md", "as PyTorch's default does, start with too small a variance")
def test_pytorchs_default_starts_with_too_small_a_variance():
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((4, 64, 32, 32), np.float32)
    theirs = torch.nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        variance = theirs(torch.from_numpy(x)).var().item()
    ours = tconv.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False, rng=0).predict(x)
    assert variance < 0.5
    assert 0.8 < ours.var() < 3


# ---- code without a prompt -----------------------------------------------------------------------


@claims("docs/torch.md", "`accelerate` replaces the class of every convolution in a model")
@pytest.mark.parametrize("page", ["README.md", "docs/torch.md", "docs/which_of_the_three.md"])
def test_the_code_of_a_page_runs(page, capsys):
    """On a model that stands for the reader's."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ConvTranspose2d(16, 3, 4, 2, 1)
    model, x = torch.nn.Sequential(*layers).eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
    names = {"torch": torch, "tconv": tconv, "model": model, "x": x}
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.S | re.M)
    blocks = [block for block in blocks if not block.startswith(">>>")]
    assert blocks
    for block in blocks:
        exec(block, names)
        with torch.inference_mode():
            for runs in ("model", "compiled", "traced"):
                if runs in names:
                    torch.testing.assert_close(names[runs](x), expected, rtol=1e-4, atol=1e-5)
    printed = "print(" in "".join(blocks)
    assert ("conv" in capsys.readouterr().out.lower()) == printed


# ---- compiled models, files, Dask ----------------------------------------------------------------

COMPILED = """
import sys
import torch

model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.ConvTranspose2d(32, 16, 4, 2, 1)
).eval()
assert not any(name.partition(".")[0] == "tconv" for name in sys.modules)
compiled = torch.compile(model, backend="tconv")
x = torch.randn(1, 3, 64, 64)
with torch.inference_mode():
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
assert "tconv.torch" in sys.modules
"""


@claims(
    "docs/which_of_the_three.md",
    "PyTorch finds the backend by its name if tconv is installed; you need not import anything.",
    "| a C++ compiler | not needed | not needed (inductor needs one) | not needed |",
)
def test_a_model_is_compiled_without_an_import_and_without_a_compiler(tmp_path):
    nothing = {"PATH": str(tmp_path), "CC": "none", "CXX": "none"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env={**os.environ, **nothing, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


@claims("docs/torch.md", "needs `import tconv.torch` to work where it is loaded, and `weights_only")
def test_a_whole_model_is_loaded_by_telling_so(tmp_path):
    model = torch.nn.Sequential(torch.nn.ConvTranspose2d(3, 2, 4, 2, 1))
    tconv.torch.accelerate(model)
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert type(again[0]) is tconv.torch.ConvTranspose2d
    tconv.torch.restore(model)
    torch.save(model, tmp_path / "restored.pt")
    assert b"tconv" not in (tmp_path / "restored.pt").read_bytes()


@claims(
    "docs/volumes.md",
    "in three dimensions, 7 with a kernel of 3 and stride 2, and 26 with a kernel of 4",
    "makes a graph with one task for each chunk",
)
@pytest.mark.parametrize(("kernel", "sides"), [(3, 1), (4, 2)])
def test_a_chunk_of_a_lazy_volume_takes_many_tasks_or_one(tmp_path, kernel, sides):
    path, count, size = str(tmp_path / "x.zarr"), 4, 6
    stored = zarr.create_array(
        path, shape=(1, *3 * [count * size]), chunks=(1, *3 * [size]), dtype="f4"
    )
    w, how = np.ones((1, 1, *3 * [kernel]), np.float32), {"stride": 2, "padding": 1}
    lazy = tconv.conv_transpose(da.from_zarr(stored), w, **how)
    from_disk = tconv.dask.from_zarr(path, w, **how)

    def tasks(y, kind):
        return sum(str(key[0]).startswith(kind) for key in dict(y.__dask_graph__()))

    # Along an axis each chunk reads itself, and a neighbour on each side that is there.
    assert tasks(lazy, "window") == (count + sides * (count - 1)) ** 3 - count**3
    assert (1 + sides) ** 3 - 1 == {3: 7, 4: 26}[kernel]
    assert tasks(from_disk, "from-zarr") == tasks(lazy, "conv_transpose") == count**3
