"""Parser of a verb's words: what it cannot understand is an error in tconv's form."""

import re
from argparse import ArgumentParser
from difflib import get_close_matches
from typing import Any, NoReturn

__all__ = ["Parser", "UsageError", "closest"]


class UsageError(Exception):
    """Words that cannot be understood: what is wrong, where, and what to do."""

    def __init__(self, message: str, at: str, fix: str) -> None:
        super().__init__(message, at, fix)
        self.message, self.at, self.fix = message, at, fix


class Parser(ArgumentParser):
    """An argument parser with error messages in tconv's form, and help without colours."""

    example = ""
    color = False  # Python 3.14 colours help unless told not to, before --color is read

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.color = False

    def error(self, message: str) -> NoReturn:
        """Raise argparse's error as a UsageError."""
        more = f"{self.prog} --help lists the options"
        if named := re.fullmatch(r"argument ([^:]+): (.*)", message, re.DOTALL):
            option, what = named.groups()
            if what.startswith("expected"):
                example = f"{option.partition('/')[0]}=-1"
                what = f"needs a value; give it one, and if it begins with a minus as {example}"
            elif what.startswith("ignored explicit"):
                what = "takes no value; leave the value out"
            what, _, fix = what.partition("; ")
            raise UsageError(f"{option} {what}", f"option {option}", fix or more)
        if names := message.partition("arguments are required: ")[2]:
            are = "are" if ", " in names else "is"
            example = f"write it as in {self.example}; {more}"
            raise UsageError(f"{names} {are} missing", self.prog, example)
        if unknown := message.partition("unrecognized arguments: ")[2]:
            word = unknown.split()[0].partition("=")[0]
            if not word.startswith("-"):
                raise UsageError(f"{word!r} is one argument too many", self.prog, more)
            close = closest(word, list(self._option_string_actions))
            fix = f"did you mean {close}?" if close else more
            raise UsageError(f"there is no option {word}", self.prog, fix)
        raise UsageError(message, self.prog, more)


def closest(name: str, names: list[str], likeness: float = 0.6) -> str | None:
    """Return the one of `names` that `name` is probably a misspelling of, or None.

    >>> closest("--kernal", ["--kernel", "--stride"])
    '--kernel'
    """
    return next(iter(get_close_matches(name, names, 1, likeness)), None)
