"""The backend of torch.compile: whatever becomes of a model, its results are PyTorch's."""

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
from processes import run_script
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.nn import functional as F

import tconv
from tconv.torch import report

pytestmark = pytest.mark.usefixtures("forced")


def model(seed=0, channels=4, **options):
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1, **options),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, 3, 4, 2, 1),
    )
    made(torch.randn(4, 3, 8, 8) * 3 + 1)
    return made.eval()


X = torch.randn(2, 3, 10, 12, generator=torch.Generator().manual_seed(0))


def compiled(module, **options):
    return torch.compile(module, backend="tconv", **options)


def assert_same(fast, module, x=X):
    with torch.no_grad():
        found, expected = fast(x), module(x)
    assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def graphs(fast):
    return report(fast).graphs


# ---- parameters ----------------------------------------------------------------------------------

FROZEN = [{}, {"options": {"frozen": True}}]


@pytest.mark.parametrize("options", FROZEN, ids=["", "frozen"])
def test_two_instances_share_a_graph_and_no_weights(options):
    one, two = model(1), model(2)
    fast = [compiled(each, **options) for each in (one, two)]
    for _ in range(2):
        assert_same(fast[0], one)
        assert_same(fast[1], two)
    (graph,) = graphs(fast[1])
    assert (graph.packings, graph.computed_by) == (2, "tconv")


CHANGES = {
    "replaced": lambda m: setattr(m[0], "weight", nn.Parameter(torch.randn(4, 3, 3, 3))),
    "in place": lambda m: nn.init.normal_(m[3].weight),
    "running statistics": lambda m: m[1].running_var.mul_(3),
    "state": lambda m: m.load_state_dict(model(7).state_dict()),
    "state, assigned": lambda m: m.load_state_dict(model(7).state_dict(), assign=True),
    "in training": lambda m: (m.train()(X * 2), m.eval()),
    "a step": lambda m: step(m),
    "data replaced": lambda m: setattr(m[0].weight, "data", torch.randn(4, 3, 3, 3)),
}
UNSEEN = {
    "by data": lambda m: m[0].weight.data.mul_(-1),
    "by NumPy": lambda m: np.negative(m[3].bias.detach().numpy(), out=m[3].bias.detach().numpy()),
}
"""Of a frozen graph: PyTorch does not count these changes."""


def step(module):
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    module(X).square().mean().backward()
    optimiser.step()


@pytest.mark.parametrize(
    ("name", "options"),
    [*product([*CHANGES, *UNSEEN], FROZEN[:1]), *product(CHANGES, FROZEN[1:])],
)
def test_changed_parameters_are_seen(name, options):
    module = model()
    fast = compiled(module, **options)
    assert_same(fast, module)
    for _ in range(2):
        with torch.set_grad_enabled(name == "a step"):
            (CHANGES | UNSEEN)[name](module)
        for _ in range(3):  # by PyTorch, by a new program, by the same
            assert_same(fast, module)
    assert {graph.computed_by for graph in graphs(fast)} == {"tconv"}


def test_weights_that_change_with_every_call_are_pytorchs():
    """To pack them would take longer than a call."""
    module = model()
    fast = compiled(module)
    for _ in range(4):
        assert_same(fast, module)
        with torch.no_grad():
            module[0].weight.mul_(1.5)
    assert graphs(fast)[0].packings == 1
    for _ in range(3):
        assert_same(fast, module)
    assert graphs(fast)[0].packings == 2


