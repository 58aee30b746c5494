"""Derivatives, transforms and compilers of PyTorch: the same results with tconv.torch."""

import copy
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import func
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn import functional

import tconv
import tconv.torch
from strategies import geometries
from tconv.geometry.geometry import OPERANDS, Geometry
from tconv.torch import autograd
from tconv.torch.autograd import contract
from tconv.torch.contract import compute

# PyTorch's own ways through its own function still use what it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
OURS = {1: tconv.torch.conv_transpose1d, 2: tconv.torch.conv_transpose2d,
        3: tconv.torch.conv_transpose3d}  # fmt: skip
THEIRS = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d,
          3: functional.conv_transpose3d}  # fmt: skip
# rank, x, weight, and stride, padding, output_padding, groups, dilation
CALLS = {
    "1d": (1, (2, 2, 4), (2, 3, 3), (2, 1, 1, 1, 1)),
    "2d": (2, (1, 2, 3, 2), (2, 2, 2, 3), ((2, 1), 1, 0, 2, 1)),
    "dilated": (2, (1, 2, 2, 3), (2, 1, 2, 2), (1, 0, 1, 1, 2)),
    "3d": (3, (1, 2, 2, 2, 2), (2, 1, 2, 1, 2), (2, 0, 1, 1, 1)),
}
each_call = pytest.mark.parametrize("name", CALLS)
integers = st.integers(0, 2**32 - 1)


def tensors(rng, *shapes, dtype=torch.float64):
    """Small integers stored as floats: sums of their products are exact in any order."""
    return [torch.from_numpy(rng.integers(-4, 5, shape)).to(dtype) for shape in shapes]


def operands(name, dtype=torch.float64):
    """The two functions of a call, and x, weight and bias."""
    rank, x, weight, settings = CALLS[name]
    bias = (weight[1] * settings[3],)
    made = tensors(np.random.default_rng(0), x, weight, bias, dtype=dtype)
    return [lambda x, w, b, f=table[rank]: f(x, w, b, *settings) for table in (OURS, THEIRS)], made


def grown(tensor):
    return tensor.detach().clone().requires_grad_()


# ---- derivatives ---------------------------------------------------------------------------------


@each_call
def test_every_derivative_is_that_of_differences(name):
    (ours, _), made = operands(name)
    made = [grown(each) for each in made]
    assert gradcheck(
        ours, made, check_forward_ad=True, check_batched_grad=True,
        check_batched_forward_grad=True, check_undefined_grad=True,
    )  # fmt: skip
    assert gradgradcheck(ours, made, check_fwd_over_rev=True, check_rev_over_rev=True)


@given(geometries(), st.sampled_from("yxw"), integers)
def test_each_letter_closes_under_differentiation(geometry, want, seed):
    geometry = Geometry(
        geometry.batch, geometry.in_channels, geometry.out_channels, geometry.groups, geometry.axes
    )
    p, q = OPERANDS[want]
    rng = np.random.default_rng(seed)
    shapes = [geometry.shape_of(each) for each in (p, q, want)]
    a, b, c = tensors(rng, *shapes)
    a, b, c = (grown(each) for each in (a, b, c))
    value = (contract(geometry, want, a, b) * c).sum()
    first = torch.autograd.grad(value, (a, b, c), create_graph=True)
    known = {p: a, q: b, want: c}
    for letter, gradient in zip((p, q, want), first, strict=True):
        given = [known[each] for each in OPERANDS[letter]]
        assert torch.equal(gradient, compute(geometry, letter, *given))
        assert (gradient * known[letter]).sum() == value  # the form has one value
    directions = tensors(rng, *shapes)
    mixed = sum((g * d).sum() for g, d in zip(first, directions, strict=True))
    second = torch.autograd.grad(mixed, (a, b, c))
    for letter, gradient in zip((p, q, want), second, strict=True):
        m, n = OPERANDS[letter]
        along = dict(zip((p, q, want), directions, strict=True))
        expected = compute(geometry, letter, along[m], known[n])
        expected += compute(geometry, letter, known[m], along[n])
        assert torch.equal(gradient, expected)


