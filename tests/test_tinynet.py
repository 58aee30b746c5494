"""The layers of the tutorial compute the definition, with bias, padding and real gradients."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tconv import definition
from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError
from tconv.geometry.geometry import Geometry
from tconv.tinynet import Conv2D, Deconv2D, Layer, Parameter

W = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
X = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
Y = np.array([[[[37.0, 47.0], [67.0, 77.0]]]])

each_kind = pytest.mark.parametrize("kind", [Conv2D, Deconv2D])


def integers(rng, *shape):
    """Small integers stored as floats, so that sums are exact."""
    return rng.integers(-4, 5, shape).astype(np.float64)


@st.composite
def settings_of_layers(draw):
    """The arguments of a layer behind its name, for which both kinds have an output."""
    h, w = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    dilation, padding = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    stride = draw(st.integers(1, 3))
    # Conv2D must hold the filter, and Deconv2D leave a cell: 2*padding + 1 cells do for the latter.
    least = [max(dilation * (k - 1) + 1 - 2 * padding, 2 * padding + 1, 1) for k in (h, w)]
    size = [n + draw(st.integers(0, 3)) for n in least]
    input_dim = (draw(st.integers(1, 3)), *size)
    return input_dim, draw(st.integers(1, 3)), h, w, stride, dilation, padding


def filled(kind, arguments, seed=0):
    """A layer with integer weight and bias, and an input for it."""
    rng = np.random.default_rng(seed)
    layer = kind("layer", *arguments)
    layer.weight.tensor = integers(rng, *layer.weight.tensor.shape)
    layer.bias.tensor = integers(rng, *layer.bias.tensor.shape)
    return layer, integers(rng, 2, *layer.input_dim)


def by_definition(kind, arguments, layer, input):
    """What the oracle says the output is."""
    _, _, _, _, stride, dilation, padding = arguments
    keywords = {"stride": stride, "dilation": dilation, "padding": padding}
    make, want = (Geometry.of, "y") if kind is Deconv2D else (Geometry.of_conv, "x")
    geometry = make(input.shape, layer.weight.tensor.shape, **keywords)
    weight, bias = layer.weight.tensor, layer.bias.tensor
    return definition.contract(geometry, want, input, weight, bias=bias)


def test_the_worked_example():
    down, up = Conv2D("down", (1, 3, 3), 1, 2, 2, 1), Deconv2D("up", (1, 2, 2), 1, 2, 2, 1)
    down.weight.tensor = up.weight.tensor = W
    assert np.array_equal(down(X), Y)
    assert up(Y).tolist() == [[[[37, 121, 94], [178, 500, 342], [201, 499, 308]]]]
    assert up.out_dim == down.input_dim
    assert down.out_dim == up.input_dim


def test_integers_stay_integers():
    up = Deconv2D("up", (1, 2, 2), 1, 2, 2, 1)
    up.weight.tensor, up.bias.tensor = W.astype(np.int64), np.array([1])
    output = up(Y.astype(np.int64))
    assert output.dtype == np.int64
    assert output.tolist() == [[[[38, 122, 95], [179, 501, 343], [202, 500, 309]]]]


@each_kind
@given(arguments=settings_of_layers())
def test_forward_equals_the_definition(kind, arguments):
    layer, input = filled(kind, arguments)
    output = layer(input)
    assert output.shape == (2, *layer.out_dim)
    assert np.array_equal(output, by_definition(kind, arguments, layer, input))


@each_kind
@given(arguments=settings_of_layers())
def test_gradients_are_central_differences(kind, arguments):
    """The output is linear in each array, so these differences are exact, whatever their step."""
    layer, input = filled(kind, arguments)
    in_gradient = integers(np.random.default_rng(1), 2, *layer.out_dim)
    layer(input)
    gradients = {"input": layer.backward(in_gradient)}
    gradients |= {name: getattr(layer, name).gradient for name in ("weight", "bias")}
    arrays = {"input": input, "weight": layer.weight.tensor, "bias": layer.bias.tensor}
    rng = np.random.default_rng(2)
    for name, array in arrays.items():
        assert gradients[name].shape == array.shape
        for place in rng.choice(array.size, min(array.size, 4), replace=False):
            values = []
            for step in (1.0, -1.0):
                array.flat[place] += step
                values.append(np.sum(layer(input) * in_gradient))
                array.flat[place] -= step
            assert (values[0] - values[1]) / 2 == gradients[name].flat[place], name


@given(arguments=settings_of_layers())
def test_one_layer_goes_back_as_the_other_goes_forward(arguments):
    layer, input = filled(Deconv2D, arguments)
    output = layer(input)
    input_dim, _, h, w, stride, dilation, padding = arguments
    other = Conv2D("other", layer.out_dim, input_dim[0], h, w, stride, dilation, padding)
    other.weight.tensor = layer.weight.tensor
    if dilation > stride and other.out_dim != input_dim:
        return  # several inputs have this output size, and Conv2D takes the largest
    assert np.array_equal(other(output), layer.backward(output))


@each_kind
def test_the_bias_counts(kind):
    layer, input = filled(kind, ((2, 4, 5), 3, 2, 2, 1))
    layer.bias.tensor = np.zeros(3)
    without = layer(input)
    layer.bias.tensor = np.array([1.0, 20.0, 300.0])
    assert np.array_equal(
        layer(input) - without, np.broadcast_to([[[1]], [[20]], [[300]]], without.shape)
    )


@each_kind
def test_the_tutorials_attributes(kind):
    layer = kind("layer", (2, 5, 7), 3, 2, 4, stride=2, dilation=1, padding=1)
    assert (layer.name, layer.type) == ("layer", kind.__name__)
    assert isinstance(layer, Layer)
    assert layer.parameters == [layer.weight, layer.bias]
    channels = (3, 2) if kind is Conv2D else (2, 3)
    assert layer.weight.tensor.shape == (*channels, 2, 4)
    assert layer.out_dim == ((3, 3, 3) if kind is Conv2D else (3, 8, 14))
    assert layer.weight.gradient is None
    assert layer.summary().split() == [
        *("layer", kind.__name__, "(2,", "5,", "7)", "->", *str(layer.out_dim).split()),
        *("51", "parameters"),
    ]


def test_one_sample_needs_no_batch():
    layer, input = filled(Deconv2D, ((2, 3, 4), 3, 3, 2, 2))
    assert np.array_equal(layer(input[0]), layer(input)[0])
    layer(input[0])
    assert layer.backward(np.ones(layer.out_dim)).shape == layer.input_dim
    assert layer.bias.gradient.tolist() == [7 * 8] * 3


@each_kind
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_the_type_is_kept(kind, dtype):
    layer = kind("layer", (2, 4, 4), 3, 2, 2, 1)
    input = np.ones((1, 2, 4, 4), dtype)
    output = layer(input)
    assert output.dtype == dtype
    assert layer.backward(output).dtype == dtype
    for parameter in layer.parameters:
        assert parameter.tensor.dtype == dtype
        assert parameter.gradient.dtype == dtype


def test_bfloat16_is_kept():
    import ml_dtypes

    layer = Deconv2D("layer", (2, 4, 4), 3, 2, 2, 1)
    assert layer(np.ones((1, 2, 4, 4), ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


def test_the_first_input_sets_the_type_and_no_other_changes_it():
    layer = Deconv2D("up", (1, 2, 2), 1, 2, 2, 1)
    layer.weight.tensor = W
    layer(Y.astype(np.float32))
    message = (
        "input has dtype float16 but weight.tensor of layer up float32; convert the input, or set "
        "tensors of its type."
    )
    with pytest.raises(DTypeError) as caught:
        layer(Y.astype(np.float16))
    assert str(caught.value) == message
    assert layer.weight.tensor.dtype == np.float32


def test_training_lowers_the_loss():
    rng = np.random.default_rng(0)
    input, target = rng.normal(size=(4, 2, 5, 6)), rng.normal(size=(4, 3, 10, 12))
    layer = Deconv2D("up", (2, 5, 6), 3, 4, 4, 2, padding=1, rng=0)
    losses = []
    for _ in range(50):
        error = layer(input) - target
        losses.append(np.mean(error**2))
        layer.backward(2 * error / error.size)
        for parameter in layer.parameters:
            parameter.tensor -= 2.0 * parameter.gradient
    assert losses[-1] < 0.9 * losses[0]
    assert np.all(np.diff(losses) < 0)


def test_the_start_keeps_the_spread_of_values():
    """Behind ReLU half the values are zero, which He's factor of 2 makes up for, stride or not."""
    for kind, stride in [(Conv2D, 1), (Conv2D, 2), (Deconv2D, 1), (Deconv2D, 2), (Deconv2D, 4)]:
        rng = np.random.default_rng(0)
        input = np.maximum(rng.normal(size=(1, 32, 24, 24)), 0)
        output = kind("layer", (32, 24, 24), 32, 4, 4, stride, rng=1)(input)[..., 4:-4, 4:-4]
        assert 0.8 < np.std(output) < 1.25, (kind, stride)