def test_statistics_that_a_graph_writes_are_no_change():
    module = nn.Sequential(model(), nn.BatchNorm2d(3)).eval()
    module[1].train()
    twin, fast = copy.deepcopy(module), compiled(module)
    for n in range(4):
        with torch.no_grad():
            torch.testing.assert_close(fast(X * n), twin(X * n), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(module[1].running_var, twin[1].running_var)
    (graph,) = graphs(fast)
    assert (graph.packings, graph.computed_by) == (1, "tconv")


def test_a_parameter_without_elements():
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.none = nn.Conv2d(3, 4, 3), nn.Parameter(torch.zeros(0, 4))

        def forward(self, x):
            return self.conv(x) + self.none.sum()

    module = Empty()
    fast = compiled(module)
    for _ in range(3):
        assert_same(fast, module)
    assert graphs(fast)[0].packings == 1


def test_a_compiled_model_is_freed():
    module = model()
    fast = compiled(module)
    assert_same(fast, module)
    gone = weakref.ref(module)
    del module, fast
    gc.collect()
    assert gone() is None


def test_swapped_tensors_are_seen():
    module, other = model(1), model(2)
    fast = compiled(module, options={"frozen": True})
    assert_same(fast, module)
    torch.utils.swap_tensors(module[3].weight, other[3].weight)
    assert_same(fast, module)


def test_weights_are_packed_once():
    module = model()
    fast = compiled(module)
    for size in (8, 8, 9, 10, 11):
        assert_same(fast, module, torch.randn(1, 3, size, size))
    assert [graph.packings for graph in graphs(fast)] == [1, 1]  # fixed sizes, then any


def test_a_shared_weight_is_left_to_pytorch():
    """Other processes may write to it meanwhile."""
    module = model().share_memory()
    fast = compiled(module)
    assert_same(fast, module)
    (graph,) = graphs(fast)
    assert (graph.packings, graph.computed_by) == (0, "PyTorch")
    assert graph.why.startswith("a parameter is shared with other processes")


def test_a_parameter_that_is_a_result_is_the_parameter():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x), self.conv.weight, self.conv.weight.flatten(1), self.conv.bias * 2

    module = Both()
    fast = compiled(module)
    with torch.no_grad():
        for _ in range(2):
            _, weight, flat, bias = fast(X)
            assert weight is module.conv.weight
            assert flat.data_ptr() == weight.data_ptr()
            bias.zero_()  # a result is the caller's
        assert torch.equal(fast(X)[3], module.conv.bias * 2)
    assert_same(lambda x: fast(x)[0], module.conv)


def test_copies_and_states_of_a_compiled_model():
    module = model()
    fast = compiled(module)
    assert_same(fast, module)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin[0].weight.mul_(2)
    assert_same(compiled(twin), twin)
    assert_same(fast, module)
    other = model(9)
    other.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in fast.state_dict().items()})
    assert_same(fast, other)


# ---- what is computed ----------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        y += x
        y[:, 0] *= 2
        x.add_(1)  # what the caller passed
        return y, y[:, 1:], x


def test_writes_in_place_and_views():
    module = Residual()
    fast = compiled(module)
    with torch.no_grad():
        for _ in range(2):
            given, other = X.clone(), X.clone()
            found, expected = fast(given), module(other)
            for pair in zip((*found, given), (*expected, other), strict=True):
                torch.testing.assert_close(*pair)
            assert found[2] is given
            assert found[1].data_ptr() == found[0][:, 1:].data_ptr()


def test_results_own_their_memory():
    module = model()
    fast = compiled(module)
    with torch.no_grad():
        first = fast(X)
        kept = first.clone()
        second = fast(X * 2)
        assert torch.equal(first, kept)
        first.zero_()
        assert not torch.equal(second, first)
        assert torch.equal(fast(X), kept)
        first.resize_(5)


def test_a_function_and_a_graph_break():
    weight = torch.randn(4, 3, 3, 3)

    def function(x):
        y = F.conv2d(x, weight).relu()
        torch._dynamo.graph_break()
        return F.conv2d(y, weight.mT[:, :1].contiguous(), groups=4) * 2

    with torch.no_grad():
        fast = compiled(function)
        torch.testing.assert_close(fast(X), function(X), rtol=1e-4, atol=1e-5)
    assert report(fast).graphs


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_sizes_that_change(dynamic):
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            y = self.first(x)
            small = F.max_pool2d(y, 2)
            grown = F.interpolate(small, size=x.shape[2:], mode="bilinear")
            flat = torch.cat([y, grown], 1).flatten(2)
            shape = (x.shape[0], 8, x.shape[2], x.shape[3])
            return self.last(flat.reshape(shape)) + small.mean()

    module = Sized().eval()
    fast = compiled(module, dynamic=dynamic)
    for sizes in [(1, 8, 8), (1, 8, 12), (2, 14, 6), (3, 10, 10), (1, 8, 8), (2, 40, 6)]:
        assert_same(fast, module, torch.randn(sizes[0], 3, *sizes[1:]))


