"""Signatures as `help` shows them, and errors about names that they do not have."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ForwardRef, TypeVar, get_args

from tconv.system.fork_lock import importing

__all__ = ["defaults_of", "hint", "no_attribute", "readable", "unknown_keyword"]

F = TypeVar("F", bound=Callable[..., Any])
_UNKNOWN = "unknown"  # the parameter that takes keywords which do not exist


class _Annotation(str):
    """An annotation as its source has it, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def readable(function: F) -> F:
    """Let `help` show annotations as the source has them, each keyword, and no ``**unknown``.

    The function itself does not change. Its file postpones annotations (PEP 563): evaluated, an
    alias such as ArrayLike fills ten lines. In place of ``**keywords: Unpack[SizeKeywords]`` stand
    the keywords of that TypedDict.

    >>> inspect.signature(tconv.conv_transpose1d)
    <Signature (input: ArrayT, weight: ArrayT, bias: ArrayT | None = None, stride: PerAxis = 1, \
padding: Padding = 0, output_padding: PerAxis = 0, groups: int = 1, dilation: PerAxis = 1) \
-> ArrayT>
    """
    found = inspect.signature(function)
    shown = [
        one.replace(annotation=_as_text(one.annotation))
        for each in found.parameters.values()
        if each.name != _UNKNOWN
        for one in _spelled_out(each, function.__globals__)
    ]
    signature = found.replace(parameters=shown, return_annotation=_as_text(found.return_annotation))
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def defaults_of(keywords: type) -> dict[str, Any]:
    """The defaults of a TypedDict whose entries are ``Annotated[type, default]``.

    >>> from tconv.geometry.keywords import SizeKeywords
    >>> defaults_of(SizeKeywords)["stride"]
    1
    """
    return {name: get_args(each)[1] for name, each in keywords.__annotations__.items()}


def _spelled_out(
    parameter: inspect.Parameter, names: Mapping[str, Any]
) -> Iterator[inspect.Parameter]:
    """The parameter, or one for each keyword of ``**keywords: Unpack[Name]``."""
    text = str(parameter.annotation)
    if not text.startswith("Unpack["):
        yield parameter
        return
    keywords = names[text.removeprefix("Unpack[").removesuffix("]")]
    for keyword, each in keywords.__annotations__.items():
        annotation, default = get_args(each)
        yield inspect.Parameter(
            keyword, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )


def _as_text(annotation: Any) -> Any:
    if isinstance(annotation, ForwardRef):  # an alias in quotes
        annotation = annotation.__forward_arg__
    return _Annotation(annotation) if isinstance(annotation, str) else annotation


def unknown_keyword(function: Callable[..., Any], unknown: Collection[str]) -> TypeError:
    """The error for keywords that a function does not have, with the one that is likely meant.

    >>> unknown_keyword(tconv.output_shape, ["strides"])
    TypeError("output_shape() got an unexpected keyword argument 'strides'; did you mean 'stride'?")
    """
    name = next(iter(unknown))
    known = [each for each in inspect.signature(function).parameters if each != "self"]
    return TypeError(
        f"{function.__qualname__}() got an unexpected keyword argument {name!r}{hint(name, known)}"
    )


def no_attribute(value: Any, name: str) -> AttributeError:
    """The error for an attribute that a value does not have, with the one that is likely meant.

    >>> no_attribute(tconv.ReLU(), "zero_grad")
    AttributeError("'ReLU' object has no attribute 'zero_grad'; did you mean 'zero_gradients'?")
    """
    if hasattr(type(value), name):  # a property, whose getter raised an error of its own
        object.__getattribute__(value, name)
    text = f"{type(value).__name__!r} object has no attribute {name!r}"
    if not name.startswith("_"):
        text += hint(name, [each for each in dir(value) if not each.startswith("_")])
    return AttributeError(text, name=name, obj=None)  # with obj Python adds a hint of its own


def hint(name: str, known: Collection[str]) -> str:
    """What `hint_for` adds to a message; its tables are loaded when a name is first unknown."""
    with importing:
        from tconv.foreign_names import hint_for

    return hint_for(name, known)
