"""Good calls of layers, parameters and optimisers, for the registry."""

import random
from functools import partial
from itertools import chain

import numpy as np

import tconv
from hostile_registry import call, setting, w, x

# ---- layers --------------------------------------------------------------------------------------

LAYER = {
    "stride": 1,
    "padding": 0,
    "groups": 1,
    "bias": True,
    "dilation": 1,
    "padding_mode": "zeros",
    "data_format": "channels_first",
    "dtype": "float32",
    "initialiser": "kaiming_uniform",
    "rng": 0,
    "activation": None,
}
ACTIVATIONS = ["relu", ("clip", None, 6), ("prelu", -0.5), ("hard_sigmoid", 0.2, 0.5), "silu"]


def used(make):
    """What makes a layer and uses it."""

    def use(*args, **keywords):
        layer = make(*args, **keywords)
        a = np.ones((1, 2, *[4] * len(layer.kernel_size)), np.float32)
        y = layer(a)
        layer.backward(np.ones_like(y))
        return layer.predict(a), repr(layer), layer.state_dict()

    return use


for name in (
    "Conv",
    "ConvTranspose",
    *(f"Conv{t}{n}d" for t in ("", "Transpose") for n in (1, 2, 3)),
):
    rank = 1 if name[-1] != "d" else int(name[-2])
    kernel = (2,) * rank if name[-1] != "d" else 2
    extra = {"output_padding": 0} if "Transpose" in name else {}

    @call(name)
    def _(folder, name=name, kernel=kernel, extra=extra):
        return partial(used(getattr(tconv, name)), 2, 3, kernel, **LAYER, **extra)

    @call(name)
    def _(folder, name=name, kernel=kernel):
        return partial(getattr(tconv, name), None, 3, kernel, 1, 0, rng=None)


def up(**keywords):
    return tconv.ConvTranspose1d(2, 3, 3, rng=0, **keywords)


def down(**keywords):
    return tconv.Conv1d(2, 3, 3, rng=0, **keywords)


@call("ConvTranspose.compute")
def _(folder):
    return partial(up().compute, x(), None)


@call("Conv.compute")
def _(folder):
    return partial(down(activation="relu").compute, x())


@call("ConvTranspose.predict")
def _(folder):
    return partial(up(activation="gelu", stride=2).predict, x(), 10)


@call("Conv.predict")
def _(folder):
    return partial(down(activation=("snake", 1.5)).predict, x())


@call("Convolution.solve")
def _(folder):
    return partial(up(stride=2).solve, x(), 10)


@call("Convolution.pull_back")
def _(folder):
    layer = up()
    y, kept = layer.compute(x())
    return partial(lambda dy: layer.pull_back(kept, dy), y)


@call("Convolution.describe")
def _(folder):
    return partial(up().describe)


@call("Layer")
def _(folder):
    return partial(tconv.Layer)


@call("Layer.forward")
@call("Layer.__call__")
@call("Layer.predict")
def _(folder):
    layer = random_layer()
    return partial(getattr(layer, random.choice(["forward", "__call__", "predict"])), x())


def random_layer():
    makes = [up, down, tconv.ReLU, tconv.LeakyReLU, lambda: tconv.MaxPool1d(2)]
    makes.append(lambda: tconv.Sequential(up(), tconv.ReLU()))
    makes.append(lambda: tconv.ConvTranspose1d(None, 3, 3, padding_mode="circular", padding=1))
    return random.choice(makes)()


@call("Layer.forward")
def _(folder):
    return partial(up(stride=2).forward, x(), output_size=10)


@call("Layer.backward")
@call("Layer.backward")
def _(folder):
    layer = random_layer()
    return partial(layer.backward, layer(x()))


@call("Layer.compute")
def _(folder):
    return partial(tconv.ReLU().compute, x())


@call("Layer.pull_back")
def _(folder):
    return partial(lambda dy: tconv.ReLU().pull_back(x(), dy), x())


for name in ("members", "named_parameters", "parameters", "zero_gradients", "state_dict"):

    @call(f"Layer.{name}")
    def _(folder, name=name):
        def listed():
            found = getattr(tconv.Sequential(up(), down()), name)()
            return found is None or list(found)

        return partial(listed)


@call("Layer.describe")
def _(folder):
    return partial(tconv.ReLU().describe)


