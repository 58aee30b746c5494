"""Cached weights: PyTorch's results after any write to a weight, and no packing without one."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import tconv
import tconv.torch
from tconv.engine import content_hash

MODES = [torch.no_grad, torch.inference_mode, torch.enable_grad]
KINDS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
# Of 64 samples of these weights, at equal distances, most are of one tap and of few channels.
SIZES = {1: (64, 64, 16, 8, 4), 2: (64, 64, 4, 2, 1), 3: (32, 32, 4, 2, 1)}


def whole_numbers(module):
    """Give small integers to all parameters, so that every sum is exact."""
    with torch.no_grad():
        for each in module.parameters():
            each.copy_((torch.arange(each.numel()) * 7 % 11 - 5).reshape(each.shape))
    return module


def pair(rank=2, frozen=False, last=False):
    """A module that tconv computes, and one of PyTorch's, of the same small integers."""
    theirs = whole_numbers(KINDS[rank](*SIZES[rank]))
    if last:
        theirs.to(memory_format={2: torch.channels_last, 3: torch.channels_last_3d}[rank])
    ours = copy.deepcopy(theirs)
    tconv.torch.accelerate(ours, frozen=frozen)
    return ours.eval(), theirs.eval()


def x_of(rank):
    channels = SIZES[rank][0]
    size = {1: (5,), 2: (3, 4), 3: (2, 3, 2)}[rank]
    count = 2 * channels * int(np.prod(size))
    return (torch.arange(count) % 5 - 2).reshape(2, channels, *size).float()


def agree(ours, theirs, x, mode=torch.no_grad):
    with mode():
        expected = theirs(x)
        for _ in range(2):
            assert torch.equal(ours(x), expected)


# ---- any write -----------------------------------------------------------------------------------


def masked(module):
    mask = torch.zeros_like(module.weight)
    mask[::3, 1::2] = 1
    module.weight.data.mul_(mask)


def swapped_channels(module):
    data = module.weight.data
    data[[3, 11]] = data[[11, 3]].clone()


def random_column(module):
    generator = torch.Generator().manual_seed(3)
    shape = module.weight.shape
    place = [int(torch.randint(n, (1,), generator=generator)) for n in shape[1:]]
    module.weight.data[:, place[0]] = 0


def by_view(module):
    view = module.weight.detach().numpy()
    view[5, 3:] = 2


def in_memory_of_numpy(module):
    memory = np.full(tuple(module.weight.shape), 3, np.float32)
    module.weight.data = torch.from_numpy(memory)
    with torch.no_grad():
        module(x_of(module.weight.ndim - 2))
    memory[1, 1:] = -2


def pruned_for_good(module):
    prune.ln_structured(module, "weight", 0.5, n=1, dim=1)
    prune.remove(module, "weight")


def set_elsewhere(module):
    with torch.no_grad():
        module.weight.set_(module.weight.detach() * 2)


WRITES = {
    "all but one column": lambda m: m.weight.data[:, 1:].zero_(),
    "a mask": masked,
    "one channel of x": lambda m: m.weight.data[7].zero_(),
    "one channel of y": lambda m: m.weight.data[:, 9].zero_(),
    "a random column": random_column,
    "one element": lambda m: m.weight.data.view(-1)[12345].add_(1),
    "one element far back": lambda m: m.weight.data.view(-1)[-2].add_(1),
    "swapped channels": swapped_channels,
    "rolled channels": lambda m: m.weight.data.copy_(m.weight.data.roll(1, 1)),
    "a sign": lambda m: m.weight.data[2, 3].neg_(),
    "a view of NumPy's": by_view,
    "memory of NumPy's": in_memory_of_numpy,
    "pruning": lambda m: prune.random_unstructured(m, "weight", 0.5),
    "pruning for good": pruned_for_good,
    "other memory": set_elsewhere,
    "another order in memory": lambda m: setattr(m.weight, "data", m.weight.data.transpose(0, 1)),
    "a state that is assigned": lambda m: m.load_state_dict(
        {k: v * 2 for k, v in m.state_dict().items()}, assign=True),
    "a deep copy": lambda m: copy.deepcopy(m).weight.data.zero_(),
    "a negated view": lambda m: setattr(m, "weight", nn.Parameter(torch._neg_view(m.weight.data))),
}  # fmt: skip


