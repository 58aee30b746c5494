"""Hostile values in calls with tensors: every error is tconv's or PyTorch's.

What tconv leaves to PyTorch may be refused by PyTorch, in its own words: the same call of its own
function must then fail, too.
"""

import os
from functools import partial

import pytest
import torch
from test_hostile_calls import complaints
from torch import nn
from torch.nn import functional

import tconv
import tconv.torch
from hostile_calls import CALLS, call
from hostile_values import VALUES
from tconv.errors import TConvError

PARTS, CALLS_OF_A_PART = {"ci": (2, 500), "thorough": (10, 1000)}.get(
    os.environ.get("HYPOTHESIS_PROFILE", "quick"), (1, 200)
)
NOT_CALLED = {  # records, and what is called as PyTorch's
    *("Acceleration", "CompilationReport", "CompiledGraphReport", "CompiledRegion", "Tracer"),
    "TorchStream",  # made by `stream`
}

TENSORS = {
    "tensor": lambda: torch.ones(1, 2, 4),
    "parameter": lambda: nn.Parameter(torch.ones(1, 2, 4)),
    "0-d tensor": lambda: torch.tensor(2),
    "tensor of booleans": lambda: torch.ones(1, 2, 4, dtype=torch.bool),
    "integer tensor": lambda: torch.ones(1, 2, 4, dtype=torch.int64),
    "complex tensor": lambda: torch.ones(1, 2, 4, dtype=torch.complex64),
    "bfloat16 tensor": lambda: torch.ones(1, 2, 4, dtype=torch.bfloat16),
    "float8 tensor": lambda: torch.ones(1, 2, 4).to(torch.float8_e5m2),
    "empty tensor": lambda: torch.ones(0, 2, 4),
    "tensor without channels": lambda: torch.ones(1, 0, 4),
    "meta tensor": lambda: torch.ones(1, 2, 4, device="meta"),
    "sparse tensor": lambda: torch.ones(1, 2, 4).to_sparse(),
    "quantised tensor": lambda: torch.quantize_per_tensor(torch.ones(1, 2, 4), 0.1, 0, torch.qint8),
    "huge tensor": lambda: torch.zeros(1, 1, 1).expand(1, 2, 2**50),
    "tensor of 2**31": lambda: torch.zeros(1, 1, 1, dtype=torch.int8).expand(2**31, 2, 4),
    "many axes of a tensor": lambda: torch.ones((1,) * 60),
    "negative view": lambda: torch.ones(1, 2, 4, dtype=torch.complex64).conj().imag,
    "torch.Size": lambda: torch.Size([1, 2, 4]),
    "torch.float32": lambda: torch.float32,
    "torch.device": lambda: torch.device("cpu"),
    "torch.strided": lambda: torch.strided,
    "module": lambda: nn.ConvTranspose1d(2, 3, 3),
    "other module": lambda: nn.Linear(2, 2),
    "lazy module": lambda: nn.LazyConvTranspose1d(3, 3),
    "module list": lambda: nn.ModuleList([nn.ReLU()]),
    "torch": lambda: torch,
}


class RefusedByPyTorch(Exception):
    """PyTorch's own function fails with such arguments, too."""


def ours_or_theirs(ours, theirs):
    """A function of tconv's; what it refuses in PyTorch's words, PyTorch's refuses, too."""

    def function(*args, **keywords):
        try:
            return ours(*args, **keywords)
        except TConvError:
            raise
        except Exception as error:
            try:
                theirs(*args, **keywords)
            except Exception:
                raise RefusedByPyTorch from error
            raise

    return function


