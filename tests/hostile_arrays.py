"""Good calls of the functions of arrays and sizes, and of initialisers, for the registry."""

from functools import cache, partial

import numpy as np

import tconv
from hostile_registry import call, w, x, y

# ---- functions of arrays and sizes ---------------------------------------------------------------

SIZES = {
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "groups": 1,
    "data_format": "channels_first",
    "weight_format": "IO*",
}
OTHERS = {
    "padding_mode": "zeros",
    "flip_kernel": False,
    "dtype": "float32",
    "out": None,
    "method": "auto",
    "threads": 1,
    "max_bytes": None,
}
KEYWORDS = SIZES | OTHERS


@call("conv_transpose")
@call("conv_transpose")
def _(folder):
    return partial(
        tconv.conv_transpose, x(), w(), np.ones(3, np.float32), **KEYWORDS, output_size=None
    )


@call("conv_transpose")
def _(folder):
    return partial(tconv.conv_transpose, x(), w(), None, stride=1, threads=None, dtype=None)


@call("conv_transpose")
def _(folder):
    out = np.zeros((1, 3, 6), np.float32)
    return partial(tconv.conv_transpose, x(), w(), out=out, padding_mode="zeros", output_size=6)


@call("conv_transpose")
def _(folder):
    keywords = {"padding": 1, "padding_mode": "circular", "output_padding": 0, "max_bytes": 10**6}
    return partial(tconv.conv_transpose, x(), w(), np.ones(3, np.float32), **keywords)


@call("conv")
def _(folder):
    return partial(tconv.conv, y(), w(), np.ones(2, np.float32), **KEYWORDS, input_size=None)


@call("conv")
def _(folder):
    return partial(tconv.conv, y(), w(), padding=1, padding_mode="reflect", input_size=None)


@call("conv_weight_gradient")
def _(folder):
    return partial(tconv.conv_weight_gradient, x(), y(), 3, **KEYWORDS)


for rank in (1, 2, 3):
    name = f"conv_transpose{rank}d"

    @call(name)
    def _(folder, rank=rank, name=name):
        a, b = np.ones((1, 2, *[3] * rank)), np.ones((2, 1, *[2] * rank))
        return partial(getattr(tconv, name), a, b, np.ones(1), 1, 0, 0, 1, 1)


@call("output_shape")
def _(folder):
    keywords = SIZES | {"output_size": None, "padding_mode": "zeros"}
    return partial(tconv.output_shape, (1, 2, 4), (2, 3, 3), **keywords)


@call("conv_output_shape")
def _(folder):
    keywords = SIZES | {"input_size": None, "padding_mode": "zeros"}
    return partial(tconv.conv_output_shape, (1, 3, 8), (2, 3, 3), **keywords)


@call("solve")
def _(folder):
    keywords = {"input_size": 8, "output_size": 16, "kernel_size": 4, "stride": 2}
    return partial(tconv.solve, **keywords, padding=1, dilation=1, limit=20)


@call("solve")
def _(folder):
    keywords = dict.fromkeys(("output_size", "kernel_size", "stride", "padding"))
    return partial(tconv.solve, input_size=8, **keywords, dilation=1, limit=20)


@call("Geometry.of")
def _(folder):
    keywords = SIZES | {"flip_kernel": False, "output_size": None}
    return partial(tconv.Geometry.of, (1, 2, 4), (2, 3, 3), **keywords)


@call("Geometry.of_conv")
def _(folder):
    keywords = SIZES | {"flip_kernel": False, "input_size": None}
    return partial(tconv.Geometry.of_conv, (1, 3, 6), (2, 3, 3), **keywords)


@call("Geometry.of_weight_gradient")
def _(folder):
    keywords = SIZES | {"flip_kernel": False}
    return partial(tconv.Geometry.of_weight_gradient, (1, 2, 4), (1, 3, 6), 3, **keywords)


@call("Geometry.shape_of")
def _(folder):
    return partial(tconv.Geometry.of((1, 2, 4), (2, 3, 3)).shape_of, "y")


@call("Geometry.terms")
def _(folder):
    return partial(tconv.Geometry.of((1, 2, 4), (2, 3, 3)).terms, "y")


