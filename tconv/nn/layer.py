"""Layers: functions of x and of parameters, with their transposes; sequences and residual blocks.

``forward(x)`` keeps the residuals that ``backward(dy)`` needs, ``predict(x)`` keeps nothing: the
first is for training, the second for inference at any size and from any number of threads. There is
no training mode to switch. Residuals refer to x and y without a copy: change neither before
`backward`.
"""

import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.checks import as_gradient, as_real
from tconv.arrays.dtypes import FLOATING_TYPES, as_dtype, as_type_name
from tconv.errors import ParameterError, ShapeError, TConvError, UnsupportedError
from tconv.geometry.arguments import as_array, as_integer, as_mapping, as_threads
from tconv.messages import show
from tconv.nn.parameter import Parameter
from tconv.nn.state_files import read_state, write_state
from tconv.signatures import no_attribute
from tconv.streams.layer_runner import LayerRunner, Trace
from tconv.streams.stream import Stream
from tconv.system.allocator import Arena, lent
from tconv.system.public_pickles import reduce_by_public_name

__all__ = ["Layer", "Residual", "Sequential"]

# Smallest array that comes from the arena of a sequence. glibc keeps smaller freed blocks in any
# case, and a lease costs 3 us.
_LEAST_BYTES = 2**17
_MOST_IDLE_BYTES = 2**30  # or an eighth of the memory that is available at the start


