"""Modules of tconv.torch against PyTorch's: the same results after every change of a weight."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.testing._internal.common_modules import module_db
from torch.testing._internal.common_nn import get_new_module_tests

import tconv.torch
from tconv.torch.module_weights.packed_weights import WeightCache

# PyTorch's own ways through its own function still use what it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
PAIRS = {
    nn.ConvTranspose1d: tconv.torch.ConvTranspose1d,
    nn.ConvTranspose2d: tconv.torch.ConvTranspose2d,
    nn.ConvTranspose3d: tconv.torch.ConvTranspose3d,
}
X = torch.arange(2 * 16 * 4 * 4).reshape(2, 16, 4, 4).float() % 7 - 3


def pair(*args, **kwargs):
    """A module of tconv's and one of PyTorch's, of the same small integers."""
    ours = tconv.torch.ConvTranspose2d(*(args or (16, 8, 3)), **kwargs)
    with torch.no_grad():
        for each in ours.parameters():
            each.copy_((torch.arange(each.numel()) % 9 - 4).reshape(each.shape))
    theirs = nn.ConvTranspose2d(*(args or (16, 8, 3)), **kwargs)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


# ---- what PyTorch tests its own modules with -----------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", PAIRS)
def test_the_module_tests_of_pytorch_pass(kind, dtype):
    (info,) = [info for info in module_db if info.module_cls is kind]
    inputs = info.module_inputs_func(info, "cpu", dtype, True, True)
    assert len(inputs) == 2
    for each in inputs:
        made = each.constructor_input
        theirs = kind(*made.args, **made.kwargs).to(dtype)
        ours = PAIRS[kind](*made.args, **made.kwargs).to(dtype)
        ours.load_state_dict(theirs.state_dict())
        assert repr(ours) == repr(theirs)
        assert isinstance(ours, kind)
        given = each.forward_input
        results = []
        for module in (ours, theirs):
            y = module(*given.args, **given.kwargs)
            inner = [*given.args[:1], *module.parameters()]
            results.append([y, *torch.autograd.grad((y * y).sum(), inner)])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


CLASSIC = [
    each for each in get_new_module_tests()
    if "ConvTranspose" in each.get("fullname", each.get("module_name", ""))
]  # fmt: skip


@pytest.mark.parametrize("place", range(10))
def test_the_older_module_tests_of_pytorch_pass(place):
    assert len(CLASSIC) == 10
    case = CLASSIC[place]
    if "constructor" in case:
        theirs = case["constructor"]()
    else:
        theirs = getattr(nn, case["module_name"])(*case["constructor_args"])
    ours = copy.deepcopy(theirs)
    assert len(tconv.torch.accelerate(ours).swapped) == 1
    for dtype in (torch.float32, torch.float64):
        x = torch.rand(case["input_size"], dtype=dtype, requires_grad=True)
        results = []
        for module in (ours.to(dtype), theirs.to(dtype)):
            y = module(x)
            results.append([y, *torch.autograd.grad((y * y).sum(), [x, *module.parameters()])])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    names = [name for name, _ in ours.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(ours, dict(zip(names, values, strict=True)), (x,))

    inner = [x, *(each.detach().clone().requires_grad_() for each in ours.parameters())]
    assert torch.autograd.gradcheck(call, inner, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, inner)


@pytest.mark.parametrize("size", [(9, 9), [10, 9], (2, 8, 10, 10), torch.Size([9, 10])])
def test_output_size_is_pytorchs(size):
    ours, theirs = pair(16, 8, 3, stride=2)
    assert torch.equal(ours(X, size), theirs(X, size))
    assert torch.equal(ours(X, output_size=size), theirs(X, output_size=size))
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="requested an output size"):
            module(X, (30, 30))


def test_other_padding_modes_are_refused_as_by_pytorch():
    for kind in PAIRS[nn.ConvTranspose2d], nn.ConvTranspose2d:
        with pytest.raises(ValueError, match='Only "zeros" padding mode'):
            kind(1, 1, 1, padding_mode="circular")


# ---- packed weights ------------------------------------------------------------------------------


def halve(module):
    with torch.no_grad():
        module.weight.mul_(0.5)


CHANGES = {
    "in place": halve,
    "by data": lambda m: m.weight.data.neg_(),
    "by NumPy": lambda m: m.weight.detach().numpy().fill(2),
    "another parameter": lambda m: setattr(m, "weight", nn.Parameter(m.weight.detach() + 1)),
    "other data": lambda m: setattr(m.weight, "data", m.weight.detach() - 1),
    "a state": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "a state that is assigned": lambda m: m.load_state_dict(
        {k: v * 2 for k, v in m.state_dict().items()}, assign=True),
    "an optimiser": lambda m: (m(X).sum().backward(), torch.optim.SGD(m.parameters(), 1).step()),
    "an initialiser": lambda m: nn.init.constant_(m.weight, 3),
    "another type and back": lambda m: m.half().float(),
    "memory that is shared": lambda m: (m.share_memory(), m.weight.data.view(-1)[5].fill_(8)),
    "channels last": lambda m: (m.to(memory_format=torch.channels_last), halve(m)),
}  # fmt: skip


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES)
def test_weights_are_followed(change, mode):
    ours, theirs = pair()
    with mode():
        for _ in range(2):
            assert torch.equal(ours(X), theirs(X))
    for module in (ours, theirs):
        CHANGES[change](module)
    with mode():
        for _ in range(2):
            assert torch.equal(ours(X), theirs(X))


def test_what_does_not_change_is_packed_once(monkeypatch):
    from tconv.ops import planned_call

    packed, made = [], planned_call._pack
    monkeypatch.setattr(planned_call, "_pack", lambda *args: packed.append(1) or made(*args))
    ours, _ = pair()
    ours.eval()  # in training it changes with every step
    with torch.no_grad():
        for _ in range(3):
            ours(X)
    ours(X).sum().backward()
    assert len(packed) == 1
    halve(ours)
    ours(X)
    assert len(packed) == 2


def test_what_is_kept_goes_with_the_module():
    ours, theirs = pair()
    ours(X)
    assert isinstance(ours.__dict__["_tconv_weight_cache"], WeightCache)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert len(pickle.dumps(ours)) < 2 * ours.weight.nbytes
    for made in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        halve(made)
        assert torch.equal(ours(X), theirs(X))
        assert not torch.equal(made(X), theirs(X))
    ours.double()
    assert ours._tconv_weight_cache._entry is None


def test_weights_made_for_inference_are_followed():
    with torch.inference_mode():
        ours, theirs = pair()
        for _ in range(2):
            assert torch.equal(ours(X), theirs(X))
            for module in (ours, theirs):
                module.weight.add_(1)


# ---- processes -----------------------------------------------------------------------------------


class Grown(torch.utils.data.Dataset):
    """Samples that a module computes where they are loaded."""

    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 4

    def __getitem__(self, n):
        with torch.no_grad():
            return self.module(X[n % 2 : n % 2 + 1] * (n + 1))[0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX, where another test loaded it
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_modules_work_where_data_are_loaded(context):
    ours, theirs = pair()
    torch.set_num_threads(max(2, torch.get_num_threads()))
    ours(X)  # with threads that do not come along into a fork
    loader = torch.utils.data.DataLoader(
        Grown(ours), batch_size=2, num_workers=2, multiprocessing_context=context, timeout=60
    )
    assert torch.equal(
        torch.cat([*loader]), torch.stack([*map(Grown(theirs).__getitem__, range(4))])
    )


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        tconv.torch.ConvTranspose2d(3, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        tconv.torch.ConvTranspose2d(8, 2, 3),
    ).double()


def batch():
    return torch.linspace(-1, 1, 4 * 3 * 5 * 5, dtype=torch.float64).reshape(4, 3, 5, 5)


def _train(rank, folder, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    parallel = nn.parallel.DistributedDataParallel(model())
    (parallel(batch()[rank::2]) ** 2).mean().backward()
    results.put((rank, [each.grad.numpy() for each in parallel.module.parameters()]))
    results.close()
    results.join_thread()
    torch.distributed.barrier()
    # PyTorch 2.13 may hang where the module is destroyed: its Reducer joins Gloo's thread and holds
    # the interpreter's lock, which that thread wants in order to drop the barrier.
    os._exit(0)


def test_two_processes_find_the_gradients_of_one():
    single = model()
    (single(batch()) ** 2).mean().backward()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_train, args=(rank, folder, results)) for rank in range(2)
        ]
        for each in processes:
            each.start()
        found = dict(results.get(timeout=120) for _ in processes)
        for each in processes:
            each.join(60)
            assert each.exitcode == 0
    for gradients in found.values():
        for gradient, each in zip(gradients, single.parameters(), strict=True):
            torch.testing.assert_close(torch.from_numpy(gradient), each.grad)


def holds(module):
    """Whether a module keeps its weight packed after a call."""
    kept = vars(module).get("_tconv_weight_cache")
    return kept is not None and kept._entry is not None


def _shard(model, how):
    from torch.distributed import fsdp

    if how == "data parallel":
        return nn.parallel.DistributedDataParallel(model)
    if how.startswith("FSDP1"):
        ups = fsdp.wrap.ModuleWrapPolicy({nn.ConvTranspose2d}) if "each" in how else None
        return fsdp.FullyShardedDataParallel(
            model, use_orig_params="own" in how, auto_wrap_policy=ups, device_id=torch.device("cpu")
        )
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    if "each" in how:
        for layer in (model[0], model[2]):
            fsdp.fully_shard(layer, mesh=mesh)
    return fsdp.fully_shard(model, mesh=mesh)


SHARDED = ("data parallel", "FSDP1", "FSDP1 own", "FSDP1 each", "FSDP2", "FSDP2 each")


def _train_in_parts(how, when):
    """Results of some steps of a model that is wrapped, and accelerated before or after that."""
    parallel = model()
    tconv.torch.restore(parallel)
    if when == "before":
        assert len(tconv.torch.accelerate(parallel).swapped) == 2
    parallel = _shard(parallel, how)
    if when == "after":
        report = tconv.torch.accelerate(parallel)
        assert (len(report.swapped), report.left) == (2, {})
    optimiser, found = torch.optim.SGD(parallel.parameters(), 0.1), []
    for _ in range(3):
        optimiser.zero_grad()
        y = parallel(batch())
        (y**2).mean().backward()
        optimiser.step()
        found.append(y.detach())
    with torch.no_grad():
        found += [parallel(batch()) for _ in range(2)]
    assert any(map(holds, parallel.modules())) == (
        when != "never" and how == "data parallel"
    )  # those weights come and go
    assert len(tconv.torch.restore(parallel)) == 2 * (when != "never")
    found.append(parallel(batch()).detach())
    return [each.numpy() for each in found]


def _train_sharded(folder, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's, about one process and its own ways
        for how in SHARDED:
            results.put((how, [_train_in_parts(how, w) for w in ("never", "before", "after")]))
    torch.distributed.destroy_process_group()


def test_sharded_models_learn_the_same():
    """FSDP resizes the memory of weights, changes classes and puts tensors of its own there."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_train_sharded, args=(folder, results))
        process.start()
        found = dict(results.get(timeout=120) for _ in SHARDED)
        process.join(60)
        assert process.exitcode == 0
    for how in SHARDED:
        expected, *others = found[how]
        assert abs(expected[0] - expected[3]).max() > 1e-3  # it has learnt
        for each in others:
            for pair in zip(each, expected, strict=True):
                torch.testing.assert_close(*map(torch.from_numpy, pair))