@call("Layer.load_state_dict")
@call("Layer.load_state_dict")
def _(folder):
    return partial(up().load_state_dict, {"weight": w(), "bias": np.ones(3)})


@call("Layer.load_state_dict")
def _(folder):
    layer = up()

    def load(weight, bias):
        layer.load_state_dict({"weight": weight, "bias": bias})
        return layer(x())

    return partial(load, w(), np.ones(3))


@call("Layer.save", outside=(OSError,))
def _(folder):
    return partial(up().save, f"{folder}/layer.npz")


@call("Layer.load", outside=(OSError,))
def _(folder):
    layer = up()
    layer.save(f"{folder}/layer.npz")
    return partial(layer.load, f"{folder}/layer.npz")


@call("Convolution.activation")
def _(folder):
    layer = up()
    return partial(setting(layer, "activation", lambda: layer(x())), random.choice(ACTIVATIONS))


@call("Convolution.stride")
def _(folder):
    layer = up()
    settings = {"stride": 2, "padding": 1, "dilation": 2, "groups": 1, "output_padding": 0}
    settings |= {"padding_mode": "zeros", "data_format": "channels_first"}
    name = random.choice(list(settings))
    return partial(setting(layer, name, lambda: (layer(x()), repr(layer))), settings[name])


@call("Sequential")
def _(folder):
    return partial(tconv.Sequential, tconv.ReLU(), tconv.ReLU())


@call("Sequential")
def _(folder):
    return partial(tconv.Sequential, {"a": tconv.ReLU(), "b": tconv.ReLU()})


@call("Sequential.__getitem__")
def _(folder):
    return partial(tconv.Sequential(tconv.ReLU(), tconv.ReLU()).__getitem__, 0)


@call("Sequential.compute")
@call("Sequential.predict")
def _(folder):
    layer = tconv.Sequential(up(), tconv.ReLU())
    return partial(random.choice([layer.compute, layer.predict]), x())


@call("Sequential.pull_back")
def _(folder):
    layer = tconv.Sequential(up(), tconv.ReLU())
    y, kept = layer.compute(x())
    return partial(lambda dy: layer.pull_back(kept, dy), y)


@call("Sequential.members")
def _(folder):
    return partial(tconv.Sequential(up()).members)


@call("ReLU")
def _(folder):
    return partial(tconv.ReLU)


@call("ReLU.compute")
def _(folder):
    return partial(tconv.ReLU().compute, x())


@call("ReLU.pull_back")
def _(folder):
    return partial(lambda dy: tconv.ReLU().pull_back(x(), dy), x())


@call("LeakyReLU")
def _(folder):
    return partial(lambda slope: tconv.LeakyReLU(slope)(x()), 0.1)


@call("LeakyReLU.compute")
def _(folder):
    return partial(tconv.LeakyReLU().compute, x())


@call("LeakyReLU.pull_back")
def _(folder):
    return partial(lambda dy: tconv.LeakyReLU().pull_back(x(), dy), x())


@call("LeakyReLU.describe")
def _(folder):
    return partial(tconv.LeakyReLU().describe)


for name in chain.from_iterable(
    (f"Max{p}", *(f"Max{p}{n}d" for n in (1, 2, 3))) for p in ("Pool", "Unpool")
):
    rank = 1 if name[-1] != "d" else int(name[-2])
    kernel = (2,) * rank if name[-1] != "d" else 2

    @call(name)
    def _(folder, name=name, rank=rank, kernel=kernel):
        def pool(*args, **keywords):
            layer = getattr(tconv, name)(*args, **keywords)
            a = np.ones((1, 2, *[4] * rank))
            switches = [np.zeros(a.shape, int)] if "Un" in name else []
            y = layer(a, *switches)
            return layer.backward(np.ones_like(y)), repr(layer)

        others = () if "Un" in name else (1, False)
        return partial(pool, kernel, None, 0, *others, data_format="channels_first")


@call("MaxPool.compute")
def _(folder):
    return partial(tconv.MaxPool1d(2).compute, x())


@call("MaxPool.pull_back")
def _(folder):
    layer = tconv.MaxPool1d(2)
    y, kept = layer.compute(x())
    return partial(lambda dy: layer.pull_back(kept, dy), y)