def test_a_seed_repeats_the_start_and_no_seed_does_not():
    def start(rng):
        return Deconv2D("up", (1, 2, 2), 1, 2, 2, 1, rng=rng).weight.tensor

    assert np.array_equal(start(7), start(np.random.default_rng(7)))
    assert not np.array_equal(start(None), start(None))


@each_kind
def test_pickle_and_copy_keep_the_parameters_but_not_the_last_input(kind):
    layer, input = filled(kind, ((2, 4, 4), 3, 3, 3, 2, 1, 1))
    output = layer(input)
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert twin.parameters == [twin.weight, twin.bias]
        assert twin.weight is not layer.weight
        with pytest.raises(TConvError, match="must follow a forward pass"):
            twin.backward(output)
        assert np.array_equal(twin(input), output)
    layer.backward(output)  # the original still can


def test_a_layer_of_ones_own():
    class Twice(Layer):
        def forward(self, input):
            return 2 * input

    layer = Twice("twice")
    assert layer(3) == 6
    assert "Twice" in layer.summary()
    with pytest.raises(NotImplementedError, match="Twice must define backward"):
        layer.backward(1)
    parameter = layer.build_param(np.zeros((2, 3), np.float32))
    assert layer.parameters == [parameter]
    assert repr(parameter) == repr(Parameter(parameter.tensor)) == "Parameter(float32, (2, 3))"
    assert "6 parameters" in layer.summary()


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (
            ParameterError,
            "input_dim=(2, 4) must be (channels, height, width)",
            ((2, 4), 1, 2, 2, 1),
        ),
        (ParameterError, "input_dim=(0, 4, 4) must be", ((0, 4, 4), 1, 2, 2, 1)),
        (ParameterError, "input_dim=5 must be a sequence", (5, 1, 2, 2, 1)),
        (ParameterError, "n_filters=0 must be at least 1", ((1, 4, 4), 0, 2, 2, 1)),
        (ParameterError, "h_filter=2.5 must be an integer", ((1, 4, 4), 1, 2.5, 2, 1)),
        (ParameterError, "w_filter=0 must be at least 1", ((1, 4, 4), 1, 2, 0, 1)),
        (ParameterError, "stride[0]=0 must be at least 1", ((1, 4, 4), 1, 2, 2, 0)),
        (ParameterError, "dilation[0]=0 must be at least 1", ((1, 4, 4), 1, 2, 2, 1, 0)),
        (ParameterError, "padding=1.5 must be an integer", ((1, 4, 4), 1, 2, 2, 1, 1, 1.5)),
    ],
)
@each_kind
def test_wrong_arguments_fail_when_the_layer_is_made(kind, error, message, arguments):
    with pytest.raises(error) as caught:
        kind("layer", *arguments)
    assert message in str(caught.value)


