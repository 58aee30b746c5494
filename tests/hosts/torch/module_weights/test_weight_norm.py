"""Weight norm: a weight is computed once for as long as nothing could notice."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import tconv.torch
from tconv.torch.module_weights.weight_norm import weight_norm_originals

X = torch.linspace(-1, 1, 16 * 9).reshape(1, 16, 9)
MODES = [torch.no_grad, torch.inference_mode]


def pair(kind=nn.ConvTranspose1d):
    """A module of tconv's and one of PyTorch's, both under weight norm, of the same numbers."""
    torch.manual_seed(0)
    theirs = parametrizations.weight_norm(kind(16, 8, 12, 3))
    ours = copy.deepcopy(theirs)
    tconv.torch.accelerate(ours)
    return ours, theirs


def made_by(module):
    return module.parametrizations.weight


@pytest.fixture
def makings(monkeypatch):
    """How often PyTorch's norm was called, and a weight packed."""
    from tconv.ops import planned_call

    counts, norm, packed = (
        {"made": 0, "packed": 0},
        parametrizations._WeightNorm,
        planned_call._pack,
    )

    def counted(name, function):
        def call(*args):
            counts[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(norm, "forward", counted("made", norm.forward))
    monkeypatch.setattr(planned_call, "_pack", counted("packed", packed))
    return counts


@pytest.mark.parametrize("mode", MODES)
def test_what_does_not_change_is_made_and_packed_once(mode, makings):
    ours, theirs = pair()
    with mode():
        expected = theirs(X)
        makings["made"] = 0
        for _ in range(3):
            torch.testing.assert_close(ours(X), expected)
    assert makings == {"made": 1, "packed": 1}
    ours.requires_grad_(False)  # as nobody learns it, gradients pass only through x
    x = X.clone().requires_grad_()
    ours(x).sum().backward()
    assert makings == {"made": 1, "packed": 1}


@pytest.mark.parametrize("mode", MODES)
def test_what_learns_is_made_for_each_call(mode, makings):
    ours, theirs = pair()
    with mode():
        ours(X)
    results = []
    for module in (ours, theirs):
        makings["made"] = 0
        for _ in range(2):
            (module(X) ** 2).sum().backward()
        assert makings["made"] == 2
        results.append([each.grad for each in module.parameters()])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    assert ours._tconv_weight_cache._normalised is None


# ---- what changes --------------------------------------------------------------------------------


def in_place(name, factor=0.5):
    def change(module):
        with torch.no_grad():
            getattr(made_by(module), name).mul_(factor)

    return change


def by_data(module):
    made_by(module).original0.data.neg_()


def by_numpy(module):
    made_by(module).original1.detach().numpy()[:, ::2] = 2


def another_parameter(module):
    made_by(module).original0 = nn.Parameter(made_by(module).original0.detach() + 1)


def other_data(module):
    made_by(module).original1.data = made_by(module).original1.detach() - 1


def a_state(module, assign=False):
    state = {k: v + 1 for k, v in module.state_dict().items()}
    module.load_state_dict(state, assign=assign)


def a_state_of_old(module):
    state = {k: v + 2 for k, v in module.state_dict().items()}
    for name, old in (("original0", "weight_g"), ("original1", "weight_v")):
        state[old] = state.pop(f"parametrizations.weight.{name}")
    module.load_state_dict(state)


def an_optimiser(module):
    module(X).sum().backward()
    torch.optim.SGD(module.parameters(), 0.1).step()


def a_weight(module):
    module.weight = module.weight.detach() + 1


def another_axis(module):
    weight = module.weight.detach()
    made_by(module)[0].dim = 1
    made_by(module).original0 = nn.Parameter(torch.norm_except_dim(weight, 2, 1) + 1)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def one_more(module):
    parametrize.register_parametrization(module, "weight", Doubled())


def a_hook(place):
    def change(module):
        place(module).register_forward_hook(lambda *args: args[-1] + 1)

    return change


def another_forward(module):
    norm = made_by(module)[0]
    norm.forward = lambda norms, directions: directions + norms


def none_at_all(module):
    parametrize.remove_parametrizations(module, "weight")
    with torch.no_grad():
        module.weight.add_(1)


def memory_that_is_shared(module):
    module.share_memory()
    made_by(module).original1.data.view(-1)[5].fill_(8)


CHANGES = {
    "norms": in_place("original0"),
    "one norm": lambda m: in_place("original0")(m) or made_by(m).original0.data[3].fill_(7),
    "directions": in_place("original1", torch.arange(12)),
    "by data": by_data,
    "by NumPy": by_numpy,
    "another parameter": another_parameter,
    "other data": other_data,
    "a state": a_state,
    "a state that is assigned": lambda m: a_state(m, assign=True),
    "a state of old": a_state_of_old,
    "an optimiser": an_optimiser,
    "a weight": a_weight,
    "another axis": another_axis,
    "one more": one_more,
    "a hook on the list": a_hook(made_by),
    "a hook on the norm": a_hook(lambda m: made_by(m)[0]),
    "another forward": another_forward,
    "none at all": none_at_all,
    "another type and back": lambda m: m.half().float(),
    "memory that is shared": memory_that_is_shared,
}


@pytest.mark.parametrize("mode", [*MODES, torch.enable_grad])
@pytest.mark.parametrize("change", CHANGES)
def test_weights_are_followed(change, mode):
    ours, theirs = pair()
    with mode():
        before = [theirs(X), *(ours(X) for _ in range(2))]
    for module in (ours, theirs):
        CHANGES[change](module)
    with mode():
        expected = theirs(X)
        for _ in range(2):
            torch.testing.assert_close(ours(X), expected)
    if change != "another type and back":
        assert (expected - before[0]).abs().max() > 0.01


def test_a_hook_for_all_modules_sees_every_call():
    ours, _ = pair()
    with torch.no_grad():
        ours(X)
        seen = []
        handle = nn.modules.module.register_module_forward_hook(
            lambda module, *_: seen.append(type(module).__name__)
        )
        try:
            for _ in range(2):
                ours(X)
        finally:
            handle.remove()
    assert seen.count("_WeightNorm") == 2


def test_what_is_cached_is_pytorchs():
    results = []
    for module in pair():
        with torch.no_grad(), parametrize.cached():
            first = module(X)
            in_place("original0")(module)
            results.append((first, module(X)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("kind", [nn.Parameter, lambda tensor: tensor])
def test_values_may_be_given_for_one_call(kind):
    results = []
    for module in pair():
        with torch.no_grad():
            given = {name: kind(2 * each) for name, each in module.named_parameters()}
            once = module(X)
            other = torch.func.functional_call(module, given, (X,))
            results.append((once, other, module(X)))
    torch.testing.assert_close(*results)
    assert not torch.equal(*results[0][:2])


def test_other_ways_to_make_a_weight_are_not_looked_into():
    with torch.no_grad():
        assert weight_norm_originals(nn.ConvTranspose1d(2, 3, 4)) is None
        assert (
            weight_norm_originals(parametrizations.spectral_norm(nn.ConvTranspose1d(2, 3, 4)))
            is None
        )
        ours, theirs = pair()
        assert weight_norm_originals(ours) is not None
        for made in (
            weight_norm_originals(theirs),
            weight_norm_originals(pair(tconv.torch.ConvTranspose1d)[0]),
        ):
            assert made is not None
        with torch.autocast("cpu"):
            assert weight_norm_originals(ours) is None
        with torch.device("cpu"):  # a mode that functions ask
            assert weight_norm_originals(ours) is None


def test_a_graph_reads_the_weights_when_it_runs():
    ours, theirs = pair()
    with torch.no_grad():
        ours(X)
        graph = torch.fx.symbolic_trace(nn.Sequential(ours))
        in_place("original0")(ours)
        in_place("original0")(theirs)
        torch.testing.assert_close(graph(X), theirs(X))


def test_copies_make_their_own():
    ours, theirs = pair()
    with torch.no_grad():
        ours(X)
        for made in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours._tconv_weight_cache))):
            kept = (
                made
                if isinstance(made, type(ours._tconv_weight_cache))
                else made._tconv_weight_cache
            )
            assert kept._normalised is None
        torch.testing.assert_close(ours(X), theirs(X))