@each_call
def test_directions_are_followed_as_pytorch_does(name):
    functions, made = operands(name)
    along = tensors(np.random.default_rng(1), *(each.shape for each in made))
    found, expected = (func.jvp(f, tuple(made), tuple(along)) for f in functions)
    for pair in zip(found, expected, strict=True):
        assert torch.equal(*pair)
    assert found[1].any()
    for n in range(3):  # one alone
        results = []
        for f in functions:
            with forward_ad.dual_level():
                duals = [*made]
                duals[n] = forward_ad.make_dual(made[n], along[n])
                results.append(forward_ad.unpack_dual(f(*duals)).tangent.clone())
        assert torch.equal(*results)
        assert results[0].any()


TRANSFORMS = {
    "grad": lambda f: func.grad(f, argnums=(0, 1, 2)),
    "jacrev": lambda f: func.jacrev(f, argnums=(0, 1, 2)),
    "jacfwd": lambda f: func.jacfwd(f, argnums=(0, 1, 2)),
    "hessian": lambda f: func.hessian(f, argnums=(0, 1)),
    "grad of grad": lambda f: func.grad(lambda *args: func.grad(f, argnums=1)(*args).sum()),
    "jacfwd of jacfwd": lambda f: func.jacfwd(func.jacfwd(f, argnums=1)),
    "vmap of grad": lambda f: lambda x, w, b: func.vmap(
        func.grad(f, argnums=(0, 1)), (None, 0, None))(x, torch.stack([w, -w]), b),
}  # fmt: skip


@pytest.mark.parametrize("transform", TRANSFORMS)
@each_call
def test_transforms_find_what_they_find_in_pytorch(name, transform):
    functions, made = operands(name)
    scalar = [lambda *args, f=f: (f(*args) ** 2).sum() for f in functions]
    found, expected = (TRANSFORMS[transform](f)(*made) for f in scalar)
    flat = [torch.utils._pytree.tree_leaves(each) for each in (found, expected)]
    assert len(flat[0]) == len(flat[1])
    for pair in zip(*flat, strict=True):
        assert torch.equal(*pair)


@pytest.mark.parametrize("dims", [d for d in product((None, 0, 1), (None, 0, 2), (None, 0)) if any(
    each is not None for each in d)])  # fmt: skip
@each_call
def test_maps_over_batches_find_what_they_find_in_pytorch(name, dims):
    functions, made = operands(name)
    rng, many = np.random.default_rng(2), []
    for tensor, at in zip(made, dims, strict=True):
        shape = [*tensor.shape]
        if at is not None:
            shape.insert(at, 3)
        many += tensors(rng, shape)
    found, expected = (func.vmap(f, dims, out_dims=1)(*many) for f in functions)
    assert torch.equal(found, expected)
    if dims[0] is not None:
        twice = [func.vmap(func.vmap(f, dims), (0, None, None)) for f in functions]
        found, expected = (f(torch.stack([many[0], -many[0]]), *many[1:]) for f in twice)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("want", ["x", "w"])
def test_maps_of_gradients_are_loops(want):
    geometry = Geometry.of((2, 4, 3), (4, 3, 2), stride=2, groups=2)
    p, q = OPERANDS[want]
    rng = np.random.default_rng(3)
    for of_a, of_b in ((0, None), (None, 0), (0, 0)):
        shapes = [
            geometry.shape_of(each) if at is None else (5, *geometry.shape_of(each))
            for each, at in ((p, of_a), (q, of_b))
        ]
        a, b = tensors(rng, *shapes)
        found = func.vmap(lambda a, b: contract(geometry, want, a, b), (of_a, of_b))(a, b)
        for n in range(5):
            one = [t if at is None else t[n] for t, at in ((a, of_a), (b, of_b))]
            assert torch.equal(found[n], compute(geometry, want, *one))


# ---- modes ---------------------------------------------------------------------------------------


