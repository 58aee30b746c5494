"""Pickles that name a class by its public name, `tconv.<Name>`, not by the file it stands in.

They stay readable when a file moves. The state of such an object holds values of Python and NumPy
and objects of public classes only.
"""

import copyreg
import sys
from typing import Any

__all__ = ["reduce_by_public_name"]


def reduce_by_public_name(self: Any, protocol: Any) -> tuple[Any, ...]:
    """Do what ``object.__reduce_ex__`` does, but name a public class by its public name.

    A class of its own takes it as `__reduce_ex__`. A user's subclass is pickled by the user's name.

    >>> tconv.ReLU().__reduce_ex__(4)[1]
    ('ReLU',)
    """
    found: Any = object.__reduce_ex__(self, max(protocol, 2))
    make, arguments, *state = found
    tconv: Any = sys.modules["tconv"]  # which imports this file, so it is not imported here
    if make is copyreg.__newobj__ and tconv._is_public(arguments[0]):  # type: ignore[attr-defined]
        return tconv._unpickled, (arguments[0].__name__, *arguments[1:]), *state
    return make, arguments, *state