def register():
    """Put these calls in the place of all others, and tensors beside all other values."""
    CALLS.clear()
    VALUES.update(TENSORS)
    for rank in (1, 2, 3):
        register_rank(rank)
    for name in ("accelerate", "restore"):
        model = partial(nn.Sequential, nn.ConvTranspose1d(2, 3, 3))
        call(f"torch.{name}")(
            lambda folder, name=name, model=model: partial(getattr(tconv.torch, name), model())
        )
    for name, keywords in (
        ("accelerate", {"frozen": True}),
        ("freeze", {"frozen": True}),
        ("refresh", {}),
    ):
        model = partial(nn.Sequential, tconv.torch.ConvTranspose1d(2, 3, 3))
        call(f"torch.{name}")(
            lambda folder, name=name, model=model, keywords=keywords: partial(
                getattr(tconv.torch, name), model(), **keywords
            )
        )
    call("torch.report")(
        lambda folder: partial(
            tconv.torch.report, torch.compile(nn.Conv1d(2, 3, 3), backend="tconv")
        )
    )

    def pushed(*args, **given):
        made = tconv.torch.stream(*args, **given)
        return made.push(torch.ones(1, 2, 4)), made.flush()

    def streamed(folder):
        module, example = nn.Conv1d(2, 3, 3).eval(), torch.ones(1, 2, 8)
        return partial(pushed, module, example, axis=2, threads=1, frames=4)

    for _ in range(3):
        call("torch.stream")(streamed)
    call("from_torch")(lambda folder: partial(tconv.from_torch, nn.Conv1d(2, 3, 3)))
    call("fold_batch_norm")(
        lambda folder: partial(
            tconv.fold_batch_norm, tconv.Conv1d(2, 3, 3, rng=0), nn.BatchNorm1d(3).eval()
        )
    )
    x, w = torch.ones(1, 2, 4), torch.ones(2, 3, 3)
    keywords = {"stride": 1, "padding": 0, "dtype": None, "threads": 1, "max_bytes": None}
    for name in ("conv_transpose", "conv_transpose_vjp"):
        call(name)(
            lambda folder, name=name: partial(
                getattr(tconv, name), x, w, torch.ones(3), out=None, **keywords
            )
        )
    call("see", outside=(OSError,))(
        lambda folder: partial(tconv.see, nn.Conv2d(1, 2, 3), torch.ones(1, 4, 4).numpy(), 0)
    )


def register_rank(rank):
    """The function and the module of a number of axes."""
    name = f"conv_transpose{rank}d"
    x, w = torch.ones(1, 2, *[4] * rank), torch.ones(2, 3, *[3] * rank)

    @call(f"torch.{name}", outside=(RefusedByPyTorch,))
    def _(folder):
        call = ours_or_theirs(getattr(tconv.torch, name), getattr(functional, name))
        return partial(call, x, w, torch.ones(3), 1, 0, 0, 1, 1)

    @call(f"torch.ConvTranspose{rank}d")
    def _(folder):
        layers = (getattr(of, f"ConvTranspose{rank}d") for of in (tconv.torch, nn))
        return partial(
            ours_or_theirs(*[each(2, 3, 3, stride=2) for each in layers]), x, [10] * rank
        )

    @call(f"torch.Conv{rank}d")
    def _(folder):
        layers = (getattr(of, f"Conv{rank}d") for of in (tconv.torch, nn))
        return partial(ours_or_theirs(*[each(2, 3, 3) for each in layers]), x)

    for kind in ("ConvTranspose", "Conv"):
        CALLS[f"torch.{kind}{rank}d"] = [
            (make, often, (RefusedByPyTorch,)) for make, often, _ in CALLS[f"torch.{kind}{rank}d"]
        ]


@pytest.mark.parametrize("part", range(PARTS))
def test_a_hostile_call_gives_a_result_or_an_error_of_ours_or_of_pytorch(part, tmp_path):
    start = part * CALLS_OF_A_PART
    found = complaints(start, start + CALLS_OF_A_PART, tmp_path, "test_hostile_calls_torch")
    assert not found, "\n".join(found)


@pytest.fixture
def calls():
    """The calls that are registered, in this process for as long as a test takes."""
    before, values = dict(CALLS), dict(VALUES)
    register()
    yield dict(CALLS)
    for table, old in ((CALLS, before), (VALUES, values)):
        table.clear()
        table.update(old)


def test_good_arguments_work_and_every_name_is_called(calls, tmp_path):
    for makes in calls.values():
        for make, *_ in makes:
            make(tmp_path)()
    names = {f"torch.{name}" for name in set(tconv.torch.__all__) - NOT_CALLED}
    assert names <= set(calls)


@pytest.mark.parametrize("model", [None, 3, "model", [nn.ReLU()], nn.ReLU, torch.ones(3)])
def test_a_model_is_a_module(model):
    of_torch = tconv.torch
    for change in (of_torch.accelerate, of_torch.restore, of_torch.freeze, of_torch.refresh):
        with pytest.raises(tconv.ParameterError, match=r"^model=.* must be a torch\.nn\.Module; "):
            change(model)