# ---- weights that come and go --------------------------------------------------------------------


class Loaded:
    """What puts weights into a module for the time of a call, as tools do that offload them."""

    def __init__(self, module):
        self.module, self.forward = module, module.forward
        self.stored = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.unload()
        module.forward = self

    def unload(self):
        for name, stored in self.stored.items():
            self.module._parameters[name] = nn.Parameter(stored.to("meta"), requires_grad=False)

    def __call__(self, *args, **kwargs):
        for name, stored in self.stored.items():
            self.module._parameters[name] = nn.Parameter(stored.clone(), requires_grad=False)
        self.memory = weakref.ref(self.module.weight.untyped_storage())
        y = self.forward(*args, **kwargs)
        self.unload()
        return y


@pytest.mark.parametrize("is_used", [False, True])
def test_weights_that_are_loaded_for_each_call_leave_nothing_behind(is_used):
    ours, theirs = pair()
    with torch.no_grad():
        if is_used:
            ours(X)
        loaded = Loaded(ours)
        for factor in (1, 2, 3):
            for each in loaded.stored.values():
                each.mul_(factor)
            for each in theirs.parameters():
                each.mul_(factor)
            assert torch.equal(ours(X), theirs(X))
            assert not holds(ours)
            assert loaded.memory() is None
            assert ours.weight.is_meta
    assert "its forward was replaced" in tconv.torch.accelerate(nn.Sequential(replaced())).left["0"]


def replaced():
    module = nn.ConvTranspose2d(1, 1, 1)
    Loaded(module)
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_of_tensors_may_still_be_resized(dtype):
    ours, _ = pair()
    ours, x = ours.to(dtype), X.clone().to(dtype).requires_grad_()
    ours(x).sum().backward()
    with torch.no_grad():
        ours(x)
    for tensor in (x, ours.weight, ours.bias):
        assert tensor.untyped_storage().resizable()
    x.untyped_storage().resize_(0)


# ---- what is loaded ------------------------------------------------------------------------------


def test_pytorch_is_loaded_when_it_is_asked_for_and_missed_in_one_line():
    code = (
        "import sys, tconv\n"
        "tconv.conv_transpose([[[1.0]]], [[[1.0]]])\n"
        "assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "import tconv.torch\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith("ImportError: tconv.torch needs PyTorch: pip install torch.\n")
