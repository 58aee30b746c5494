"""torch.jit.script and PyTorch's other tools on accelerated models."""

import copy
import io
import warnings

import pytest
import torch
from torch import fx, nn

import tconv.torch
from tconv.errors import UnsupportedError
from tconv.torch import accelerate, restore
from tconv.torch.modules import TCONV_CLASS_OF

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.* is (deprecated|not supported).*:DeprecationWarning",
    "ignore:The TorchScript type system doesn't support:UserWarning",  # of torch.fx itself
    "ignore:.*torch.ao.quantization is deprecated.*:DeprecationWarning",
    "ignore:.*legacy TorchScript-based ONNX export.*:DeprecationWarning",
)

CALLS = [  # what follows input and weight
    "None",
    "bias, 2",
    "bias, ({twos},), [{ones}], 1",
    "None, stride=2, padding=1, output_padding=({ones},), dilation=2",
    "bias, 1, 0, 0, 2, 1",
]


def numbers(*shape):
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % 7 - 3.0


def calling(rank, rest, tmp_path):
    """A module that calls the function of a rank, from a file, whose source TorchScript reads."""
    rest = rest.format(ones=", ".join("1" * rank), twos=", ".join("2" * rank))
    source = f"""
import torch
import tconv.torch
class Calling(torch.nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    def forward(self, x):
        weight, bias = self.weight, self.bias
        return tconv.torch.conv_transpose{rank}d(x, weight, {rest})
"""
    file = tmp_path / "calling.py"
    file.write_text(source)
    names = {"__name__": "calling"}
    exec(compile(source, str(file), "exec"), names)
    groups = 2 if rest.endswith("2, 1") else 1
    return names["Calling"](numbers(4, 3, *[3] * rank), numbers(3 * groups))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("rest", CALLS)
def test_a_call_of_a_function_is_scripted_as_pytorchs(rank, rest, tmp_path):
    model = calling(rank, rest, tmp_path)
    x = numbers(2, 4, *[5] * rank)
    scripted = torch.jit.script(model)
    assert f"aten::conv_transpose{rank}d" in str(scripted.inlined_graph)
    assert torch.equal(scripted(x), model(x))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_function_itself_is_scripted(rank):
    function = getattr(tconv.torch, f"conv_transpose{rank}d")
    scripted = torch.jit.script(function)
    x, weight = numbers(2, 4, *[5] * rank), numbers(4, 3, *[3] * rank)
    for keywords in ({}, {"stride": 2}, {"padding": [1] * rank, "dilation": 2}):
        assert torch.equal(scripted(x, weight, **keywords), function(x, weight, **keywords))


class Up(nn.Module):
    """Two layers, of which the second may be told a size."""

    def __init__(self, is_sized):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 3, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(3, 2, 3, 2, 1)
        self.is_sized = is_sized

    def forward(self, x):
        y = self.up(x)
        if self.is_sized:
            return self.up2(y, output_size=[2 * y.shape[2], 2 * y.shape[3]])
        return self.up2(y)


X = numbers(2, 4, 5, 6)


def up(is_sized):
    torch.manual_seed(0)
    model = Up(is_sized).eval()
    twin = copy.deepcopy(model)
    accelerate(model)
    return model, twin


def test_a_symbolic_trace_is_scripted():
    model, twin = up(False)
    scripted = torch.jit.script(fx.symbolic_trace(model))
    torch.testing.assert_close(scripted(X), twin(X))


def test_what_cannot_be_scripted_of_a_trace_names_restore_which_works():
    model, twin = up(True)
    with pytest.raises(
        UnsupportedError, match=r"^torch\.jit\.script cannot read sizes .*restore\("
    ):
        torch.jit.script(fx.symbolic_trace(model))
    restore(model)
    scripted = torch.jit.script(fx.symbolic_trace(model))
    assert torch.equal(scripted(X), twin(X))
    assert accelerate(model).swapped == ("up", "up2")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_derived_class_is_told_to_derive_from_pytorchs(rank):
    theirs = list(TCONV_CLASS_OF)[rank - 1]
    ours = TCONV_CLASS_OF[theirs]
    layer = type("Own", (ours,), {})(4, 2, 3)
    message = r"^torch\.jit\.script cannot read Own, whose class is derived from tconv\.torch\."
    message += rf"{ours.__name__}; derive it from torch\.nn\.{theirs.__name__}\.$"
    with pytest.raises(RuntimeError, match=message):
        torch.jit.script(nn.Sequential(layer))
    remedied = type("Own", (theirs,), {})(4, 2, 3)
    x = numbers(2, 4, *[5] * rank)
    assert torch.equal(torch.jit.script(nn.Sequential(remedied))(x), remedied(x))


class Same(tconv.torch.ConvTranspose2d):
    """A derived class with a `forward` that TorchScript can read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight.sum()


def test_a_derived_class_with_a_forward_of_its_own_is_scripted():
    layer = Same(4, 2, 3)
    assert torch.equal(torch.jit.script(layer)(X), layer(X))


# ---- tools ---------------------------------------------------------------------------------------


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def exported_by_torchscript(model):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = io.BytesIO()
    torch.onnx.export(model, (X,), file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (name,) = [each.name for each in session.get_inputs()]
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def quantised_by_trace(model):
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    mapping = get_default_qconfig_mapping("fbgemm")
    prepared = quantize_fx.prepare_fx(model, mapping, (X,))
    prepared(X)
    return quantize_fx.convert_fx(prepared)


TOOLS = {
    "jit.script": torch.jit.script,
    "jit.script, frozen": lambda model: torch.jit.freeze(torch.jit.script(model)),
    "jit.trace": lambda model: torch.jit.trace(model, X),
    "fx.symbolic_trace": fx.symbolic_trace,
    "deepcopy": copy.deepcopy,
    "torch.save": saved,
    "torch.onnx.export": exported_by_torchscript,
    "torch.export": lambda model: torch.export.export(model, (X,)).module(),
    "quantize_dynamic": torch.ao.quantization.quantize_dynamic,
    "prepare_fx, convert_fx": quantised_by_trace,
    "DataParallel": nn.DataParallel,
}


@pytest.mark.parametrize("is_sized", [False, True])
@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_makes_of_an_accelerated_model_computes_the_same(tool, is_sized):
    model, twin = up(is_sized)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch says of its own tools
        made = TOOLS[tool](model)
        found = made(X)
    torch.testing.assert_close(found.detach(), twin(X).detach(), rtol=1e-5, atol=1e-5)
