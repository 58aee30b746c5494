"""Signatures that can be read, and errors about names that say which one is meant."""

import copy
import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest

import tconv
from tconv.foreign_names import _NAMES, _REMARKS
from tconv.geometry.keywords import VolumeKeywords

X, W = np.ones((1, 2, 4, 4), np.float32), np.ones((2, 3, 3, 3), np.float32)
LAYER = tconv.Conv2d(2, 3, 3, rng=0)


@pytest.mark.parametrize(
    "name", [n for n in tconv.__all__ if inspect.isfunction(getattr(tconv, n))]
)
def test_a_signature_reads(name):
    function = getattr(tconv, name)
    text = str(inspect.signature(function))
    assert not any(each in text for each in ("object at", "numpy._typing", "ForwardRef", "unknown"))


# A function with ``**keywords``, the one whose keywords they are, and those that it does not take.
SPELLED_OUT = [
    (tconv.plan, tconv.conv_transpose, {"padding_mode", "out", "max_bytes"}),
    (tconv.conv_transpose_vjp, tconv.conv_transpose, set()),
    (tconv.conv_transpose_jvp, tconv.conv_transpose, {"out"}),
    (tconv.gradcheck, tconv.conv_transpose, {"out"}),
    (tconv.check_adjoint, tconv.conv_transpose, {"dtype", "out"}),
    (tconv.Geometry.of, tconv.output_shape, {"padding_mode"}),
    (tconv.Geometry.of_conv, tconv.conv_output_shape, {"padding_mode"}),
    (tconv.Geometry.of_weight_gradient, tconv.output_shape, {"padding_mode", "output_size"}),
]


@pytest.mark.parametrize(("of", "like", "lacks"), SPELLED_OUT)
def test_every_keyword_is_in_the_signature(of, like, lacks):
    shown = inspect.signature(of).parameters
    assert not [each for each in shown.values() if each.kind is each.VAR_KEYWORD]
    known = inspect.signature(like).parameters
    keywords = {name: each for name, each in known.items() if each.kind is each.KEYWORD_ONLY}
    assert keywords.keys() - shown.keys() == lacks
    for name, each in keywords.items():
        if name in shown and name not in ("dtype", "out"):
            assert str(shown[name]) == str(each)


def test_volumes_take_the_keywords_of_both_functions():
    of_both = {
        **inspect.signature(tconv.conv).parameters,
        **inspect.signature(tconv.conv_transpose).parameters,
    }
    keywords = {name for name, each in of_both.items() if each.kind is each.KEYWORD_ONLY}
    taken = VolumeKeywords.__annotations__.keys()
    assert keywords - taken == {"padding_mode", "conjugate", "out", "max_bytes"}
    assert taken <= keywords


