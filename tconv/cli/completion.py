"""Verb `completion`: scripts of bash and zsh, made from the options of all verbs."""

from argparse import SUPPRESS, Action, Namespace
from collections.abc import Iterator, Sequence
from textwrap import indent

from tconv.cli.console import Answer
from tconv.cli.options import FILES, VERBS, Choice, parser_of

__all__ = ["answer"]

_GENERAL = ("-h", "--help", "-V", "--version")


def answer(options: Namespace) -> Answer:
    """Print the script of a shell.

    >>> answer(Namespace(shell="bash")).parts[0].splitlines()[-1]
    'complete -o default -F _tconv tconv'
    """
    script = _bash() if options.shell == "bash" else _zsh()
    return Answer((script,), {"shell": options.shell, "script": script})


def _actions(verb: str) -> Iterator[Action]:
    """Options and arguments of a verb that its help shows."""
    return (each for each in parser_of(verb)._actions if each.help != SUPPRESS)


def _words(action: Action) -> tuple[str, ...]:
    """Words that an option or argument takes, () if it takes anything else."""
    return action.type.names if isinstance(action.type, Choice) else ()


# ---- bash ----------------------------------------------------------------------------------------

_BASH = """\
# Completion of tconv for bash. For this shell: source <(tconv completion bash)
# For all shells: tconv completion bash > ~/.local/share/bash-completion/completions/tconv
_tconv() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local verb=${COMP_WORDS[1]} options="" words="" file="" value=""
    if [[ $word == "=" ]]; then  # bash takes --option=value for three words
        word=""
    elif [[ $before == "=" ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        compopt +o default 2>/dev/null
        COMPREPLY=($(compgen -W "@VERBS@ help @GENERAL@" -- "$word"))
        return
    fi
    case $verb in
@CASES@
    help)
        words="@VERBS@" ;;
    esac
    if [[ -z $value && $word == -* ]]; then
        words=$options
    fi
    if [[ -n $words ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    fi
    # Where a file is taken, bash completes its name.
    [[ -n $file ]] || compopt +o default 2>/dev/null
}
complete -o default -F _tconv tconv"""


def _bash() -> str:
    cases = indent("\n".join(map(_bash_case, VERBS)), " " * 4)
    script = _BASH.replace("@CASES@", cases)
    return script.replace("@VERBS@", " ".join(VERBS)).replace("@GENERAL@", " ".join(_GENERAL))


def _bash_case(verb: str) -> str:
    """Lines that set what a verb takes: its options, and the words or files that come next."""
    options, argument, values = list[str](), "", dict[str, list[str]]()
    for action in _actions(verb):
        names = action.option_strings
        options += names
        takes = "file=1" if action.dest in FILES else f'words="{" ".join(_words(action))}"'
        if not names:
            argument = takes
        elif action.nargs != 0:
            values.setdefault(takes, []).extend(names)
    lines = [f"{verb})", f'    options="{" ".join(options)}"', "    case $before in"]
    lines += [f"    {'|'.join(names)}) value=1 {takes} ;;" for takes, names in values.items()]
    lines += [f"    *) {argument} ;;"] if argument else []
    return "\n".join([*lines, "    esac ;;"])


# ---- zsh -----------------------------------------------------------------------------------------

_ZSH = """\
#compdef tconv
# Completion of tconv for zsh. For this shell: source <(tconv completion zsh)
# For all shells: tconv completion zsh > a file _tconv in a folder of $fpath
_tconv() {
    local -a verbs
    verbs=(
@VERBS@
    )
    if (( CURRENT == 2 )); then
        _describe -t verbs verb verbs
        [[ $PREFIX == -* ]] && compadd -- @GENERAL@
        return
    fi
    local verb=$words[2]
    shift words
    (( CURRENT-- ))
    case $verb in
@CASES@
    (help)
        _describe -t verbs verb verbs
        ;;
    esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _tconv "$@"
else
    compdef _tconv tconv
fi"""


def _zsh() -> str:
    summaries = {name: verb.summary for name, verb in VERBS.items()}
    summaries["help"] = "the options of a verb"
    verbs = "\n".join(f"{_quoted(f'{name}:{text}')}" for name, text in summaries.items())
    cases = "\n".join(map(_zsh_case, VERBS))
    script = _ZSH.replace("@CASES@", indent(cases, " " * 4))
    return script.replace("@VERBS@", indent(verbs, " " * 8)).replace(
        "@GENERAL@", " ".join(_GENERAL)
    )


def _zsh_case(verb: str) -> str:
    """Lines that complete what follows a verb."""
    lines = []
    for action in _actions(verb):
        names, text = action.option_strings, _escaped(" ".join((action.help or "").split()))
        words = " ".join(_words(action))
        action_text = "_files" if action.dest in FILES else f"({words})" if words else " "
        takes = f":{_escaped(str(action.metavar or action.dest))}:{action_text}"
        if not names:
            lines.append(_quoted(f"{'*' if action.nargs == '*' else ''}{takes}"))
        elif action.nargs == 0:
            lines += [_quoted(f"{_excluded(names)}{name}[{text}]") for name in names]
        else:
            marks = ["=" if name.startswith("--") else "+" for name in names]
            lines += [
                _quoted(f"{_excluded(names)}{name}{mark}[{text}]{takes}")
                for name, mark in zip(names, marks, strict=True)
            ]
    shown = " \\\n".join(f"        {line}" for line in lines)
    return f"({verb})\n    _arguments \\\n{shown}\n    ;;"


def _excluded(names: Sequence[str]) -> str:
    """Options that are no longer offered once one of them was typed."""
    return f"({' '.join(names)})"


def _escaped(text: str) -> str:
    """Escape what separates the parts of a specification."""
    return "".join(f"\\{sign}" if sign in "[]:\\" else sign for sign in text)


def _quoted(text: str) -> str:
    """Quote for the shell: a single quote ends the quotation, stands escaped, and begins anew.

    >>> _quoted("an ONNX file")
    "'an ONNX file'"
    """
    return "'" + text.replace("'", "'\\''") + "'"
