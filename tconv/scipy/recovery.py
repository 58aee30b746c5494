"""Deconvolution in the true sense: recover an array from its blurred and strided samples."""

import warnings
from collections.abc import Callable
from functools import partial
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg, lsmr

from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.geometry.arguments import as_array, as_choice, as_integer, as_number
from tconv.geometry.geometry import OPERANDS
from tconv.messages import show
from tconv.scipy.frequencies import Frequencies, applied, fits
from tconv.scipy.operators import Operator
from tconv.scipy.spectrum import as_operator, is_circulant

__all__ = ["recover"]

PENALTIES = ("identity", "gradient", "tv")
_MOST, _STEPS, _INNER = 1000, 200, 100  # of lsmr, of ADMM, and of a solution within ADMM
_TOLERANCE = 1e-11  # of lsmr
_ROOT_BYTES = 2**30  # of a preconditioner, at most; without it lsmr takes more steps
_STILL = 1e-4  # of x, between two steps of ADMM


def recover(
    op: Operator,
    b: Any,
    *,
    strength: float,
    penalty: str = "identity",
    method: str = "auto",
    steps: int | None = None,
) -> NDArray[Any]:
    """Return the x that minimises ``norm(op @ x - b)**2 + strength * penalty(x)``.

    The transpose of a convolution restores a shape; this restores values as far as b determines
    them, and takes the smallest, the smoothest or the most even x of those that fit b.

    Parameters
    ----------
    op : ConvTransposeOperator or ConvOperator; a blur with a stride is a ConvOperator
    b : array of shape ``op.dimsd``, or flat
    strength : float >= 0, about the variance of the noise over that of x (of its gradient). 0 gives
        the least squares solution of least norm.
    penalty : "identity" for the sum of ``abs(x)**2`` (Tikhonov), "gradient" for that of differences
        of neighbours, "tv" for the sum of the lengths of the gradient, which keeps edges (total
        variation); each channel for itself. With ``padding_mode="circular"`` the first cell of an
        axis is a neighbour of the last.
    method : "fft" solves a small system for each frequency, where a shift of the smaller array by a
        cell is one of the larger by the stride, around the ends: with ``padding_mode="circular"``
        and sizes whose ratio is the stride. "lsmr" works for every operator, and is preconditioned
        by the circular one. "auto" is "fft" where that is exact.
    steps : int, most iterations; None for as many as converge, 200 with "tv"

    Returns
    -------
    array of shape ``op.dims``

    Raises
    ------
    ParameterError, ShapeError, DTypeError : an argument is none of the above

    References
    ----------
    Tikhonov, per frequency with a stride: Zhao et al. 2016, IEEE TIP 25(8). lsmr: Fong & Saunders
    2011. Total variation by ADMM: Boyd et al. 2011, section 6.4.

    >>> from tconv.scipy import ConvOperator
    >>> w = np.array([[[1.0, 3.0, 1.0]]]) / 5
    >>> blur = ConvOperator(w, 8, padding=1, padding_mode="circular")
    >>> x = np.arange(8.0) % 3
    >>> recover(blur, blur @ x, strength=1e-9).round(6)
    array([[0., 1., 2., 0., 1., 2., 0., 1.]])
    """
    as_operator(op)
    weight = as_number(strength, "strength", 0.0)
    kind = as_choice(penalty, "penalty", PENALTIES)
    how = as_choice(method, "method", ("auto", "fft", "lsmr"))
    most = None if steps is None else as_integer(steps, "steps", 1)
    data = _data(op, b)
    goes_around = op.padding_mode == "circular"
    is_exact = is_circulant(op.geometry, op.padding_mode) and (kind == "identity" or goes_around)
    if how == "fft" and not is_exact:
        raise ParameterError(
            f'method="fft" needs an operator that is circular, with sizes whose ratio is the '
            f"stride, not padding_mode={show(op.padding_mode)} with {op.dims} to {op.dimsd}; pass "
            'method="lsmr", or "auto".'
        )
    by_fft = is_exact and how != "lsmr"
    if kind == "tv" and weight:
        found = _by_admm(op, data, weight, by_fft, _STEPS if most is None else most)
    elif by_fft:
        found = _by_frequencies(op, data, weight, kind)
    else:
        found = _by_lsmr(op, data, weight, kind, most)
    return found.astype(_type_of(op, data), copy=False).reshape(op.dims)