@pytest.mark.parametrize(
    "of", [tconv.explain, tconv.conv_transpose, tconv.plan, tconv.Conv2d, tconv.SGD]
)
def test_help_shows_what_can_be_passed(of):
    shown = subprocess.run(
        [sys.executable, "-c", f"import tconv; help(tconv.{of.__name__})"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "unknown" not in shown.partition("\n\n")[0]
    assert "_NestedSequence" not in shown
    assert not any(len(line) > 700 for line in shown.splitlines()[:8])


@pytest.mark.parametrize(
    ("call", "wrong", "meant"),
    [
        (lambda **k: tconv.conv_transpose(X, W, **k), "strides", "stride"),
        (lambda **k: tconv.conv_transpose(X, W, **k), "dilation_rate", "dilation"),
        (lambda **k: tconv.conv(X, W, **k), "feature_group_count", "groups"),
        (lambda **k: tconv.conv_weight_gradient(X, X, 1, **k), "paddding", "padding"),
        (lambda **k: tconv.conv_transpose2d(X, W, **k), "strides", "stride"),
        (lambda **k: tconv.output_shape(X.shape, W.shape, **k), "pads", "padding"),
        (lambda **k: tconv.conv_output_shape(X.shape, W.shape, **k), "output_size", "input_size"),
        (lambda **k: tconv.conv_transpose_vjp(X, W, **k), "strides", "stride"),
        (lambda **k: tconv.check_adjoint(W, X.shape, **k), "strides", "stride"),
        (lambda **k: tconv.plan(X.shape, W.shape, **k), "strides", "stride"),
        (lambda **k: tconv.Geometry.of(X.shape, W.shape, **k), "group", "groups"),
        (lambda **k: tconv.max_pool(X, (2, 2), **k), "strides", "stride"),
        (lambda **k: tconv.solve(**k), "kernel_shape", "kernel_size"),
        (lambda **k: tconv.Conv2d(2, 3, 3, **k), "initializer", "initialiser"),
        (lambda **k: tconv.ConvTranspose2d(2, 3, 3, **k), "use_bias", "bias"),
        (lambda **k: tconv.MaxPool2d(2, **k), "strides", "stride"),
        (lambda **k: tconv.MaxUnpool2d(2, **k), "strides", "stride"),
        (lambda **k: tconv.LeakyReLU(**k), "alpha", "negative_slope"),
        (lambda **k: tconv.SGD(LAYER.parameters(), 0.1, **k), "decay", "weight_decay"),
        (lambda **k: tconv.Adam(LAYER.parameters(), **k), "learning_rate", "lr"),
    ],
)
def test_a_keyword_of_another_library_is_told_apart(call, wrong, meant):
    with pytest.raises(TypeError) as raised:
        call(**{wrong: 1})
    assert str(raised.value).endswith(
        f"unexpected keyword argument {wrong!r}; did you mean {meant!r}?"
    )
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'zzz'$"):
        call(zzz=1)


@pytest.mark.parametrize(
    ("value", "wrong", "hint"),
    [
        (LAYER, "zero_grad", "; did you mean 'zero_gradients'?"),
        (LAYER, "weights", "; did you mean 'weight'?"),
        (LAYER, "strid", "; did you mean 'stride'?"),
        (LAYER, "train", "; there is no mode to switch: forward(x) is for training, predict(x) "
         "for inference"),
        (tconv.Sequential(LAYER), "trainable_variables", "; did you mean 'parameters'?"),
        (LAYER.weight, "grad", "; did you mean 'gradient'?"),
        (LAYER.weight, "zero_grad", "; did you mean 'zero_gradient'?"),
        (tconv.SGD(LAYER.parameters(), 0.1), "zero_grad", "; did you mean 'zero_gradients'?"),
        (tconv.Adam(LAYER.parameters()), "learning_rate", "; did you mean 'lr'?"),
        (LAYER, "zzz", ""),
        (LAYER, "_zzz", ""),
    ],
)  # fmt: skip
def test_an_attribute_of_another_library_is_told_apart(value, wrong, hint):
    with pytest.raises(AttributeError) as raised:
        getattr(value, wrong)
    kind = type(value).__name__
    assert str(raised.value) == f"{kind!r} object has no attribute {wrong!r}{hint}"
    assert raised.value.name == wrong
    assert getattr(value, wrong, None) is None


def test_python_adds_no_second_hint():
    for code in ("tconv.Conv2d(1, 1, 1).zero_grad", "tconv.conv_trnspose"):
        done = subprocess.run(
            [sys.executable, "-c", f"import tconv; {code}"], capture_output=True, text=True
        )
        assert done.stderr.lower().count("did you mean") == 1


def test_the_error_of_a_property_stays_its_own():
    class Odd(tconv.ReLU):
        @property
        def size(self):
            return self.missing

    with pytest.raises(AttributeError, match="'Odd' object has no attribute 'missing'"):
        Odd().size  # noqa: B018


def test_copies_and_pickles_do_not_ask_for_attributes():
    for value in (LAYER, LAYER.weight, tconv.SGD(LAYER.parameters(), 0.1)):
        for made in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert type(made) is type(value)


def test_every_name_in_the_table_stands_for_one_that_exists():
    functions = [getattr(tconv, name) for name in tconv.__all__]
    known = set(tconv.__all__)
    for each in functions:
        if inspect.isfunction(each) or issubclass(each, tconv.Layer | tconv.SGD | tconv.Adam):
            known |= set(inspect.signature(each).parameters)
        if inspect.isclass(each):
            known |= set(dir(each))
    known |= {"channels_first", "channels_last", "IO*", "*OI", "*IO", "OI*", "O*I"}
    known |= {"nearest", "linear", "cubic", "lanczos3"}
    known |= {"zeros", "circular", "replicate", "reflect", "weight", "bias"}
    for foreign, ours in _NAMES.items():
        assert foreign == foreign.lower()
        assert set(ours.split()) <= known, foreign
    assert not _NAMES.keys() & _REMARKS.keys()
