"""PyTorch's threads in the engine: the same results, and no deadlock."""

import multiprocessing
import threading

import pytest
import torch

import tconv.torch
from tconv.engine.runtime import job, thread_pool
from tconv.torch import openmp as torch_openmp

X = torch.arange(2 * 32 * 24 * 24).reshape(2, 32, 24, 24).float() % 7 - 3
W = torch.arange(32 * 16 * 4 * 4).reshape(32, 16, 4, 4).float() % 5 - 2
Y = torch.nn.functional.conv_transpose2d(X, W, stride=2)


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    assert job._chosen.backend is None


def is_right():
    return torch.equal(tconv.torch.conv_transpose2d(X, W, stride=2), Y)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_threads_finds_the_same(count):
    torch.set_num_threads(count)
    for _ in range(20):
        assert is_right()
        assert torch.relu(Y).sum() > 0  # by the same threads


def test_they_are_pytorchs(monkeypatch):
    monkeypatch.setattr(thread_pool, "_pool", None)
    torch.set_num_threads(2)
    assert torch_openmp._team(2) is not None
    assert is_right()
    assert thread_pool._pool is None


def test_arrays_are_left_to_the_pool(monkeypatch):
    monkeypatch.setattr(thread_pool, "_pool", None)
    assert is_right()
    tconv.conv_transpose(X.numpy(), W.numpy(), stride=2, threads=2)
    assert thread_pool._pool is not None


def test_the_pool_works_where_pytorch_has_other_threads(monkeypatch):
    monkeypatch.setattr(thread_pool, "_pool", None)
    monkeypatch.setattr(torch_openmp, "_team", torch_openmp._team.__wrapped__)
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "native thread pool")
    torch.set_num_threads(2)
    assert is_right()
    assert thread_pool._pool is not None


def test_an_error_lends_nothing():
    with pytest.raises(tconv.ShapeError), torch_openmp.torch_threads(2):
        tconv.conv_transpose(X.numpy(), W.numpy()[:5])
    assert job._chosen.backend is None


def test_many_python_threads_call_at_once():
    torch.set_num_threads(2)
    right = []
    callers = [
        threading.Thread(target=lambda: right.extend(is_right() for _ in range(20)))
        for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert right == [True] * 160


def _tell(queue):
    found = tconv.torch.conv_transpose2d(X, W, stride=2)
    queue.put((found.numpy() == Y.numpy()).all())  # PyTorch itself would wait for ever here


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX, where another test loaded it
def test_the_child_of_a_fork_does_not_wait_for_threads_that_stayed_behind():
    torch.set_num_threads(2)
    assert is_right()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_tell, args=(queue,), daemon=True)
    child.start()
    assert queue.get(timeout=60)
    child.join()
    assert child.exitcode == 0