def _data(op: Operator, b: Any) -> NDArray[Any]:
    """B as an array that a flat one stands for."""
    data = as_array(b, "b")
    if data.dtype.kind not in "biufc":
        raise DTypeError(f"b has dtype {data.dtype}, must be of numbers; pass such an array.")
    if data.shape not in (op.dimsd, (op.shape[0],)):
        raise ShapeError(
            f"b has shape {data.shape}, must have shape {op.dimsd} or ({op.shape[0]},), as the "
            "operator returns; pass such an array."
        )
    if not np.isfinite(data).all():
        raise ParameterError("b holds infinities or NaN, must be finite; replace them.")
    return data.reshape(op.dimsd)


def _type_of(op: Operator, data: NDArray[Any]) -> np.dtype[Any]:
    kind = np.result_type(op.dtype, data.dtype)
    if kind in (np.float32, np.complex64):
        return kind
    return np.result_type(kind, np.float64)


def _axes(op: Operator) -> tuple[int, ...]:
    """The spatial axes of what an operator reads."""
    geometry = op.geometry
    last = len(op.dims) - (geometry.data_format == "channels_last")
    return tuple(range(last - geometry.rank, last))


# ---- differences ---------------------------------------------------------------------------------


class _Gradient:
    """Differences of neighbours along each axis, and their adjoint."""

    def __init__(self, op: Operator, is_circular: bool) -> None:
        self.axes, self.is_circular = _axes(op), is_circular

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Differences (axes, *x.shape); those at the ends are 0 unless it goes around."""
        found = np.empty((len(self.axes), *x.shape), x.dtype)
        for n, axis in enumerate(self.axes):
            np.subtract(np.roll(x, -1, axis), x, out=found[n])
            if not self.is_circular:
                np.moveaxis(found[n], axis, -1)[..., -1] = 0
        return found

    def adjoint(self, z: NDArray[Any]) -> NDArray[Any]:
        """The adjoint, the negative divergence."""
        total = np.zeros(z.shape[1:], z.dtype)
        for each, axis in zip(z, self.axes, strict=True):
            if not self.is_circular:
                each = each.copy()
                np.moveaxis(each, axis, -1)[..., -1] = 0
            total += np.roll(each, 1, axis) - each
        return total


# ---- ways to solve it ----------------------------------------------------------------------------


def _by_frequencies(op: Operator, data: NDArray[Any], strength: float, kind: str) -> NDArray[Any]:
    """Closed form."""
    frequencies = Frequencies(op)
    d: Any = strength if kind == "identity" else strength * frequencies.differences()
    found = frequencies.fitted(frequencies.transformed(op.letter, _batched(op, data)), d)
    return _as_given(op, data, frequencies.back(frequencies.letter, found))


def _by_lsmr(
    op: Operator, data: NDArray[Any], strength: float, kind: str, steps: int | None
) -> NDArray[Any]:
    """Least squares of op and, below it, of the penalty; preconditioned by the circular one."""
    exact = op.with_weight(op.weight.astype(np.result_type(op.dtype, np.float64)))
    gradient = _Gradient(op, op.padding_mode == "circular")
    root: Any = None
    if strength and fits(op):
        frequencies = Frequencies(op)
        ones = 1.0 if kind == "identity" else frequencies.differences()
        if frequencies.root_bytes <= _ROOT_BYTES:
            root = partial(applied, frequencies.root(strength * ones), frequencies)
    weight, count = sqrt(strength), prod(op.dimsd)
    type_ = np.result_type(exact.dtype, data.dtype, np.float64)

    def preconditioned(u: NDArray[Any]) -> NDArray[Any]:
        if root is None:
            return u.reshape(op.dims)
        found = root(_batched_read(op, u.reshape(op.dims)))
        return _as_type(found, type_).reshape(op.dims)

    def forward(u: NDArray[Any]) -> NDArray[Any]:
        x = preconditioned(u)
        below = x if kind == "identity" else gradient(x)
        return np.concatenate([exact._matvec(x.reshape(-1)), weight * below.reshape(-1)])

    def back(v: NDArray[Any]) -> NDArray[Any]:
        below = v[count:]
        of_penalty = (
            below.reshape(op.dims)
            if kind == "identity"
            else gradient.adjoint(below.reshape(-1, *op.dims))
        )
        total = exact._rmatvec(v[:count]).reshape(op.dims) + weight * of_penalty
        return preconditioned(total).reshape(-1)

    rows = count + prod(op.dims) * (1 if kind == "identity" else len(_axes(op)))
    stacked = LinearOperator((rows, prod(op.dims)), forward, back, dtype=type_)
    right = np.zeros(rows, type_)
    right[:count] = data.reshape(-1)
    found, reason, taken, *_ = lsmr(
        stacked, right, atol=_TOLERANCE, btol=_TOLERANCE, conlim=0, maxiter=steps or _MOST
    )
    if reason == 7 and steps is None:
        warnings.warn(
            f"recover has not converged in {taken} steps of lsmr; pass steps= for more, or a "
            "larger strength.", RuntimeWarning, stacklevel=3,
        )  # fmt: skip
    return preconditioned(found)


def _by_admm(
    op: Operator, data: NDArray[Any], strength: float, by_fft: bool, steps: int
) -> NDArray[Any]:
    """Total variation: quadratic problems in turn with a shrinkage of gradients."""
    if by_fft:
        start = _by_frequencies(op, data, strength, "gradient")
    else:
        start = _by_lsmr(op, data, strength, "gradient", _INNER)
    gradient = _Gradient(op, op.padding_mode == "circular")
    x = start.reshape(op.dims).astype(np.result_type(start.dtype, np.float64))
    z = gradient(x)
    mean = float(_length(z).mean())
    if not mean:
        return x
    threshold = mean  # below it, gradients become 0
    rho = strength / (2 * threshold)
    u = np.zeros_like(z)
    exact = op.with_weight(op.weight.astype(np.result_type(op.dtype, np.float64)))
    right = exact._rmatvec(data.reshape(-1).astype(x.dtype)).reshape(op.dims)
    solve = _quadratic(exact, gradient, rho, by_fft)
    for _ in range(steps):
        before = x
        x = solve(right + rho * gradient.adjoint(z - u), x)
        of_x = gradient(x)
        z = of_x + u
        lengths = _length(z)
        z = z * (np.maximum(lengths - threshold, 0) / np.maximum(lengths, 1e-300))
        u += of_x - z
        moved = np.linalg.norm(x - before)
        apart = np.linalg.norm(of_x - z)
        if moved <= _STILL * np.linalg.norm(x) and apart <= _STILL * np.linalg.norm(of_x) * 10:
            break
    return x


def _length(z: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.sqrt((np.abs(z) ** 2).sum(0)))


def _quadratic(
    op: Operator, gradient: _Gradient, rho: float, by_fft: bool
) -> Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]:
    """Solve ``(A^H A + rho L^H L) x = right``, from a first x on where that helps."""
    frequencies = Frequencies(op) if fits(op) else None
    differences = frequencies.differences() if frequencies else np.empty(0)

    def circular(right: NDArray[Any]) -> NDArray[Any]:
        assert frequencies is not None
        letter, given = frequencies.letter, _batched_read(op, right)
        found = frequencies.solved(frequencies.transformed(letter, given), rho * differences)
        return _as_type(frequencies.back(letter, found), right.dtype).reshape(op.dims)

    if by_fft:
        return lambda right, first: circular(right)

    def normal(v: NDArray[Any]) -> NDArray[Any]:
        x = v.reshape(op.dims)
        below = rho * gradient.adjoint(gradient(x))
        return op._rmatvec(op._matvec(v)) + below.reshape(-1)

    def iterated(right: NDArray[Any], first: NDArray[Any]) -> NDArray[Any]:
        size, kind = (right.size, right.size), right.dtype
        near = None
        if frequencies is not None:
            near = LinearOperator(
                size, lambda v: circular(v.reshape(op.dims)).reshape(-1), dtype=kind
            )
        found, _ = cg(
            LinearOperator(size, normal, dtype=kind), right.reshape(-1), first.reshape(-1),
            rtol=1e-6, maxiter=_INNER, M=near,
        )  # fmt: skip
        return np.asarray(found).reshape(op.dims)

    return iterated


# ---- layouts -------------------------------------------------------------------------------------


def _batched(op: Operator, data: NDArray[Any]) -> NDArray[Any]:
    """What the operator returns, with its batch."""
    return data.reshape(op.geometry.shape_of(op.letter))


def _batched_read(op: Operator, x: NDArray[Any]) -> NDArray[Any]:
    """What the operator reads, with its batch."""
    return x.reshape(op.geometry.shape_of(OPERANDS[op.letter][0]))


def _as_given(op: Operator, data: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    return _as_type(x, np.result_type(op.dtype, data.dtype)).reshape(op.dims)


def _as_type(x: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Without the imaginary part, where weight and data have none."""
    return x if kind.kind == "c" else np.ascontiguousarray(x.real)
