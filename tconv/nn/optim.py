"""Optimisers: stochastic gradient descent and Adam, by PyTorch's update rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Never

import numpy as np
from numpy.typing import NDArray

from tconv.errors import ParameterError
from tconv.geometry.arguments import as_flag, as_integer, as_mapping, as_number, entries_of
from tconv.messages import show
from tconv.nn.parameter import Parameter
from tconv.signatures import no_attribute, readable, unknown_keyword
from tconv.system.public_pickles import reduce_by_public_name

__all__ = ["SGD", "Adam", "Optimiser"]


class Optimiser:
    """Parameters, and the optimiser state of each.

    Every step changes every parameter, also one without a gradient: its gradient is 0, but momentum
    and weight decay still move it. (PyTorch skips parameters whose grad is None.)
    """

    _settings: ClassVar[tuple[str, ...]] = ()
    _memories: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float) -> None:
        try:
            given = iter(parameters)
        except TypeError:
            raise ParameterError(
                f"parameters={show(parameters)} must be several Parameter; pass layer.parameters()."
            ) from None
        self.parameters: list[Parameter] = []
        for n, parameter in enumerate(given):
            if not isinstance(parameter, Parameter):
                raise ParameterError(
                    f"parameters[{n}]={show(parameter)} must be a Parameter; pass "
                    "layer.parameters()."
                )
            self.parameters.append(parameter)
        if not self.parameters or len(set(map(id, self.parameters))) < len(self.parameters):
            raise ParameterError(
                "parameters must hold one Parameter or more, each of them once; pass "
                "layer.parameters()."
            )
        self.lr, self.weight_decay = lr, weight_decay
        self.steps = 0
        self._memory: list[dict[str, NDArray[Any]]] = [{} for _ in self.parameters]

    __reduce_ex__ = reduce_by_public_name

    if not TYPE_CHECKING:  # for type checkers a class has the attributes that it names

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Check an argument by its own rule."""
        super().__setattr__(name, _RULES[name](value) if name in _RULES else value)

    def step(self) -> None:
        """Update every value in place by its gradient."""
        self.steps += 1
        for parameter, memory in zip(self.parameters, self._memory, strict=True):
            gradient = parameter.gradient
            if self.weight_decay:
                gradient = gradient + _times(self.weight_decay, parameter.value)
            parameter.value -= self._change(gradient, memory)

    def zero_gradients(self) -> None:
        """Set all gradients to zero."""
        for parameter in self.parameters:
            parameter.zero_gradient()

    def state_dict(self) -> dict[str, Any]:
        """Copies of the state by name: "steps", the arguments, and the arrays of each parameter.

        ``"n.name"`` is an array of the n-th parameter.
        """
        state: dict[str, Any] = {"steps": self.steps}
        state |= {name: getattr(self, name) for name in self._settings}
        for n, memory in enumerate(self._memory):
            state |= {f"{n}.{name}": array.copy() for name, array in memory.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of an optimiser of this class, for parameters of these shapes.

        Raises
        ------
        ParameterError : names are missing or unexpected, or a value breaks its rule
        ShapeError, DTypeError : an array is not of the shape or type of its parameter
        """
        state = as_mapping(state, "state")
        needed = {"steps", *self._settings}
        for n in range(len(self.parameters)):
            own = {f"{n}.{name}" for name in self._memories}
            needed |= own if own & state.keys() else set()
        if needed != state.keys():
            problems = [
                f"{what}: {', '.join(sorted(names)[:5])}"
                for what, names in (
                    ("missing", needed - state.keys()),
                    ("unexpected", state.keys() - needed),
                )
                if names
            ]
            raise ParameterError(
                f"state must be that of {type(self).__name__} for {len(self.parameters)} "
                f"parameters, but has {'; '.join(problems)}; pass the state_dict of one."
            )
        steps = as_integer(state["steps"], "steps", 0)
        checked = type(self)(self.parameters, **{name: state[name] for name in self._settings})
        memory = [
            {
                name: parameter.converted(state[f"{n}.{name}"], f"{n}.{name}")
                for name in self._memories
                if f"{n}.{name}" in state
            }
            for n, parameter in enumerate(self.parameters)
        ]
        for name in self._settings:
            setattr(self, name, getattr(checked, name))
        self.steps, self._memory = steps, memory

    def _change(self, gradient: NDArray[Any], memory: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the update to subtract from a value; update its state."""
        raise NotImplementedError

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in self._settings)
        return f"{type(self).__name__}({len(self.parameters)} parameters, {settings})"