def test_modes_of_a_model():
    module = model()
    fast = compiled(module)
    for _ in range(2):
        with torch.inference_mode():
            torch.testing.assert_close(fast(X), module(X), rtol=1e-4, atol=1e-5)
        twin = copy.deepcopy(module).train()
        module.train()
        with torch.no_grad():
            torch.testing.assert_close(fast(X), twin(X), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(module[1].running_mean, twin[1].running_mean)
            assert module[1].num_batches_tracked == twin[1].num_batches_tracked
        module.eval()
        assert_same(fast, module)


def test_random_numbers_are_drawn_as_by_pytorch():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 3, 1)).train()
    fast, found = compiled(module), []
    for each in (fast, module):
        torch.manual_seed(3)
        with torch.no_grad():
            found.append([each(X), each(X)])
    for pair in zip(*found, strict=True):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


def test_other_defaults_of_pytorch():
    module = model()
    fast = compiled(module)
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(fast, module)
    finally:
        torch.set_default_dtype(torch.float32)


def test_parameters_of_inference():
    with torch.inference_mode():
        module = model()
        for options in FROZEN:
            fast = compiled(module, **options)
            torch.testing.assert_close(fast(X), module(X), rtol=1e-4, atol=1e-5)
            module[0].weight.mul_(2)
            torch.testing.assert_close(fast(X), module(X), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_pytorch():
    module = model()
    fast, found = compiled(module), []
    for each in (fast, module):
        x = X.clone().requires_grad_()
        y = each(x).square().mean()
        found.append(torch.autograd.grad(y, [x, *module.parameters()]))
    for pair in zip(*found, strict=True):
        torch.testing.assert_close(*pair)
    (graph,) = graphs(fast)
    assert graph.computed_by == "PyTorch"
    assert "inference_mode" in graph.why
    assert_same(fast, module)  # without gradients it is compiled
    assert {graph.computed_by for graph in graphs(fast)} == {"PyTorch", "tconv"}


def test_inputs_that_require_gradients_under_no_grad():
    module, x = model(), X.clone().requires_grad_()
    with torch.no_grad():
        found = compiled(module)(x)
    assert not found.requires_grad
    torch.testing.assert_close(found, module(X), rtol=1e-4, atol=1e-5)


LEFT = {
    "channels last": (lambda m: m, lambda x: x.to(memory_format=torch.channels_last)),
    "channels last weights": (lambda m: m.to(memory_format=torch.channels_last), lambda x: x),
    "bfloat16": (lambda m: m.bfloat16(), lambda x: x.bfloat16()),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_whole(name):
    change, of_input = LEFT[name]
    module = change(model())
    fast, x = compiled(module), of_input(X)
    with torch.no_grad():
        found, expected = fast(x), module(x)
    assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
    torch.testing.assert_close(found, expected)
    assert {each.computed_by for each in graphs(fast)} == {"PyTorch"}


@pytest.mark.usefixtures("forced")
def test_layers_of_float64_one_by_one():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.GELU(),
        nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 4, stride=2, padding=(1, 0), dilation=1),
    ).double().eval()  # fmt: skip
    fast = compiled(module)
    for x in (X.double(), X.double()[:1, :, 2:], X.double().transpose(2, 3)):
        with torch.inference_mode():
            found, expected = fast(x), module(x)
        assert (found.dtype, found.stride()) == (torch.float64, expected.stride())
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        module[0].weight.data *= 2
        for _ in range(3):  # changed weights get a state when they come again
            torch.testing.assert_close(fast(x), module(x), rtol=1e-12, atol=1e-12)
    regions = [region for each in graphs(fast) for region in each.regions]
    assert {each.programs > 0 for each in regions} == {True}
    assert {tuple(each.operators.values()) for each in regions} == {(1,)}


@pytest.mark.usefixtures("forced")
def test_layers_of_both_types():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3).double(), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.last(self.first(x.double()).relu().float()).relu()

    module = Mixed().eval()
    fast = compiled(module)
    assert_same(fast, module)
    (graph,) = graphs(fast)
    assert [each.operators for each in graph.regions] == [
        {"convolution": 1},
        {"convolution": 1, "relu": 1},
    ]