@each_call
def test_modes_are_kept_to(name):
    (ours, _), made = operands(name)
    leaf = grown(made[0])
    with torch.no_grad():
        assert not ours(leaf, *made[1:]).requires_grad
    with torch.inference_mode():
        inside = ours(leaf, *made[1:])
        assert inside.is_inference()
        assert torch.equal(ours(inside.new_ones(made[0].shape), *made[1:]),
                           ours(torch.ones_like(made[0]), *made[1:]))  # fmt: skip
    y = ours(leaf, *made[1:])
    assert y.requires_grad
    y.mul_(2)  # nothing of y is saved
    y.sum().backward()
    assert torch.equal(inside * 2, y)


def test_what_was_saved_may_not_change():
    functions, made = operands("2d")
    for f in functions:
        x, weight = grown(made[0]), made[1].clone()
        y = f(x, weight, made[2])
        weight.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_chooses_the_types_that_it_chooses_for_pytorch(dtype):
    functions, _ = operands("2d")
    for kind in (torch.float32, torch.float64, dtype):
        (_, _), made = operands("2d", kind)
        results = []
        for f in functions:
            leaves = [grown(each) for each in made]
            with torch.autocast("cpu", dtype):
                y = f(*leaves)
            y.sum().backward()
            results.append([y, *(leaf.grad for leaf in leaves)])
        for found, expected in zip(*results, strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)


# ---- compilers -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@each_call
def test_compiled_forward_and_backward_are_equal(name, dynamic, last):
    functions, made = operands(name)
    rank = CALLS[name][0]
    last = last and rank > 1  # three axes have no channels_last
    compiled = torch.compile(
        lambda *args: functions[0](*args).relu() * 2,
        fullgraph=True, dynamic=dynamic, backend="aot_eager",
    )  # fmt: skip
    for size in (0, 1):
        results = []
        for f in (compiled, lambda *args: functions[1](*args).relu() * 2):
            leaves = [torch.cat([made[0]] * (size + 1), -1), *made[1:]]
            if last:
                leaves[0] = leaves[0].to(memory_format=LAST[rank])
            leaves = [grown(each) for each in leaves]
            y = f(*leaves)
            (y * y).sum().backward()
            results.append([y, *(leaf.grad for leaf in leaves)])
        for pair in zip(*results, strict=True):
            assert torch.equal(*pair)


LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def test_what_is_compiled_is_tconvs_operator():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    layer = tconv.torch.ConvTranspose2d(2, 3, 3, stride=2)
    x = torch.ones(1, 2, 3, 3)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend=backend)(x), layer(x))
    (graph,) = graphs
    assert "tconv.contract" in str([node.target for node in graph.graph.nodes])


def test_operator_passes_pytorchs_own_checks():
    _, (x, weight, bias) = operands("2d")
    _, _, _, (stride, padding, extra, groups, dilation) = CALLS["2d"]
    x, weight, bias = (grown(each) for each in (x, weight, bias))
    settings = ([*stride], [padding] * 4, [extra] * 2, [dilation] * 2, groups)
    torch.library.opcheck(torch.ops.tconv.contract.default, ("y", x, weight, bias, [], *settings))
    y = torch.ops.tconv.contract("y", x, weight, None, [], *settings).detach()
    for want, a, b, sizes in (("x", y, weight, [3, 2]), ("w", x, y, [2, 3])):
        torch.library.opcheck(
            torch.ops.tconv.contract.default,
            (want, grown(a), grown(b), None, sizes, *settings),
        )


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_compute_the_same(strict):
    layer = tconv.torch.ConvTranspose2d(2, 3, 3, stride=2)
    x = torch.ones(2, 2, 3, 3)
    program = torch.export.export(layer, (x,), strict=strict)
    assert "tconv.contract" in str(program.graph)
    assert torch.equal(program.module()(x), layer(x))


def test_transforms_of_compiled_functions_are_right():
    functions, made = operands("2d")
    along = tensors(np.random.default_rng(1), *(each.shape for each in made))

    def change(f):
        return lambda *args: func.jvp(f, args, tuple(along))[1]

    compiled = torch.compile(change(functions[0]), backend="aot_eager")
    assert torch.equal(compiled(*made), change(functions[1])(*made))


