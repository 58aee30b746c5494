"""Good calls of the other modules, of models, explanations and pictures, for the registry."""

import copy
import random
from functools import cache, partial

import numpy as np

import tconv
import tconv.checkerboard
import tconv.images
import tconv.onnx
import tconv.tinynet
from hostile_registry import HEAVY, SLOW, call, image, w

# ---- checkerboard, images, tinynet ---------------------------------------------------------------


@call("checkerboard.overlap_counts")
def _(folder):
    return partial(tconv.checkerboard.overlap_counts, (3, 3), stride=2, dilation=1)


@call("checkerboard.phase_sums")
def _(folder):
    return partial(tconv.checkerboard.phase_sums, w(), stride=2, dilation=1)


@call("checkerboard.ripple")
def _(folder):
    return partial(tconv.checkerboard.ripple, w(), stride=2, dilation=1)


@call("checkerboard.decibels")
def _(folder):
    return partial(tconv.checkerboard.decibels, 0.5)


@call("images.renormalise")
def _(folder):
    return partial(tconv.images.renormalise, np.eye(3), "zero", within=(-1.0, 1.0))


@call("images.read_picture", outside=(OSError,))
def _(folder):
    tconv.images.write_picture(f"{folder}/picture.png", np.zeros((3, 2, 2), np.uint8))
    keywords = {"channels": 3, "data_format": "channels_first"}
    return partial(tconv.images.read_picture, f"{folder}/picture.png", **keywords)


@call("images.picture_size", outside=(OSError,))
def _(folder):
    tconv.images.write_picture(f"{folder}/picture.png", np.zeros((3, 2, 2), np.uint8))
    return partial(tconv.images.picture_size, f"{folder}/picture.png")


@call("images.write_picture", outside=(OSError,))
def _(folder):
    pixels = np.zeros((3, 2, 2), np.uint8)
    where = f"{folder}/picture.png"
    return partial(tconv.images.write_picture, where, pixels, data_format="channels_first")


for name in ("Conv2D", "Deconv2D"):

    @call(f"tinynet.{name}")
    def _(folder, name=name):
        def passed(*args, **keywords):
            layer = getattr(tconv.tinynet, name)(*args, **keywords)
            y = layer(image())
            return layer.backward(np.ones_like(y)), layer.summary(), repr(layer.parameters)

        return partial(passed, "layer", (1, 4, 4), 1, 2, 2, 1, 1, 0, rng=0)


def tiny():
    make = random.choice([tconv.tinynet.Conv2D, tconv.tinynet.Deconv2D])
    return make("layer", (1, 4, 4), 1, 3, 3, 1, padding=1, rng=0)


@call("tinynet.Layer")
def _(folder):
    return partial(lambda name: tconv.tinynet.Layer(name).summary(), "layer")


@call("tinynet.Layer.forward")
@call("tinynet.Layer.__call__")
def _(folder):
    return partial(tiny(), image())


@call("tinynet._Filters.forward")
def _(folder):
    return partial(tiny().forward, image())


@call("tinynet.Layer.backward")
@call("tinynet._Filters.backward")
def _(folder):
    layer = tiny()
    return partial(layer.backward, layer(image()))


@call("tinynet.Layer.build_param")
def _(folder):
    def built(tensor):
        layer = tconv.tinynet.Layer("mine")
        return repr(layer.build_param(tensor)), layer.summary()

    return partial(built, np.ones(3))


@call("tinynet.Layer.summary")
def _(folder):
    return partial(tiny().summary)


@call("tinynet.Parameter")
def _(folder):
    return partial(lambda tensor: repr(tconv.tinynet.Parameter(tensor)), np.ones(3))


@call("tinynet.Parameter.tensor")
def _(folder):
    layer = tiny()

    def change(weight, bias):
        layer.weight.tensor, layer.bias.tensor = weight, bias
        return layer(image()), layer.summary(), repr(layer.weight)

    return partial(change, layer.weight.tensor, layer.bias.tensor)


# ---- models --------------------------------------------------------------------------------------


@cache
def model():
    return tconv.ConvTranspose2d(1, 2, 2, stride=2, activation="relu", rng=0).to_onnx()


@cache
def session():
    return tconv.onnx.Session(model(), threads=1, force=True)


@call("ConvTranspose.from_onnx")
def _(folder):
    graph = model().graph
    return partial(tconv.ConvTranspose2d.from_onnx, graph.node[0], graph.initializer)


@call("ConvTranspose.from_onnx")
def _(folder):
    values = {"weight": np.ones((1, 2, 2, 2), "f4"), "bias": np.ones(2, "f4")}

    def made(**values):
        return tconv.ConvTranspose2d.from_onnx(model().graph.node[0], values)(image())

    return partial(made, **values)