def test_a_strided_input_is_read_as_it_is():
    module = model()
    wide = torch.randn(2, 12, 3, 10).permute(0, 2, 3, 1)
    for x in (wide, X.expand(2, 3, 10, 12)[:, :, ::2, 1:], X[:1].expand(2, 3, 10, 12)):
        assert_same(compiled(module), module, x)


def test_autocast_is_pytorchs():
    module = model()
    fast = compiled(module)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, expected = fast(X), module(X)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    assert graphs(fast)[0].why == "autocast is on"
    assert_same(fast, module)


def test_accelerated_modules_inside():
    module = model()
    twin = copy.deepcopy(module)
    tconv.torch.accelerate(module)
    fast = compiled(module)
    assert_same(fast, twin)
    (graph,) = graphs(fast)
    assert (len(graph.regions), graph.others) == (1, {})


# ---- threads and processes -----------------------------------------------------------------------


def test_several_threads_call_it_at_once():
    module = model(channels=16)
    fast = compiled(module)
    inputs = [torch.randn(1, 3, 16 + 2 * (n % 3), 16) for n in range(24)]
    with torch.inference_mode():
        expected = [module(x) for x in inputs]
        fast(inputs[0])

    def call(x):
        with torch.inference_mode():
            return fast(x)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, inputs))
    for pair in zip(found, expected, strict=True):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


def test_another_number_of_threads():
    module = model(channels=16)
    fast, before, found = compiled(module), torch.get_num_threads(), []
    try:
        for threads in (2, 1, 2):
            torch.set_num_threads(threads)
            assert_same(fast, module)
            with torch.no_grad():
                found.append(fast(X))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


FORK = """
import os
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(2)
module = nn.Sequential(nn.Conv3d(8, 32, 3), nn.ReLU(), nn.Conv3d(32, 8, 3)).eval()
fast = torch.compile(module, backend="tconv")
x = torch.randn(1, 8, 12, 12, 12)
with torch.inference_mode():
    before = fast(x)
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(fast(x), before) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(fast(x), before)
import tconv.torch
assert tconv.torch.report(fast).graphs[0].computed_by == "tconv"
"""


def test_a_forked_process_computes_the_same():
    run_script(FORK)


# ---- options and reports -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "max-autotune"}, "mode='max-autotune' is not for backend='tconv'"),
        ({"options": {"freeze": True}}, r"'freeze'.* is unknown to backend='tconv', which has 'fr"),
        ({"options": {"frozen": 1}}, r"frozen.*=1 must be True or False"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(BackendCompilerFailed, match=message), torch.no_grad():
        compiled(model(), **options)(X)


def test_a_report_of_what_is_no_compiled_model():
    with pytest.raises(tconv.ParameterError, match=r"must be what torch\.compile returned"):
        report(model())


def test_a_report_before_and_after():
    module = model()
    fast = compiled(module)
    assert str(report(fast)).startswith("no graphs: the model was not called yet")
    assert_same(fast, module)
    text = str(report(fast))
    for part in ("1 graph, 0 recompilations", "region 1: ", "weights packed 1 time", "predicted"):
        assert part in text
    other = model(3, 5)
    assert str(report(compiled(other))).startswith("no graphs")
    assert report(fast).as_dict()["graphs"][0]["computed_by"] == "tconv"


def test_a_report_counts_recompilations():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    fast = compiled(module, dynamic=False)
    with torch.no_grad():
        for size in range(4, 16):
            fast(torch.randn(1, 3, size, size))
    found = report(fast)
    assert found.recompilations == 7
    assert found.limit == 8
    assert "compiled 8 times, PyTorch's limit" in str(found)


def test_a_graph_that_gains_nothing_is_dynamos(monkeypatch):
    monkeypatch.undo()  # what is forced
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Tanh()).eval()
    fast = compiled(module)
    with torch.no_grad():
        x = torch.randn(1, 1, 4, 4)
        assert torch.equal(fast(x), module(x))
        assert torch.equal(fast(x), module(x))
    (graph,) = graphs(fast)
    assert (graph.computed_by, graph.why) == ("PyTorch", "nothing in it is predicted to gain 3 %")