def test_directions_through_compiled_functions_are_not_lost():
    functions, made = operands("2d")
    compiled = torch.compile(functions[0], backend="aot_eager")
    compiled(*made)  # without directions
    tangents = []
    for f in (compiled, functions[1]):
        with forward_ad.dual_level():
            x = forward_ad.make_dual(made[0], made[0] + 1)
            tangents.append(forward_ad.unpack_dual(f(x, *made[1:])).tangent.clone())
    assert torch.equal(*tangents)


def test_modules_that_torch_jit_traces_are_pytorchs():
    layer = tconv.torch.ConvTranspose2d(2, 3, 3)
    x = torch.ones(1, 2, 3, 3)
    torch.testing.assert_close(torch.jit.trace(layer, x)(2 * x), layer(2 * x))


# batch and input size, channels of x and y, kernel, and settings
NOTHING = {
    "an empty batch": ((0, 3), (2, 3), 2, {"stride": 2, "padding": 1}),
    "an empty batch of nothing": ((0, 0), (2, 3), 4, {}),
    "a result of size 0": ((1, 1), (2, 3), 2, {"padding": 1}),
    "one below 0": ((1, 1), (2, 3), 2, {"padding": 2}),
    "an empty batch of results of size 0": ((0, 1), (2, 3), 2, {"padding": 1}),
    "nothing of size 0": ((1, 0), (2, 3), 2, {}),
    "a result though x has none": ((1, 0), (2, 3), 4, {"stride": 2, "output_padding": 1}),
    "no channels": ((1, 3), (0, 3), 2, {}),
    "no channels of the result": ((1, 3), (2, 0), 2, {}),
    "no kernel": ((1, 3), (2, 3), 0, {}),
    "an empty batch without channels": ((0, 3), (0, 3), 2, {}),
}


def outcome(f, operands, settings):
    """Shape, order in memory and type of a result, and all gradients; or that there is none."""
    leaves = [each.clone().requires_grad_() for each in operands]
    try:
        y = f(*leaves, **settings)
        y.sum().backward()
    except RuntimeError:
        return "an error"
    gradients = [(each.grad.shape, each.grad.stride(), each.grad.sum()) for each in leaves]
    return y.shape, y.stride(), y.dtype, gradients


# PyTorch says so of its own gradients of an empty batch.
@pytest.mark.filterwarnings("ignore:grad and param do not obey:UserWarning")
@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("what", NOTHING)
def test_sizes_of_0_give_what_they_give_in_pytorch(what, rank, is_compiled):
    (batch, size), channels, kernel, settings = NOTHING[what]
    operands = [
        torch.ones(batch, channels[0], *[size] * rank),
        torch.ones(*channels, *[kernel] * rank),
        torch.ones(channels[1]),
    ]
    outcomes = []
    for f in (OURS[rank], THEIRS[rank]):
        if is_compiled:
            torch._dynamo.reset()
            f = torch.compile(
                lambda *args, f=f, **kwargs: f(*args, **kwargs),
                backend="aot_eager", fullgraph=True,
            )  # fmt: skip
        outcomes.append(outcome(f, operands, settings))
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], tuple) == (
        what in ("an empty batch", "an empty batch of nothing")
        or (what == "an empty batch of results of size 0" and not is_compiled)
    )


# ---- copies --------------------------------------------------------------------------------------


def test_modules_are_copied_with_their_weights_and_without_what_is_kept():
    layer = tconv.torch.ConvTranspose2d(16, 8, 3)
    x = torch.ones(1, 16, 4, 4)
    y = layer(x)
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        assert torch.equal(made(x), y)
        assert repr(made) == repr(layer)
    made = copy.deepcopy(layer)
    with torch.no_grad():
        made.weight.zero_()
    assert torch.equal(layer(x), y)
    assert torch.equal(made(x), made.bias[:, None, None].expand(1, 8, 6, 6))


def test_eager_code_that_is_differentiated_twice_uses_the_function():
    assert autograd._apply.__self__ is autograd._Contraction