@call("ConvTranspose.to_onnx")
def _(folder):
    return partial(tconv.ConvTranspose1d(2, 3, 3, rng=0).to_onnx)


@call("onnx.Session", HEAVY, outside=(OSError,))
def _(folder):
    return partial(tconv.onnx.Session, model(), threads=1, force=True)


@call("onnx.Session.run")
@call("onnx.Session.run")
def _(folder):
    return partial(session().run, ["y"], {"x": image()}, None)


@call("onnx.Session.run")
def _(folder):
    return partial(lambda name, x: session().run([name], {"x": x}), "y", image())


@call("onnx.Session", HEAVY, outside=(OSError,))
def _(folder):
    return partial(
        tconv.onnx.Session,
        *(model(), None, ["CPUExecutionProvider"], [{}]),
        enable_fallback=0,
        read_config_from_model=0,
        disabled_optimizers=["None"],
    )


@call("onnx.Session.report", HEAVY)
def _(folder):
    return partial(session().report)


@call("onnx.Session.profile", HEAVY)
def _(folder):
    large = np.ones((1, 1, 200, 200), "f4")  # as a program
    return partial(tconv.onnx.Session(model(), threads=1).profile, {"x": large}, 1)


for name in (
    *("get_inputs", "get_outputs", "get_overridable_initializers", "get_modelmeta"),
    *("get_session_options", "get_providers", "get_provider_options"),
    *("disable_fallback", "enable_fallback"),
):

    @call(f"onnx.InferenceSessionBase.{name}", HEAVY)
    def _(folder, name=name):
        return partial(getattr(session(), name))


@call("onnx.InferenceSessionBase.set_providers", HEAVY)
def _(folder):
    return partial(copy.copy(session()).set_providers, ["CPUExecutionProvider"], [{}])


@call("onnx.check_weights", outside=(OSError,))
def _(folder):
    return partial(tconv.onnx.check_weights, model())


@call("onnx.compare", SLOW, outside=(OSError,))
def _(folder):
    keywords = {"threads": 1, "force": True, "seconds": 0.01}
    return partial(tconv.onnx.compare, model(), {"x": image()}, **keywords)


@call("onnx.warm", HEAVY, outside=(OSError,))
def _(folder):
    return partial(tconv.onnx.warm, model())


# ---- explanations and pictures -------------------------------------------------------------------

SEE = {
    "feature": None,
    "unit": None,
    "target_class": None,
    "top": 2,
    "rule": "deconvnet",
    "norm": "zero",
    "scale": "tile",
    "crop": True,
    "sanity": False,
    "seed": "unit",
    "size": None,
    "mean": 0.0,
    "std": 1.0,
    "value_range": (0.0, 1.0),
    "threads": 1,
    "progress": None,
}


@call("see", HEAVY, outside=(OSError,))
@call("see", HEAVY, outside=(OSError,))
def _(folder):
    return partial(tconv.see, model(), np.ones((1, 4, 4), np.uint8), "y", **SEE)


@call("see", HEAVY, outside=(OSError,))
def _(folder):
    where = f"{folder}/picture.png"
    tconv.images.write_picture(where, np.zeros((3, 8, 8), np.uint8))
    return partial(tconv.see, model(), [where, where], 0, size=(4, 4), feature=[0], mean=[0.5])


@call("see_layers", HEAVY, outside=(OSError,))
def _(folder):
    return partial(tconv.see_layers, model(), rule="deconvnet", size=8)


@cache
def seen():
    return tconv.see(model(), np.ones((1, 4, 4), np.uint8), "y")


for name in ("figure", "html"):

    @call(f"See.{name}", SLOW)
    def _(folder, name=name):
        return partial(getattr(seen(), name))


@call("See.save", SLOW, outside=(OSError,))
def _(folder):
    return partial(seen().save, f"{folder}/seen.npz")


for name in ("ranges", "levels", "table", "arrays", "as_dict"):

    @call(f"Projections.{name}", HEAVY)
    def _(folder, name=name):
        return partial(getattr(seen(), name))


@call("explain")
def _(folder):
    keywords = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
    return partial(tconv.explain, np.eye(2), np.eye(2), **keywords)


@call("explain")
def _(folder):
    def explained(x, w):
        explainer = tconv.explain(x, w)
        return str(explainer), explainer.facts(), explainer.url_state(), explainer.html()

    return partial(explained, np.eye(2), np.eye(2))


for name in ("facts", "url_state", "html", "svg"):

    @call(f"Explainer.{name}", SLOW)
    def _(folder, name=name):
        return partial(getattr(tconv.explain(), name))


@call("Explainer.save", HEAVY, outside=(OSError,))
def _(folder):
    return partial(tconv.explain().save, f"{folder}/page.svg")
