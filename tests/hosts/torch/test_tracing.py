"""Accelerated models traced by torch.fx: the same outputs."""

import copy
import pickle

import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils import parametrizations

import tconv.torch
from tconv.torch import accelerate, conv_transpose2d
from tconv.torch.modules import output_padding

fx.wrap("conv_transpose2d")
X = torch.arange(2 * 4 * 5 * 6).reshape(2, 4, 5, 6).float() % 7 - 3
LIKE = torch.zeros(2, 3, 10, 12)


class Up(nn.Module):
    """A layer whose result is as large as something else."""

    def __init__(self, size):
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1)
        self.size = size

    def forward(self, x, like):
        return self.up(x, output_size=self.size(like)).relu()


SIZES = {
    "none": lambda like: None,
    "constant": lambda like: (10, 11),
    "whole": lambda like: like.shape,
    "part": lambda like: like.shape[2:],
    "size()": lambda like: like.size(),
    "list": lambda like: [like.shape[2], like.shape[3]],
}
each_size = pytest.mark.parametrize("size", SIZES)


def up(size):
    model = Up(SIZES[size])
    twin = copy.deepcopy(model)
    assert accelerate(model).swapped == ("up",)
    return model, twin


def targets(traced, op):
    return [node.target for node in traced.graph.nodes if node.op == op]


@each_size
def test_a_symbolic_trace_computes_the_same(size):
    model, twin = up(size)
    traced = fx.symbolic_trace(model)
    assert conv_transpose2d in targets(traced, "call_function")
    assert (output_padding in targets(traced, "call_function")) == (size != "none")
    assert not targets(traced, "call_module")
    ShapeProp(traced).propagate(X, LIKE)
    ways = {
        "itself": traced,
        "copied": copy.deepcopy(traced),
        "pickled": pickle.loads(pickle.dumps(traced)),
        "interpreted": fx.Interpreter(traced).run,
        "transformed": fx.Transformer(traced).transform(),
        "traced again": fx.symbolic_trace(traced),
        "compiled": torch.compile(traced, backend="aot_eager", fullgraph=True),
    }
    for x, like in ((X, LIKE), (X[:1, :, 1:, :-1], LIKE[:, :, 2:, 2:])):
        if size == "constant" and x is not X:
            continue
        expected = twin(x, like)
        for way in ways.values():
            torch.testing.assert_close(way(x, like), expected)
    torch._dynamo.reset()


@each_size
def test_with_tconvs_tracer_a_layer_is_one_node(size):
    model, twin = up(size)
    traced = fx.GraphModule(model, tconv.torch.Tracer().trace(model))
    assert targets(traced, "call_module") == ["up"]
    assert traced.up is model.up
    model.eval()  # in training the weight is not kept
    for _ in range(2):
        torch.testing.assert_close(traced(X, LIKE), twin(X, LIKE))
    assert model.up.__dict__["_tconv_weight_cache"]._entry is not None  # the packed weight
    assert type(traced.up).__module__ == "tconv.torch.modules"  # nothing is said to be PyTorch's


def test_gradients_pass_through_what_was_traced():
    model, twin = up("part")
    gradients = []
    for each in (fx.symbolic_trace(model), twin):
        x = X.clone().requires_grad_()
        each(x, LIKE).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in each.parameters())])
    for pair in zip(*gradients, strict=True):
        torch.testing.assert_close(*pair)


@pytest.mark.parametrize(
    "change", [parametrizations.weight_norm, lambda m: m.requires_grad_(False)]
)
def test_weights_are_those_of_the_call_and_not_of_the_trace(change):
    model, twin = up("part")
    for each in (model, twin):
        torch.manual_seed(1)
        each.up = change(each.up)
    traced = fx.symbolic_trace(model)
    with torch.no_grad():
        for each in (model, twin):
            next(each.parameters()).mul_(2)
        torch.testing.assert_close(traced(X, LIKE), twin(X, LIKE))


def test_hooks_are_called_once():
    model, _ = up("none")
    model.up.register_forward_hook(lambda module, given, y: y + 1)
    for traced in (
        fx.symbolic_trace(model),
        fx.GraphModule(model, tconv.torch.Tracer().trace(model)),
    ):
        assert torch.equal(traced(X, LIKE), model(X, LIKE))


class Wrapped(nn.Module):
    """A call of the function that this file has told torch.fx of."""

    def forward(self, x, weight):
        return conv_transpose2d(x, weight, stride=2)


class Named(nn.Module):
    """A call by the module's name, which ``torch.fx.wrap`` does not see."""

    def forward(self, x, weight):
        return tconv.torch.conv_transpose2d(x, weight, stride=(2, 2), output_padding=1)


@pytest.mark.parametrize("kind", [Wrapped, Named])
@pytest.mark.parametrize("is_autocast", [False, True])
def test_a_functional_call_is_one_node(kind, is_autocast):
    weight = torch.ones(4, 3, 3, 3)
    with torch.autocast("cpu", enabled=is_autocast):
        traced = fx.symbolic_trace(kind())
    assert targets(traced, "call_function") == [conv_transpose2d]
    assert torch.equal(traced(X, weight), kind()(X, weight))


def test_a_size_that_cannot_be_reached_is_refused_when_it_is_known():
    model, twin = up("part")
    traced = fx.symbolic_trace(model)
    for each in (traced, twin):
        with pytest.raises(ValueError, match="requested an output size"):
            each(X, LIKE[:, :, :3])