class Layer:
    """A function of x and of its parameters, with the transpose of its derivative.

    A layer of your own implements two methods and stores `Parameter` and `Layer` objects as
    attributes; their names become the names in `state_dict`:

    - ``compute(x) -> (y, kept)``: the function, and the residuals that `pull_back` needs
    - ``pull_back(kept, dy) -> dx``: the gradient with respect to x; it adds those with respect to
      the parameters to their `Parameter.gradient`

    >>> class Scale(tconv.Layer):
    ...     def __init__(self):
    ...         self.factor = tconv.Parameter(np.array([2.0]), "factor")
    ...     def compute(self, x):
    ...         return x * self.factor.value, x
    ...     def pull_back(self, x, dy):
    ...         self.factor.gradient += np.sum(x * dy)
    ...         return dy * self.factor.value
    >>> scale = Scale()
    >>> scale(np.array([1.0, 3.0]))
    array([2., 6.])
    >>> scale.backward(np.array([1.0, 1.0]))
    array([2., 2.])
    >>> scale.factor.gradient
    array([4.])
    """

    is_pointwise: ClassVar[bool] = False
    """Whether y at each cell follows from x at that cell alone: such layers have streams."""

    _kept: tuple[Any] | None = None

    def compute(self, x: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Return y and the residuals for `pull_back`; the layer itself does not change."""
        raise UnsupportedError(f"{type(self).__name__} must implement compute.")

    def pull_back(self, kept: Any, dy: Any) -> Any:
        """Return dx, and add to the gradients of the parameters."""
        raise UnsupportedError(f"{type(self).__name__} must implement pull_back.")

    def forward(self, x: Any, *args: Any, **options: Any) -> Any:
        """Return y, and keep the residuals for `backward` until the next forward."""
        self._kept = None  # freed before new ones are made
        y, kept = self.compute(x, *args, **options)
        self._kept = (kept,)
        return y

    def __call__(self, x: Any, *args: Any, **options: Any) -> Any:
        """Return ``forward(x)``."""
        return self.forward(x, *args, **options)

    def predict(self, x: Any, *args: Any, **options: Any) -> Any:
        """Return y and keep nothing; the residuals of an earlier `forward` stay."""
        return self.compute(x, *args, **options)[0]

    def backward(self, dy: Any) -> Any:
        """Return the gradient with respect to the x of the last `forward`, from that of its y.

        Gradients with respect to the parameters are added to `Parameter.gradient`. Several calls
        after one forward are allowed, one for each gradient dy.
        """
        if self._kept is None:
            raise TConvError(
                f"{type(self).__name__}.backward needs what forward keeps; call forward(x) first "
                "(predict(x) keeps nothing)."
            )
        return self.pull_back(self._kept[0], dy)

    def stream(
        self,
        batch: int = 1,
        *,
        frames: int | None = None,
        channels: int | None = None,
        dtype: Any = None,
        threads: int | None = None,
    ) -> Stream:
        """Return a stream of the layer along time, which computes as x arrives.

        For ConvTranspose1d and Conv1d, layers that work cell by cell, and `Sequential` and
        `Residual` of these. It has the weights' values of now.

        Parameters
        ----------
        batch : int, streams that are computed together
        frames : int or None; with it all pushes are of that length and return as many results each
            time, the first ``latency`` of which are zeros
        channels, dtype : of x, where no convolution among the layers says them
        threads : int; None for all cores

        Raises
        ------
        UnsupportedError : a layer needs more of time than its neighbourhood; its name, and why
        ShapeError, DTypeError : layers do not fit each other

        >>> stream = tconv.ConvTranspose1d(2, 1, 4, stride=2, rng=0).stream()
        >>> stream.push(np.ones((1, 2, 3), np.float32)).shape, stream.flush().shape
        ((1, 1, 6), (1, 1, 2))
        """
        trace = Trace()
        result = self.trace(trace, "x")
        kind = None if dtype is None else as_dtype(np, as_type_name(dtype, FLOATING_TYPES))
        runner = LayerRunner(
            trace,
            result,
            as_integer(batch, "batch", 1),
            None if channels is None else as_integer(channels, "channels", 1),
            kind,
            as_threads(threads),
        )
        return Stream(runner, frames)

    def trace(self, trace: Trace, x: str) -> str:
        """Add the layer to the nodes of a stream; return the name of its result."""
        if self.is_pointwise:
            return trace.pointwise(deepcopy(self).predict, x)
        title = ".".join([*trace.titles, type(self).__name__])
        raise UnsupportedError(
            f"layer {title} has no stream, as it may need all of time; leave it out, or set "
            "is_pointwise = True on its class if y at each cell follows from x at that cell alone."
        )

    def members(self) -> Iterator[tuple[str, "Parameter | Layer"]]:
        """Parameters and layers that are attributes of this one, by name."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter | Layer):
                yield name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter of this layer and of the layers within, by its name in `state_dict`."""
        for name, member in self.members():
            if isinstance(member, Parameter):
                yield name, member
            else:
                for inner, parameter in member.named_parameters():
                    yield f"{name}.{inner}", parameter

    def parameters(self) -> list[Parameter]:
        """Every parameter once, however many layers share it."""
        return list({id(each): each for _, each in self.named_parameters()}.values())

    def zero_gradients(self) -> None:
        """Set the gradients of all parameters to zero."""
        for parameter in self.parameters():
            parameter.zero_gradient()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all values by name, with PyTorch's names."""
        return {name: parameter.value.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all values, converted to the types of the parameters, or none of them.

        Raises
        ------
        ParameterError : names are missing or unexpected, or shapes differ; all are listed
        DTypeError : a value is not of real numbers
        """
        own = dict(self.named_parameters())
        given = as_mapping(state, "state")
        found = {name: as_array(value, name) for name, value in given.items()}
        problems = [
            f"{what} {'is' if len(names) == 1 else 'are'} {_listed(names)}"
            for what, names in (
                ("missing", [name for name in own if name not in found]),
                ("unexpected", [name for name in found if name not in own]),
            )
            if names
        ]
        problems += [
            f"{name} has shape {found[name].shape}, must be {parameter.shape}"
            for name, parameter in own.items()
            if name in found and not parameter.fits(found[name].shape)
        ]
        if problems:
            raise ParameterError(
                f"state must hold exactly the parameters of {type(self).__name__}, but "
                f"{'; '.join(problems)}; pass the state of a layer made with the same arguments."
            )
        values = [each.converted(found[name], name) for name, each in own.items()]
        for parameter, value in zip(own.values(), values, strict=True):
            parameter.value = value

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all values to a file, .npz or .safetensors by suffix, complete or not at all."""
        write_state(path, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Set all values from a file that `save` or another program wrote.

        Raises
        ------
        ParameterError : the file is damaged or of another format, or as `load_state_dict`
        OSError : the file cannot be read
        ImportError : .safetensors without the package safetensors
        """
        self.load_state_dict(read_state(path))

    __reduce_ex__ = reduce_by_public_name

    if not TYPE_CHECKING:  # for type checkers a class has the attributes that it names

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __getstate__(self) -> dict[str, Any]:
        # Everything but the residuals: copies and pickles start without any.
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def describe(self) -> str:
        """The arguments, as `repr` shows them."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"


class LayerIndexError(ParameterError, IndexError):
    """A sequence has no layer at an index; this error ends Python's loops by index."""


class Sequential(Layer):
    """Layers one after the other.

    Parameters
    ----------
    layers : Layer, any number; or one dict of names and layers, in place of the names "0", "1", …

    A layer may occur twice: it shares its parameters, and its gradients are summed. After
    ``net.forward(x)`` call ``backward`` of the sequence, not of single layers.

    The sequence keeps the memory of its results and reuses a block in later steps when no array
    refers to it any more. An array that you hold is never overwritten.

    >>> net = Sequential(tconv.ReLU(), tconv.LeakyReLU(0.5))
    >>> net
    Sequential(
      (0): ReLU()
      (1): LeakyReLU(negative_slope=0.5)
    )
    >>> net[0], len(net), len(net[1:])
    (ReLU(), 2, 1)
    """

    def __init__(self, *layers: "Layer | Mapping[str, Layer]") -> None:
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = dict(layers[0])
        else:
            named = {str(n): layer for n, layer in enumerate(layers)}  # type: ignore[misc]
        for name, layer in named.items():
            if not isinstance(layer, Layer):
                which = name if isinstance(name, str) else show(name)
                raise ParameterError(
                    f"layers[{which}]={show(layer)} must be a Layer; pass layers only."
                )
            if not isinstance(name, str) or not name or "." in name:
                raise ParameterError(
                    f"layers[{show(name)}] must be named by a string without dots; rename it."
                )
        self._layers: dict[str, Layer] = named
        self._arena = _arena()

    def compute(self, x: Any) -> tuple[Any, list[Any]]:
        """Return y and the residuals of each layer."""
        kept = []
        with lent(self._arena):
            for layer in self:
                x, each = layer.compute(x)
                kept.append(each)
        return x, kept

    def pull_back(self, kept: list[Any], dy: Any) -> Any:
        """Return dx, from the last layer to the first."""
        with lent(self._arena):
            for layer, each in zip(reversed(list(self)), reversed(kept), strict=True):
                dy = layer.pull_back(each, dy)
        return dy

    def predict(self, x: Any) -> Any:
        """Return y; only x and y of one layer exist at a time."""
        with lent(self._arena):
            for layer in self:
                x = layer.predict(x)
        return x

    def __getstate__(self) -> dict[str, Any]:
        # Everything but the arena, which is never shared.
        return {**super().__getstate__(), "_arena": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Set the state, with an arena of its own.
        vars(self).update(state, _arena=_arena())

    def trace(self, trace: Trace, x: str) -> str:
        """Add the layers one after the other."""
        for name, layer in self._layers.items():
            trace.titles.append(name)
            x = layer.trace(trace, x)
            trace.titles.pop()
        return x

    def members(self) -> Iterator[tuple[str, "Parameter | Layer"]]:
        """The layers by name."""
        yield from self._layers.items()

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers.values())

    def __getitem__(self, index: int | slice) -> Any:
        """The layer at an index; or, for a slice, a Sequential that shares the layers and names."""
        if isinstance(index, slice):
            try:
                return Sequential(dict(list(self._layers.items())[index]))
            except TypeError:
                raise ParameterError(
                    f"index={show(index)} must be made of integers; pass [1:3] for example."
                ) from None
        number, count = as_integer(index, "index"), len(self)
        if not -count <= number < count:  # an IndexError ends a loop by index
            raise LayerIndexError(
                f"index={number} must be from {-count} to {count - 1}; pass one of these."
            )
        return list(self)[number]

    def __repr__(self) -> str:
        lines = [f"  ({name}): {layer!r}".replace("\n", "\n  ") for name, layer in self.members()]
        return "\n".join(["Sequential(", *lines, ")"]) if lines else "Sequential()"


class Residual(Layer):
    """``y = x + branch(x)``: a branch and a sum.

    Parameters
    ----------
    layers : Layer, one or several, the branch; as for `Sequential`

    Raises
    ------
    ShapeError : the branch's result has another shape than x

    >>> block = Residual(tconv.ReLU())
    >>> block(np.array([-1.0, 2.0]))
    array([-1.,  4.])
    >>> block.backward(np.array([1.0, 1.0]))
    array([1., 2.])
    """

    def __init__(self, *layers: "Layer | Mapping[str, Layer]") -> None:
        self.branch = Sequential(*layers)

    def compute(self, x: Any) -> tuple[NDArray[Any], tuple[NDArray[Any], Any]]:
        """Return y, and the residuals of the branch."""
        x = as_real(x, "x", floating=False)
        z, kept = self.branch.compute(x)
        return self._sum(x, z), (x, kept)

    def pull_back(self, kept: tuple[NDArray[Any], Any], dy: Any) -> NDArray[Any]:
        """Return dy, and what comes back through the branch."""
        x, of_branch = kept
        dy = as_gradient(dy, x.shape, x.dtype)
        return np.asarray(dy + self.branch.pull_back(of_branch, dy))

    def predict(self, x: Any) -> NDArray[Any]:
        """Return y and keep nothing."""
        x = as_real(x, "x", floating=False)
        return self._sum(x, self.branch.predict(x))

    @staticmethod
    def _sum(x: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
        if z.shape != x.shape:
            raise ShapeError(
                f"the branch makes shape {z.shape} of x of shape {x.shape}, which must be alike; "
                'pad its layers, with padding="same" for example.'
            )
        return np.asarray(x + z)

    def trace(self, trace: Trace, x: str) -> str:
        """Add the branch, and the sum."""
        return trace.pointwise(_add, x, self.branch.trace(trace, x))

    def __repr__(self) -> str:
        return repr(self.branch).replace("Sequential", "Residual", 1)


def _add(x: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x + z)


def _arena() -> Arena:
    """A new arena for a sequence."""
    return Arena(_LEAST_BYTES, cap_bytes=_MOST_IDLE_BYTES)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