def test_sizes_that_leave_nothing_fail_when_the_layer_is_made():
    with pytest.raises(ShapeError, match=r"output size on spatial axis 1, .* must be at least 1"):
        Deconv2D("up", (1, 4, 1), 1, 2, 2, 1, padding=1)
    with pytest.raises(ShapeError, match=r"on spatial axis 0, but the kernel needs 5"):
        Conv2D("down", (1, 4, 9), 1, 5, 5, 1)


def test_what_arrives_must_be_what_was_declared():
    layer = Deconv2D("up", (2, 3, 4), 1, 2, 2, 1)
    for shape in [(1, 2, 4, 3), (1, 1, 3, 4), (2, 3), (1, 1, 2, 3, 4)]:
        with pytest.raises(ShapeError) as caught:
            layer(np.ones(shape))
        assert str(caught.value) == (
            f"input has shape {shape}, must be (N, *input_dim) or input_dim of layer up, whose "
            "input_dim=(2, 3, 4); pass such an array or make a layer with another input_dim."
        )
    layer(np.ones((5, 2, 3, 4)))
    with pytest.raises(ShapeError, match=r"in_gradient has shape .* out_dim=\(1, 4, 5\)"):
        layer.backward(np.ones((5, 1, 4, 4)))
    with pytest.raises(ShapeError, match="one gradient for every sample"):
        layer.backward(np.ones((4, 1, 4, 5)))
    with pytest.raises(DTypeError, match="in_gradient has dtype float32 but input has float64"):
        layer.backward(np.ones((5, 1, 4, 5), np.float32))


def test_what_is_set_must_fit():
    layer = Deconv2D("up", (2, 3, 4), 1, 2, 2, 1)
    layer.weight.tensor = np.ones((1, 2, 2, 2))
    with pytest.raises(
        ShapeError, match=r"weight\.tensor has shape \(1, 2, 2, 2\), must be \(2, 1"
    ):
        layer(np.ones((1, 2, 3, 4)))
    with pytest.raises(DTypeError, match=r"tensor has dtype bool"):
        layer.weight.tensor = np.ones((2, 1, 2, 2), bool)
    with pytest.raises(DTypeError, match=r"input has dtype int64 but weight\.tensor of layer new"):
        Deconv2D("new", (2, 3, 4), 1, 2, 2, 1)(np.ones((1, 2, 3, 4), np.int64))


@pytest.mark.parametrize("value", [None, "words", {}, [[1], [1, 2]], object(), [None]])
def test_a_tensor_is_an_array(value):
    layer = Deconv2D("up", (2, 3, 4), 1, 2, 2, 1)
    for put in (Parameter, lambda each: setattr(layer.weight, "tensor", each)):
        with pytest.raises(DTypeError, match=r"^tensor"):
            put(value)
    assert Parameter([1, 2]).tensor.tolist() == [1, 2]


@pytest.mark.parametrize("name", [None, 3, ["up"], np.ones(2)])
def test_a_name_is_a_string(name):
    with pytest.raises(ParameterError, match=r"^name=.* must be a string; pass one\.$"):
        Layer(name)
