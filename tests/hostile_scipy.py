"""Good calls of operators for SciPy, for the registry."""

from functools import partial

import numpy as np

from hostile_registry import call, w
from tconv import scipy

KEYWORDS = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
    "output_size": None,
    "padding_mode": "zeros",
    "data_format": "channels_first",
    "weight_format": "IO*",
    "flip_kernel": False,
}


def operator():
    return scipy.ConvTransposeOperator(np.ones((1, 1, 3)), 4, padding=1, padding_mode="circular")


for name in ("ConvTransposeOperator", "ConvOperator"):

    @call(f"scipy.{name}")
    @call(f"scipy.{name}")
    def _(folder, name=name):
        def used(*args, **given):
            made = getattr(scipy, name)(*args, **given)
            if max(made.shape) > 2**20:
                return repr(made)
            return made @ np.ones(made.shape[1]), made.H @ np.ones(made.shape[0]), repr(made)

        return partial(
            used, w(), 4, batch=1, method="direct", threads=1, max_bytes=None, **KEYWORDS
        )


@call("scipy.matrix")
@call("scipy.matrix")
def _(folder):
    return partial(scipy.matrix, w(), 4, format="csr", unrolled=False, **KEYWORDS)


@call("scipy.recover")
@call("scipy.recover")
def _(folder):
    b = np.arange(4.0)
    return partial(scipy.recover, operator(), b, strength=0.1, penalty="tv", method="auto", steps=5)


for name in ("norm", "bound"):

    @call(f"scipy.{name}")
    def _(folder, name=name):
        return partial(getattr(scipy, name), operator())


@call("scipy.singular_values")
def _(folder):
    return partial(scipy.singular_values, operator(), k=2)