@call("MaxPool.describe")
@call("MaxUnpool.describe")
def _(folder):
    return partial(random.choice([tconv.MaxPool1d, tconv.MaxUnpool1d])(2).describe)


@call("MaxUnpool.compute")
def _(folder):
    return partial(tconv.MaxUnpool1d(2).compute, x(), np.zeros((1, 2, 4), int), 8)


@call("MaxUnpool.pull_back")
def _(folder):
    layer = tconv.MaxUnpool1d(2)
    y, kept = layer.compute(x(), np.zeros((1, 2, 4), int))
    return partial(lambda dy: layer.pull_back(kept, dy), y)


@call("Parameter")
def _(folder):
    return partial(tconv.Parameter, np.ones(3), "weight", shape=(3,), dtype="float64")


@call("Parameter")
def _(folder):
    def filled(*args, **keywords):
        parameter = tconv.Parameter(*args, **keywords)
        parameter.value = np.ones(3)
        return parameter.gradient, repr(parameter)

    return partial(filled, None, "weight", shape=(None,), dtype="float32")


@call("Parameter.value")
@call("Parameter.gradient")
def _(folder):
    parameter = tconv.Parameter(np.ones((1, 1, 3), np.float32))
    name = random.choice(["value", "gradient"])
    return partial(setting(parameter, name, lambda: repr(parameter)), np.ones((1, 1, 3)))


@call("Parameter.converted")
def _(folder):
    return partial(tconv.Parameter(np.ones((1, 1, 3), "f4")).converted, np.ones((1, 1, 3)), "name")


@call("Parameter.fits")
def _(folder):
    return partial(tconv.Parameter(np.ones(3)).fits, (3,))


for name in ("peek", "zero_gradient"):

    @call(f"Parameter.{name}")
    def _(folder, name=name):
        return partial(getattr(tconv.Parameter(np.ones(3)), name))


@call("from_torch")
def _(folder):
    module = type("ReLU", (), {"__module__": "torch.nn.modules.activation"})()
    module._forward_hooks = module._forward_pre_hooks = {}
    return partial(tconv.from_torch, module)


@call("BatchNorm")
def _(folder):
    def folded(*args):
        bn = tconv.BatchNorm(*args)
        return bn.scale_and_shift(3), tconv.fold_batch_norm(up(), bn), repr(bn)

    return partial(folded, *[np.ones(3)] * 4, 1e-5)


@call("BatchNorm.scale_and_shift")
def _(folder):
    return partial(tconv.BatchNorm(*[np.ones(3)] * 4).scale_and_shift, 3)


@call("fold_batch_norm")
def _(folder):
    return partial(tconv.fold_batch_norm, up(), tconv.BatchNorm(*[np.ones(3)] * 4))


# ---- optimisers ----------------------------------------------------------------------------------

OPTIMISERS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": False},
    "Adam": {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1},
}


def optimiser_of(name):
    return getattr(tconv, name)([tconv.Parameter(np.ones(3, np.float32))], **OPTIMISERS[name])


for name, keywords in OPTIMISERS.items():

    @call(name)
    def _(folder, name=name, keywords=keywords):
        def stepped(*args, **keywords):
            optimiser = getattr(tconv, name)(*args, **keywords)
            optimiser.step()
            return repr(optimiser), optimiser.state_dict()

        return partial(stepped, [tconv.Parameter(np.ones(3))], **keywords)

    @call("Optimiser.load_state_dict")
    def _(folder, name=name):
        optimiser = optimiser_of(name)
        optimiser.step()

        def load(state=None, **changes):
            optimiser.load_state_dict(state if changes == {} else optimiser.state_dict() | changes)
            optimiser.step()

        if random.random() < 0.5:
            return partial(load, optimiser.state_dict())
        return partial(load, **optimiser.state_dict())

    @call(f"{name}.lr")
    def _(folder, name=name):
        optimiser = optimiser_of(name)
        which = random.choice(list(OPTIMISERS[name]))
        return partial(setting(optimiser, which, optimiser.step), OPTIMISERS[name][which])


for name in ("step", "zero_gradients", "state_dict"):

    @call(f"Optimiser.{name}")
    def _(folder, name=name):
        return partial(getattr(optimiser_of("Adam"), name))