class SGD(Optimiser):
    """Stochastic gradient descent: ``value -= lr * velocity``.

    ``velocity = momentum*velocity + gradient`` (the first one is the gradient), where the gradient
    includes ``weight_decay*value``. With `nesterov` the value moves by ``gradient +
    momentum*velocity``.

    Parameters
    ----------
    parameters : Parameter objects, such as ``layer.parameters()``
    lr : float, the learning rate
    momentum, weight_decay : float
    nesterov : bool, needs momentum

    Attributes
    ----------
    lr : may be changed between steps, like the other arguments
    steps : int, number of steps so far

    References
    ----------
    Sutskever, Martens, Dahl & Hinton 2013, in the form of torch.optim.SGD.

    >>> weight = tconv.Parameter(np.array([1.0]), "weight")
    >>> optimiser = SGD([weight], lr=0.5)
    >>> for _ in range(3):
    ...     weight.gradient = 2 * weight.value - 6  # of (value - 3)**2
    ...     optimiser.step()
    >>> weight.value
    array([3.])
    """

    _settings = ("lr", "momentum", "weight_decay", "nesterov")
    _memories = ("velocity",)

    @readable
    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_keyword(SGD.__init__, unknown)
        super().__init__(parameters, lr, weight_decay)
        self.momentum, self.nesterov = momentum, nesterov
        if self.nesterov and not self.momentum:
            raise ParameterError(
                "nesterov=True must come with a momentum above 0; pass momentum=0.9 for example."
            )

    def _change(self, gradient: NDArray[Any], memory: dict[str, NDArray[Any]]) -> NDArray[Any]:
        if not self.momentum:
            return _times(self.lr, gradient)
        if "velocity" in memory:
            memory["velocity"] = _times(self.momentum, memory["velocity"]) + gradient
        else:
            memory["velocity"] = gradient.copy()
        if self.nesterov:
            return _times(self.lr, gradient + _times(self.momentum, memory["velocity"]))
        return _times(self.lr, memory["velocity"])


class Adam(Optimiser):
    """Adam: steps of about `lr` along the mean gradient over its root mean square.

    ``value -= lr * mean/(1 - b1**t) / (sqrt(square/(1 - b2**t)) + eps)`` with the running means
    ``mean`` of the gradient and ``square`` of its square, t counting steps. The gradient includes
    ``weight_decay*value``.

    Parameters
    ----------
    parameters : Parameter objects, such as ``layer.parameters()``
    lr : float, the learning rate
    betas : (b1, b2), decay rates of the running means
    eps, weight_decay : float

    References
    ----------
    Kingma & Ba 2015, arXiv:1412.6980, in the form of torch.optim.Adam.

    >>> weight = tconv.Parameter(np.array([1.0, 1.0]), "weight")
    >>> optimiser = Adam([weight], lr=0.25)
    >>> weight.gradient = np.array([100.0, -0.01])
    >>> optimiser.step()
    >>> weight.value.round(4)
    array([0.75, 1.25])
    """

    _settings = ("lr", "betas", "eps", "weight_decay")
    _memories = ("mean", "square")

    @readable
    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_keyword(Adam.__init__, unknown)
        super().__init__(parameters, lr, weight_decay)
        self.betas, self.eps = betas, eps

    def _change(self, gradient: NDArray[Any], memory: dict[str, NDArray[Any]]) -> NDArray[Any]:
        b1, b2 = self.betas
        if not memory:
            memory |= {name: np.zeros_like(gradient) for name in self._memories}
        mean, square = memory["mean"], memory["square"]
        mean += _scaled(np.asarray(gradient - mean), 1 - b1)
        found = _scaled(np.asarray(gradient * gradient), 1 - b2)
        square = np.add(_scaled(square, b2), found, out=square)
        size = _scaled(np.sqrt(square, out=found), 1 / sqrt(1 - b2**self.steps)) + self.eps
        return _scaled(np.asarray(mean / size), self.lr / (1 - b1**self.steps))


def _as_betas(value: Any) -> tuple[float, ...]:
    entries = entries_of(value)
    if entries is None or len(entries) != 2:
        raise ParameterError(f"betas={show(value)} must be a pair; pass (0.9, 0.999).")
    return tuple(as_number(b, f"betas[{n}]", 0, 1) for n, b in enumerate(entries))


_RULES: dict[str, Callable[[Any], Any]] = {
    "lr": lambda value: as_number(value, "lr", 0),
    "momentum": lambda value: as_number(value, "momentum", 0),
    "weight_decay": lambda value: as_number(value, "weight_decay", 0),
    "nesterov": lambda value: as_flag(value, "nesterov"),
    "betas": _as_betas,
    "eps": lambda value: as_number(value, "eps", 0),
}


def _times(factor: float, array: NDArray[Any]) -> NDArray[Any]:
    """Multiply without changing the type: bfloat16 times a Python float would be float32."""
    return np.asarray(array * factor).astype(array.dtype, copy=False)


def _scaled(array: NDArray[Any], factor: float) -> NDArray[Any]:
    """Multiply in place without changing the type."""
    np.multiply(array, factor, out=array, casting="unsafe")
    return array
