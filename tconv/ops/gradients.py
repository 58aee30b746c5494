"""Derivatives of the transposed convolution, and checks of them.

F(x, w, y) is linear in each letter, so every derivative is one of the three contractions again: the
gradient with respect to x is `conv`, with respect to w `conv_weight_gradient`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import numpy as np

from tconv.arrays.dtypes import TYPES, as_dtype, dtype_name
from tconv.arrays.operands import as_operands, library_of
from tconv.errors import DTypeError, ShapeError
from tconv.geometry.arguments import as_flag, as_generator, as_integer
from tconv.geometry.geometry import Geometry
from tconv.geometry.keywords import TransposeKeywords
from tconv.geometry.shape_rules import as_shape
from tconv.ops.call_cache import BoundCall, cache_entry
from tconv.ops.dispatch import Call, check_memory, check_padding_mode, solve_for
from tconv.ops.functional import conv_transpose
from tconv.signatures import defaults_of, hint, readable
from tconv.system.memory import check_room

__all__ = ["check_adjoint", "conv_transpose_jvp", "conv_transpose_vjp", "gradcheck"]

_KNOWN = tuple(defaults_of(TransposeKeywords))
_CALL = ("padding_mode", "method", "threads", "max_bytes")


@readable
def conv_transpose_vjp(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    dtype: Any = None,
    out: Any = None,
    **keywords: Unpack[TransposeKeywords],
) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any]]]:
    """Return ``conv_transpose(x, weight, bias)`` and its pullback, which maps dy to gradients.

    ``dx = conv(dy, weight)``, ``dweight = conv_weight_gradient(x, dy)``, ``dbias = sum of dy``.

    Parameters
    ----------
    x, weight, bias, and all others : as for `conv_transpose`; types must be floating or complex

    Returns
    -------
    y : array (N, M, *O)
    pullback : function from dy (shape and type of y) to (dx, dweight, dbias), dbias None without
        bias. It is the transpose, also for complex numbers: nothing is conjugated, as in JAX.
        PyTorch's gradients are those of the adjoint: conjugate dy before, and the results after.

    Raises
    ------
    DTypeError : integers have no gradient; others as `conv_transpose`

    >>> x, weight = np.ones((1, 1, 2)), np.array([[[1.0, 2.0, 3.0]]])
    >>> y, pullback = conv_transpose_vjp(x, weight, stride=2)
    >>> dx, dweight, dbias = pullback(np.ones_like(y))
    >>> dx, dweight
    (array([[[6., 6.]]]), array([[[2., 2., 2.]]]))
    """
    xp, (x, weight, bias) = as_operands({"x": x, "weight": weight, "bias": bias}, dtype)
    _refuse_integers(x)
    entry = cache_entry(x, weight, ("vjp", *keywords, *keywords.values()))
    if entry:
        bound = entry[0]
    else:
        geometry, call = _prepare(x, weight, keywords)
        bound = BoundCall(geometry, x.dtype, call)
        if entry is not None:
            entry.append(bound)
    y = bound.solve("y", x, weight, bias, out)

    def pullback(dy: Any) -> tuple[Any, Any, Any]:
        _, (dy,) = as_operands({"dy": dy})
        if library_of(dy) != library_of(x):
            raise DTypeError(
                f"dy is an array of {library_of(dy)} but y of {library_of(x)}; convert dy."
            )
        found, wanted = dtype_name(dy.dtype), dtype_name(x.dtype)
        if found != wanted:
            raise DTypeError(f"dy has dtype {found}, must be that of y, {wanted}; convert dy.")
        _check_shape(dy, "dy", bound.geometry.y_shape, "y")
        dx = bound.solve("x", dy, weight)
        dweight = bound.solve("w", x, dy)
        return dx, dweight, None if bias is None else bias_gradient(xp, bound.geometry, dy)

    return y, pullback


@readable
def conv_transpose_jvp(
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    *,
    dtype: Any = None,
    **keywords: Unpack[TransposeKeywords],
) -> tuple[Any, Any]:
    """Return y and its derivative in the direction of the tangents of (x, weight, bias).

    ``dy = conv_transpose(dx, weight) + conv_transpose(x, dweight) + dbias``.

    Parameters
    ----------
    primals : (x, weight) or (x, weight, bias)
    tangents : their directions, arrays of the same shapes and types; None means none
    all others : as for `conv_transpose`

    Returns
    -------
    y, dy : arrays (N, M, *O)

    Raises
    ------
    DTypeError : integers have no gradient; others as `conv_transpose`

    >>> x, weight = np.ones((1, 1, 2)), np.array([[[1.0, 2.0, 3.0]]])
    >>> y, dy = conv_transpose_jvp((x, weight), (None, np.ones((1, 1, 3))), stride=2)
    >>> dy
    array([[[1., 1., 2., 1., 1.]]])
    """
    names = ("x", "weight", "bias")
    values, directions = (
        _triple(each, n) for each, n in ((primals, "primals"), (tangents, "tangents"))
    )
    given = dict(zip(names, values, strict=True))
    changes = {"d" + name: v for name, v in zip(names, directions, strict=True)}
    xp, arrays = as_operands(given | changes, dtype)
    _refuse_integers(arrays[0])
    (x, weight, bias), (dx, dweight, dbias) = arrays[:3], arrays[3:]
    for name, value, change in zip(names, arrays[:3], arrays[3:], strict=True):
        if change is not None:
            if value is None:
                raise ShapeError(f"d{name} has no {name} to change; pass {name} or d{name}=None.")
            _check_shape(change, "d" + name, tuple(value.shape), name)
    geometry, call = _prepare(x, weight, keywords)
    y = solve_for("y", geometry, x, weight, bias, call)
    types = TYPES[dtype_name(x.dtype)]
    wide = as_dtype(xp, types.accumulator)  # float16, bfloat16: add in float32, round once
    x, weight, dx, dweight, dbias = (
        None if v is None else xp.astype(v, wide, copy=False)
        for v in (x, weight, dx, dweight, dbias)
    )
    dy = xp.astype(xp.zeros_like(y), wide, copy=False)
    if dx is not None or dbias is not None:
        moved = xp.zeros_like(x) if dx is None else dx
        dy = solve_for("y", geometry, moved, weight, dbias, call)
    if dweight is not None:
        dy = dy + solve_for("y", geometry, x, dweight, None, call)
    return y, xp.astype(dy, y.dtype, copy=False)


def bias_gradient(xp: Any, geometry: Geometry, dy: Any) -> Any:
    """Sum dy over all but its channels, in the accumulator type."""
    types = TYPES[dtype_name(dy.dtype)]
    channel = dy.ndim - 1 if geometry.data_format == "channels_last" else int(geometry.batched)
    wide = as_dtype(xp, types.accumulator)
    if channel == 1 and dy.ndim > 2:
        # The batch first, cell by cell: for 64 images of 16 channels of 16 cells NumPy takes 6 us
        # instead of 28, and no longer for large ones (Zen 3).
        dy, channel = xp.sum(dy, axis=0, dtype=wide), 0
    axes = tuple(n for n in range(dy.ndim) if n != channel)
    total = xp.sum(dy, axis=axes, dtype=wide)
    return xp.astype(total, as_dtype(xp, types.result), copy=False)


@readable
def check_adjoint(
    weight: Any,
    x_shape: Any,
    *,
    rng: Any = None,
    conjugate: bool = False,
    **keywords: Unpack[TransposeKeywords],
) -> float:
    """Relative gap between the two sides of ``<conv_transpose(x, w), y> == <x, conv(y, w)>``.

    ``<a, b>`` is ``sum(a * b)``, so that `conv` is the transpose; with `conjugate` it is the inner
    product ``sum(a * conj(b))`` and `conv` the adjoint, ``conv(y, w, conjugate=True)``. For complex
    numbers the latter is the usual adjoint, such as rmatvec of SciPy's LinearOperator.

    Parameters
    ----------
    weight : array
    x_shape : shape of x
    rng : numpy.random.Generator, or a seed, to draw x and y; by default seed 0
    conjugate : bool, check the adjoint instead of the transpose; for real numbers they are equal
    all others : as for `conv_transpose`

    Returns
    -------
    float : ``|left - right|`` over the sum of the absolute products; about the type's rounding
        error, exactly 0 for integers

    References
    ----------
    J. Claerbout, Basic Earth Imaging, 2010: the dot-product test.

    >>> check_adjoint(np.ones((2, 3, 4)), (1, 2, 5), stride=2, padding=1) < 1e-12
    True
    """
    xp, (weight,) = as_operands({"weight": weight})
    is_adjoint = as_flag(conjugate, "conjugate")
    rng, types = as_generator(rng, 0), TYPES[dtype_name(weight.dtype)]
    geometry, call = _prepare_shapes(as_shape(x_shape, "x_shape"), tuple(weight.shape), keywords)
    # Before drawing: x and y are both drawn and computed.
    check_memory("y", geometry, call, types, unblocked=xp is not np)
    check_memory("x", geometry, call, types, unblocked=xp is not np)

    kind = dtype_name(weight.dtype)

    def draw(shape: tuple[int, ...]) -> Any:
        values = rng.integers(-3, 4, shape) if types.is_integer else rng.standard_normal(shape)
        if kind.startswith("uint"):
            values = abs(values)
        if kind.startswith("complex"):
            values = values + 1j * rng.standard_normal(shape)
        return xp.astype(xp.asarray(values), weight.dtype)

    x, y = draw(geometry.x_shape), draw(geometry.y_shape)
    there = solve_for("y", geometry, x, weight, None, call)
    is_conjugated = is_adjoint and kind.startswith("complex")
    conjugated = xp.conj(weight) if is_conjugated else weight
    back = solve_for("x", geometry, y, conjugated, None, call)
    left = [_as_float64(v) for v in (there, y)]
    right = [_as_float64(v) for v in (x, back)]
    if is_conjugated:
        left[1], right[1] = left[1].conj(), right[1].conj()
    scale = max(float(np.sum(np.abs(a * b))) for a, b in (left, right))
    gap = abs(np.sum(left[0] * left[1]) - np.sum(right[0] * right[1]))
    return float(gap / scale) if scale else 0.0


@readable
def gradcheck(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    rng: Any = None,
    limit: int = 256,
    dtype: Any = None,
    **keywords: Unpack[TransposeKeywords],
) -> float:
    """Compare `conv_transpose_vjp` with central differences, in float64.

    The function checked is ``<conv_transpose(x, weight, bias), dy>`` with a random dy. It is linear
    in each operand, so central differences have no truncation error.

    Parameters
    ----------
    x, weight, bias : real arrays, converted to NumPy float64
    rng : numpy.random.Generator or a seed; by default seed 0
    limit : int, most elements per operand to try; a larger operand is sampled at random
    all others : as for `conv_transpose`

    Returns
    -------
    float : largest absolute error over the largest absolute gradient, of any operand

    >>> rng = np.random.default_rng(0)
    >>> gradcheck(rng.normal(size=(1, 2, 4)), rng.normal(size=(2, 3, 3)), stride=2) < 1e-8
    True
    """
    limit = as_integer(limit, "limit", 1)
    rng = as_generator(rng, 0)
    operands: list[Any] = []
    for name, value in {"x": x, "weight": weight, "bias": bias}.items():
        if name == "bias" and value is None:
            operands.append(None)
            continue
        _, (given,) = as_operands({name: value}, dtype)
        operands.append(_as_float64(given))
        if np.iscomplexobj(operands[-1]):
            found = dtype_name(given.dtype)
            raise DTypeError(f"{name} has dtype {found}, must be real; pass {name}.real.")
    y, pullback = conv_transpose_vjp(*operands, **keywords)
    dy = rng.standard_normal(y.shape)
    worst = 0.0
    for n, gradient in enumerate(pullback(dy)):
        if gradient is None or gradient.size == 0:
            continue
        places = np.arange(gradient.size)
        if places.size > limit:
            places = rng.choice(places, limit, replace=False)
        errors = []
        for place in places:
            values = []
            for step in (0.5, -0.5):
                moved = list(operands)
                changed = gradient * 0
                changed.flat[place] = step
                moved[n] = operands[n] + changed
                values.append(float(np.sum(conv_transpose(*moved, **keywords) * dy)))
            errors.append(abs(values[0] - values[1] - gradient.flat[place]))
        scale = max(float(np.abs(gradient).max()), float(np.finfo(np.float64).tiny))
        worst = max(worst, float(max(errors)) / scale)
    return worst


def _prepare(x: Any, weight: Any, keywords: Mapping[str, Any]) -> tuple[Geometry, Call]:
    return _prepare_shapes(tuple(x.shape), tuple(weight.shape), keywords)


def _prepare_shapes(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], keywords: Mapping[str, Any]
) -> tuple[Geometry, Call]:
    """Read the keywords of `conv_transpose`, as that function does."""
    unknown = sorted(keywords.keys() - {*_KNOWN})
    if unknown:
        name = unknown[0]
        raise TypeError(f"unexpected keyword argument {name!r}{hint(name, _KNOWN)}")
    sizes = {name: value for name, value in keywords.items() if name not in _CALL}
    some = {name: value for name, value in keywords.items() if name in _CALL}
    call = Call("conv_transpose", **some, kept=False)
    geometry = Geometry.of(x_shape, weight_shape, **sizes)
    padding, extra = keywords.get("padding", 0), keywords.get("output_padding", 0)
    check_padding_mode(call.padding_mode, geometry, padding, extra)
    return geometry, call


def _refuse_integers(x: Any) -> None:
    if TYPES[dtype_name(x.dtype)].is_integer:
        raise DTypeError(
            f"x has dtype {dtype_name(x.dtype)}, gradients need a floating or complex type; pass "
            'dtype="float64" for example.'
        )


def _triple(values: Any, name: str) -> tuple[Any, Any, Any]:
    if not isinstance(values, (tuple, list)) or len(values) not in (2, 3):
        raise ShapeError(f"{name} must be (x, weight) or (x, weight, bias); pass such a tuple.")
    return values[0], values[1], values[2] if len(values) == 3 else None


def _check_shape(array: Any, name: str, shape: tuple[int, ...], like: str) -> None:
    if tuple(array.shape) != shape:
        raise ShapeError(
            f"{name} has shape {tuple(array.shape)}, must be that of {like}, "
            f"{shape}; reshape {name}."
        )


def _as_float64(array: Any) -> Any:
    """An array of any library as a NumPy array of float64."""
    if not isinstance(array, np.ndarray):
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            array = array.float() if dtype_name(array.dtype) == "bfloat16" else array
        array = np.asarray(array)
    kind = np.complex128 if np.iscomplexobj(array) else np.float64
    check_room("an operand in double precision", array.size * np.dtype(kind).itemsize)
    return array.astype(kind)