@call("Geometry.unrolled_cells")
def _(folder):
    return partial(tconv.Geometry.of((1, 2, 4), (2, 3, 3)).unrolled_cells)


@call("Geometry.unrolled_indices")
def _(folder):
    return partial(tconv.Geometry.of((1, 2, 4), (2, 3, 3)).unrolled_indices)


@call("plan")
def _(folder):
    keywords = SIZES | {"flip_kernel": False, "output_size": None}
    others = {"want": "y", "dtype": "float32", "threads": 1, "method": "auto", "activation": "relu"}
    return partial(tconv.plan, (1, 2, 4), (2, 3, 3), **others, **keywords)


@call("plan")
def _(folder):
    def used(*args, **keywords):
        planned = tconv.plan(*args, **keywords)
        return planned(x(), planned.pack(w())), repr(planned)

    others = {"dtype": "float32", "threads": None, "method": "direct", "activation": None}
    return partial(used, (1, 2, 4), (2, 3, 3), **others)


@cache
def planned(**keywords):
    return tconv.plan((1, 2, 4), (2, 3, 3), **keywords)


@call("PlannedCall.pack")
def _(folder):
    return partial(planned().pack, w())


@call("PlannedCall.pack")
def _(folder):
    return partial(planned(data_format="channels_first", dtype="int32").pack, w().astype("i4"))


@call("PlannedCall.__call__")
def _(folder):
    packed = planned().pack(w())
    return partial(planned(), x(), packed, np.ones(3, np.float32), np.zeros_like(y()))


@call("PlannedCall.__call__")
def _(folder):
    call = planned(dtype="int8")
    packed = call.pack(w().astype("i1"))
    return partial(call, x().astype("i1"), packed, np.ones(3, "i4"), np.zeros((1, 3, 6), "i4"))


@call("conv_transpose_vjp")
def _(folder):
    def used(*args, **keywords):
        y, pullback = tconv.conv_transpose_vjp(*args, **keywords)
        return pullback(np.ones_like(y))

    return partial(used, x(), w(), np.ones(3, np.float32), **KEYWORDS, output_size=None)


@call("conv_transpose_vjp")
def _(folder):
    return partial(tconv.conv_transpose_vjp(x(), w())[1], y())


@call("conv_transpose_jvp")
def _(folder):
    primals, keywords = (x(), w(), np.ones(3, np.float32)), dict(KEYWORDS)
    del keywords["out"]
    return partial(tconv.conv_transpose_jvp, primals, (x(), w(), None), **keywords)


@call("check_adjoint")
def _(folder):
    keywords = {name: KEYWORDS[name] for name in KEYWORDS if name not in ("out", "dtype")}
    return partial(tconv.check_adjoint, w(), (1, 2, 4), rng=0, **keywords)


@call("gradcheck")
def _(folder):
    keywords = {"rng": 0, "limit": 4, "stride": 1, "padding": 0, "dtype": None, "threads": 1}
    return partial(tconv.gradcheck, x(), w(), np.ones(3, np.float32), **keywords)


@call("max_pool")
@call("max_pool")
def _(folder):
    return partial(tconv.max_pool, x(), (2,), None, 0, 1, False, data_format="channels_first")


@call("max_unpool")
def _(folder):
    switches = np.zeros((1, 2, 4), np.int64)
    return partial(tconv.max_unpool, x(), switches, (8,), data_format="channels_first")


@call("upsample")
def _(folder):
    return partial(tconv.upsample, x(), 2, "linear", axes=(0, -1), threads=1)


@call("downsample")
def _(folder):
    return partial(tconv.downsample, x(), 2, "cubic", axes=(1, 2), adjoint=False, threads=1)


# ---- initialisers --------------------------------------------------------------------------------

for name in tconv.__all__:
    if name.startswith("init_"):

        @call(name)
        def _(folder, name=name):
            keywords = {"stride": 2, "dilation": 1, "groups": 1, "transposed": True, "rng": 0}
            if "kaiming" in name or "icnr" in name:
                keywords["negative_slope"] = 0.1
            return partial(getattr(tconv, name), (2, 2, 4), **keywords)
