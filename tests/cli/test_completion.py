"""Verb `completion`: what bash offers once the script is sourced; the options in that of zsh."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from tconv.cli import main
from tconv.cli.options import FILES, VERBS, parser_of

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")


@pytest.fixture
def script(tmp_path, capsys):
    """The path of the script for a shell."""

    def write(shell):
        assert main(["completion", shell]) == 0
        path = tmp_path / f"tconv.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return write


@pytest.fixture
def offered(script):
    """What bash offers after some words, the last of which is being typed."""
    path = script("bash")

    def complete(line):
        words = re.findall(r"=|[^ =]+", line) + ([""] if line.endswith(" ") else [])
        ask = (
            f"source {shlex.quote(str(path))}\n"
            f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}\n"
            "files=yes; compopt() { files=no; }\n"
            "_tconv; echo $files ${COMPREPLY[*]}"
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", ask], capture_output=True, text=True, check=True
        )
        files, *found = done.stdout.split()
        return found, files == "yes"

    return complete


def options_of(verb):
    names = {name for each in parser_of(verb)._actions for name in each.option_strings}
    return names - {"--mode", "--scale"} if verb == "run" else names - {"--mode"}


@bash
def test_bash_takes_the_script(script):
    assert subprocess.run(["bash", "-n", script("bash")], check=True)


@bash
def test_bash_offers_verbs(offered):
    found, files = offered("tconv ")
    assert {*VERBS, "help"} < set(found)
    assert not files
    assert offered("tconv s")[0] == ["shape", "see"]
    assert offered("tconv help ")[0] == [*VERBS]
    assert offered("tconv --v")[0] == ["--version"]
    assert offered("tconv nothing ") == ([], False)


@bash
@pytest.mark.parametrize("verb", VERBS)
def test_bash_offers_the_options_that_help_shows(offered, verb):
    assert set(offered(f"tconv {verb} -")[0]) == options_of(verb)
    assert offered(f"tconv {verb} --js")[0] == ["--json"]


@bash
@pytest.mark.parametrize("verb", VERBS)
def test_bash_offers_what_an_option_takes(offered, verb):
    actions = [each for each in parser_of(verb)._actions if each.help != "==SUPPRESS=="]
    for action in actions:
        words = list(getattr(action.type, "names", ()))
        for name in action.option_strings if action.nargs != 0 else ():
            assert offered(f"tconv {verb} {name} ") == (words, action.dest in FILES)
        for name in action.option_strings if action.nargs == 0 else ():
            assert offered(f"tconv {verb} {name} --js")[0] == ["--json"]
    assert offered("tconv see --rule gu")[0] == ["guided"]
    assert offered("tconv see --rule=gu")[0] == ["guided"]
    assert offered("tconv see --rule=")[0] == ["deconvnet", "gradient", "guided"]
    assert offered("tconv completion ")[0] == ["bash", "zsh"]


@bash
def test_bash_offers_files_where_they_are_taken(offered, script):
    for line in ("run ", "run m.onnx ", "run x=", "see m.onnx ", "explain ", "run --volume="):
        assert offered(f"tconv {line}") == ([], True)
    for line in ("shape ", "shape 64 -k ", "completion bash "):
        assert not offered(f"tconv {line}")[1]
    asked = f"source {shlex.quote(str(script('bash')))}; complete -p tconv"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "complete -o default -F _tconv tconv\n"


@bash
@pytest.mark.parametrize(
    ("typed", "seen"),
    [("tconv ru", "tconv run "), ("tconv run mod", "tconv run model.onnx "),
     ("tconv see --rule=gui", "tconv see --rule=guided ")],
)  # fmt: skip
def test_a_tab_completes_in_a_terminal(script, tmp_path, typed, seen):
    pty = pytest.importorskip("pty")
    (tmp_path / "model.onnx").write_text("")
    own, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "> ", "HOME": str(tmp_path)}
    process = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs,
        cwd=tmp_path, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(own, False)
    try:
        os.write(own, f"source {shlex.quote(str(script('bash')))}; echo rea''dy\n".encode())
        assert until(own, "ready\r\n")
        os.write(own, f"{typed}\t".encode())
        assert until(own, seen)
    finally:
        process.kill()
        process.wait()
        os.close(own)


def until(terminal, text, patience_s=30):
    """Read until a text is shown, which is returned; what else was shown fails."""
    shown, end = "", time.monotonic() + patience_s
    while text not in shown:
        assert time.monotonic() < end, shown
        try:
            shown += os.read(terminal, 4096).decode()
        except BlockingIOError:
            time.sleep(0.02)
    return shown


@zsh
def test_zsh_takes_the_script(script):
    assert subprocess.run(["zsh", "-n", script("zsh")], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_the_script_of_zsh_has_every_option_once(script, verb):
    text = script("zsh").read_text()
    assert text.startswith("#compdef tconv\n")
    case = text.partition(f"    ({verb})\n")[2].partition(";;")[0]
    lines = [shlex.split(line.strip(" \\"))[0] for line in case.splitlines() if "'" in line]
    names = [re.match(r"\(.*?\)(-[\w-]+)", line) for line in lines]
    found = [name.group(1) for name in names if name]
    assert len(found) == len(set(found))
    assert set(found) == options_of(verb)
    for line in lines:  # the parts of a specification: description, what it takes, how to find it
        parts = re.split(r"(?<!\\):", re.sub(r"^\(.*?\)-[\w-]+[=+]?\[.*(?<!\\)\]", "", line))
        assert parts == [""] or len(parts) == 3, line


def test_the_script_is_printed_without_other_libraries(command):
    code = (
        "import sys; before = set(sys.modules); from tconv.cli import main\n"
        "main(['completion', 'bash'])\n"
        "print('loaded', *{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = command(code=code).stdout.splitlines()[-1].split()[1:]
    assert set(loaded) - set(sys.stdlib_module_names) == {"tconv"}