def agree_after(writes, ours, theirs, x, mode=torch.no_grad):
    """Compare after each write of `WRITES` to both modules; None stands for no write."""
    for write in writes:
        for module in (ours, theirs) if write else ():
            WRITES[write](module)
        agree(ours, theirs, x, mode)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    ("rank", "mode"), [(1, MODES[0]), *((2, mode) for mode in MODES), (3, MODES[1])]
)
def test_results_are_pytorchs_after_any_write(rank, write, mode):
    torch.manual_seed(0)
    ours, theirs = pair(rank)
    x = x_of(rank)
    agree(ours, theirs, x, mode)
    for module in (ours, theirs):
        torch.manual_seed(1)
        WRITES[write](module)
    agree(ours, theirs, x, mode)
    for module in (ours, theirs):
        with mode():
            module.weight.data[3, 1:] = 1
    agree(ours, theirs, x, mode)


@pytest.mark.parametrize("rank", [2, 3])
def test_weights_that_are_channels_last_are_read_whole(rank):
    ours, theirs = pair(rank, last=True)
    x = x_of(rank)
    agree(ours, theirs, x)
    writes = (
        "all but one column",
        "one channel of y",
        "swapped channels",
        "a view of NumPy's",
    )
    agree_after(writes, ours, theirs, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_all_types_are_read_whole(dtype):
    ours, theirs = pair()
    x = x_of(2).to(dtype)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    for write in (None, "one element", "a sign", "swapped channels"):
        if write:
            for module in (ours, theirs):
                WRITES[write](module)
        with torch.no_grad():
            expected = nn.functional.conv_transpose2d(
                x.double(), theirs.weight.double(), theirs.bias.double(), 2, 1
            )
            for _ in range(2):
                assert torch.equal(ours(x), expected.to(dtype))


def test_a_weight_with_holes_is_computed_as_it_is_now():
    ours, theirs = pair()
    x = x_of(2)
    for module in (ours, theirs):
        room = torch.zeros(64, 64, 4, 9)
        room[..., ::2][..., :4] = module.weight.detach()
        module.weight = nn.Parameter(room[..., ::2][..., :4])
    agree(ours, theirs, x)
    for module in (ours, theirs):
        module.weight.data[:, 1:, 2] = 4
    agree(ours, theirs, x)


@pytest.mark.parametrize("seed", range(5))
def test_random_writes_are_all_seen(seed):
    rng = np.random.default_rng(seed)
    ours, theirs = pair(2)
    x = x_of(2)
    agree(ours, theirs, x)
    for _ in range(20):
        low = [int(rng.integers(n)) for n in ours.weight.shape]
        high = [int(rng.integers(a, n)) + 1 for a, n in zip(low, ours.weight.shape, strict=True)]
        box = tuple(slice(*each) for each in zip(low, high, strict=True))
        value = float(rng.integers(-3, 4))
        for module in (ours, theirs):
            module.weight.data[box] = value
        agree(ours, theirs, x)


@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize("part", ["original0", "original1"])
def test_writes_to_the_originals_of_a_weight_norm_are_seen(part, mode):
    torch.manual_seed(0)
    theirs = parametrizations.weight_norm(nn.ConvTranspose1d(64, 64, 16, 8, 4))
    ours = copy.deepcopy(theirs)
    report = tconv.torch.accelerate(ours)
    x = x_of(1)

    def compare():
        with mode():
            expected = theirs(x)
            for _ in range(2):
                torch.testing.assert_close(ours(x), expected)

    compare()
    compare()
    assert report.packed() == {"ParametrizedConvTranspose1d": 1}
    for write in (
        lambda t: t.data[1:].mul_(3),
        lambda t: t.data.view(-1)[17].add_(1),
        lambda t: t.detach().numpy()[5].fill(2),
        lambda t: t.data.copy_(t.data.roll(1, 0)),
    ):
        for module in (ours, theirs):
            write(getattr(module.parametrizations.weight, part))
        compare()
    assert report.packed() == {"ParametrizedConvTranspose1d": 5}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("how", [{"foreach": False}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_steps_of_optimisers_are_seen(make, how, frozen):
    ours, theirs = pair(2, frozen)
    x = x_of(2)
    optimiser = make(ours.parameters(), lr=0.25, **how)
    for _ in range(3):
        with torch.no_grad():
            for _ in range(2):
                torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-3)
        for each in ours.parameters():
            each.grad = (torch.arange(each.numel()) % 3 - 1.0).reshape(each.shape)
        optimiser.step()
        assert not torch.equal(ours.weight, theirs.weight)
        theirs.load_state_dict(ours.state_dict())


def test_steps_of_other_parameters_do_not_pack_again():
    ours, theirs = pair(2, frozen=True)
    report = tconv.torch.accelerate(
        other := nn.Sequential(nn.ConvTranspose2d(*SIZES[2])).eval()  # which keeps its weight
    )
    optimiser = torch.optim.Adam(other.parameters(), fused=True)
    packings = ours._tconv_weight_cache.packings
    for n in range(3):
        agree(ours, theirs, x_of(2))
        other(x_of(2)).sum().backward()
        optimiser.step()
        assert packings.count == 1
        assert report.packed() == {"0": n + 1}


def test_a_model_made_for_inference_is_read_whole():
    with torch.inference_mode():
        ours, theirs = pair(2)
        x = x_of(2)
        writes = (None, "all but one column", "one element", "swapped channels")
        agree_after(writes, ours, theirs, x, torch.inference_mode)
        tconv.torch.freeze(ours)  # and so is it then: such weights have no version
        writes = (None, "a sign", "one channel of x")
        agree_after(writes, ours, theirs, x, torch.inference_mode)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_weights_are_read_by_all_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        theirs = whole_numbers(nn.ConvTranspose2d(256, 256, 4, 2, 1))
        ours = copy.deepcopy(theirs)
        report = tconv.torch.accelerate(ours)
        x = (torch.arange(256 * 4) % 3 - 1).reshape(1, 256, 2, 2).float()
        agree(ours, theirs, x)
        for place in (0, 2**19, 2**20 - 1):
            for module in (ours, theirs):
                module.weight.data.view(-1)[place] += 1
            agree(ours, theirs, x)
    finally:
        torch.set_num_threads(before)
    assert report.packed() == {"ConvTranspose2d": 4}


def test_weights_are_read_whole_without_machine_code(monkeypatch):
    monkeypatch.setattr(content_hash, "_native", lambda: None)
    ours, theirs = pair()
    x = x_of(2)
    agree_after((None, "all but one column", "one element", "swapped channels"), ours, theirs, x)


def test_weights_of_a_weight_norm_are_made_for_each_call_without_machine_code(monkeypatch):
    monkeypatch.setattr(content_hash, "_native", lambda: None)
    theirs = parametrizations.weight_norm(nn.ConvTranspose1d(64, 64, 16, 8, 4))
    ours = copy.deepcopy(theirs)
    report = tconv.torch.accelerate(ours)
    x = x_of(1)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(ours(x), theirs(x))
            for module in (ours, theirs):
                module.parametrizations.weight.original1.data[:, 1:] += 1
    assert report.packed() == {"ParametrizedConvTranspose1d": 3}


# ---- frozen --------------------------------------------------------------------------------------


def another(module):
    module.weight = nn.Parameter(module.weight.detach() + 1)


def exchanged(module):
    other = nn.Parameter(module.weight.detach() - 1)
    torch.utils.swap_tensors(module.weight, other)


def in_place(module):
    with torch.no_grad():
        module.weight[:, 1:] = 0


def other_data(module):
    module.weight.data = module.weight.detach() * 2


def transposed(module):
    module.weight.data = module.weight.data.transpose(0, 1)


def loaded(module):
    module.load_state_dict({k: v + 1 for k, v in module.state_dict().items()})


def loaded_by_exchange(module):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        loaded(module)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def converted_by_exchange(module):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module.double().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


SEEN = (
    *(another, exchanged, in_place, other_data, transposed),
    *(loaded, loaded_by_exchange, converted_by_exchange, set_elsewhere),
)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", SEEN)
def test_what_pytorch_does_to_weights_is_seen_frozen_or_not(change, mode, frozen):
    ours, theirs = pair(2, frozen)
    x = x_of(2)
    agree(ours, theirs, x, mode)
    for _ in range(2):
        for module in (ours, theirs):
            change(module)
        agree(ours, theirs, x, mode)


@pytest.mark.parametrize("frozen", [False, True])
def test_another_parameter_of_the_same_memory_and_version_is_another(frozen):
    ours, theirs = pair(2, frozen)
    x = x_of(2)
    for module in (ours, theirs):
        with torch.no_grad():
            module.weight.mul_(1)
    agree(ours, theirs, x)
    for module in (ours, theirs):
        before = module.weight
        module.weight = nn.Parameter(before.data)
        with torch.no_grad():
            module.weight[:, 1:] = 3
            while module.weight._version < before._version:
                module.weight.mul_(1)
        assert module.weight._version == before._version
        assert module.weight.data_ptr() == before.data_ptr()
    agree(ours, theirs, x)


def test_memory_that_is_used_again_is_not_taken_for_the_same():
    """Places and versions agree often where tensors come and go."""
    ours, theirs = pair(2, frozen=True)
    x = x_of(2)
    agree(ours, theirs, x)
    for n in range(30):
        value = theirs.weight.detach() + n % 5
        for module in (ours, theirs):
            if n % 3 == 0:
                module.weight.data = value.clone()
            elif n % 3 == 1:
                module.weight = nn.Parameter(value.clone())
            else:
                other = nn.Parameter(value.clone())
                torch.utils.swap_tensors(module.weight, other)
                del other
        agree(ours, theirs, x)


def test_frozen_weights_are_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(
        "tconv.torch.module_weights.fingerprints.hash_memory",
        lambda *where: read.append(where) or hash(where),
    )
    ours, theirs = pair(2, frozen=True)
    for _ in range(3):
        agree(ours, theirs, x_of(2))
    where = ours.weight.data_ptr(), ours.weight.nbytes, torch.get_num_threads()
    assert read == [where]
    tconv.torch.freeze(ours, False)
    agree(ours, theirs, x_of(2))
    assert read == [where] * 3


def test_a_frozen_model_is_refreshed():
    ours, theirs = pair(2, frozen=True)
    x = x_of(2)
    agree(ours, theirs, x)
    stale = theirs(x)
    for module in (ours, theirs):
        module.weight.data[:, 1:] = 0
    with torch.no_grad():
        assert torch.equal(ours(x), stale)  # the contract
    assert tconv.torch.refresh(ours) == ("ConvTranspose2d",)
    agree(ours, theirs, x)
    for module in (ours, theirs):
        module.weight.data[:, 2:] = 1
    tconv.torch.freeze(ours, False)
    agree(ours, theirs, x)
    for module in (ours, theirs):
        module.weight.data[1] = 2
    agree(ours, theirs, x)


def test_weights_of_a_frozen_weight_norm_are_refreshed():
    theirs = parametrizations.weight_norm(nn.ConvTranspose1d(64, 64, 16, 8, 4))
    ours = nn.Sequential(copy.deepcopy(theirs))
    report = tconv.torch.accelerate(ours, frozen=True)
    x = x_of(1)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(ours(x), theirs(x))
        assert report.packed() == {"0": 1}
        for module in (ours[0], theirs):
            module.parametrizations.weight.original1.mul_(torch.arange(1.0, 65)[:, None, None])
        torch.testing.assert_close(ours(x), theirs(x))
        for module in (ours[0], theirs):
            module.parametrizations.weight.original0.data[3:] = 2
        tconv.torch.refresh(ours)
        torch.testing.assert_close(ours(x), theirs(x))


def is_frozen(module):
    return module._tconv_weight_cache.is_frozen


def test_copies_stay_frozen_and_restored_modules_do_not():
    ours, _ = pair(2, frozen=True)
    ours(x_of(2))
    for made in (ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), copy.copy(ours)):
        assert is_frozen(made)
    ours.double().float()
    assert is_frozen(ours)
    made = copy.deepcopy(ours)
    assert tconv.torch.restore(made) == ("ConvTranspose2d",)
    assert "_tconv_weight_cache" not in vars(made)
    tconv.torch.accelerate(made)
    assert not is_frozen(made)
    assert is_frozen(ours)


def test_what_is_frozen_is_what_tconv_computes():
    class Mine(tconv.torch.ConvTranspose1d):
        pass

    model = nn.Sequential(nn.ConvTranspose1d(1, 1, 1), nn.ReLU(), Mine(1, 1, 1))
    assert tconv.torch.freeze(model) == ("2",)
    report = tconv.torch.accelerate(model, frozen=True)
    assert report.swapped == ("0",)
    assert is_frozen(model[0])
    assert is_frozen(model[2])
    assert tconv.torch.refresh(model) == ("0", "2")
    assert tconv.torch.freeze(model, False) == ("0", "2")
    assert not is_frozen(model[0])
    for call in (tconv.torch.freeze, lambda m, f: tconv.torch.accelerate(m, frozen=f)):
        with pytest.raises(tconv.ParameterError, match="frozen='no' must be True or False"):
            call(model, "no")


# ---- what is held, and what is counted -----------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_holds_a_parameter_weakly(frozen):
    ours, theirs = pair(2, frozen)
    agree(ours, theirs, x_of(2))
    assert weakref.getweakrefcount(ours.weight) == 0


def test_a_weight_that_was_replaced_is_let_go():
    ours, theirs = pair(2)
    agree(ours, theirs, x_of(2))
    before = weakref.ref(ours.weight)
    another(ours)
    gc.collect()
    assert before() is None


@pytest.mark.parametrize("frozen", [False, True])
def test_the_report_counts_and_holds_no_model(frozen):
    model = nn.Sequential(nn.ConvTranspose2d(*SIZES[2]), nn.ReLU(), nn.Conv2d(64, 1, 1)).eval()
    report = tconv.torch.accelerate(model, frozen=frozen, convolutions=False)
    x = x_of(2)
    assert report.packed() == {"0": 0}
    assert str(report).endswith("tconv\n  0: not called yet")
    with torch.no_grad():
        for count in (1, 2):
            for _ in range(3):
                model(x)
            assert report.packed() == {"0": count}
            model[0].weight.mul_(2)
    assert str(report).endswith("tconv\n  0: by tconv, its weight packed 2 times")
    model.double().float()
    model(x)
    assert report.packed() == {"0": 3}
    kept = pickle.loads(pickle.dumps(report))
    assert kept == report
    assert kept.packed() == copy.deepcopy(report).packed() == {"0": 3}
    copy.deepcopy(model)(x)
    assert report.packed() == {"0": 3}
    gone = weakref.ref(model[0])
    del model
    gc.collect()
    assert gone() is None
    assert report.packed() == {"0": 3}


def test_weights_that_are_packed_for_each_call_are_counted():
    model = parametrizations.spectral_norm(nn.ConvTranspose2d(*SIZES[2])).eval()
    report = tconv.torch.accelerate(model)
    with torch.no_grad():
        for _ in range(3):
            model(x_of(2))
    assert report.packed() == {"ParametrizedConvTranspose2d": 3}
