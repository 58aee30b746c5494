"""Fingerprint: every source counts, wherever it lies, and nothing that is computed does without."""

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from zipfile import ZipFile

import pytest

import tconv
from tconv.engine.compile import jit
from tconv.engine.compile.fingerprint import (
    FILES,
    FOLDERS,
    fingerprint,
    of_archive,
    of_code,
    of_folder,
)
from tconv.engine.target.target import read_target

PACKAGE = Path(tconv.__file__).parent
FINGERPRINT = import_module("tconv.engine.compile.fingerprint")
# What a process runs that has no more of the package than the engine needs.
UNNEEDED = ("cli", "deconvnet", "explainer", "nn", "onnx", "torch")
CPU = read_target({})


def sources(package):
    """The files that are covered, told by their folders alone."""
    below = [path for name in FOLDERS for path in (package / name).rglob("*.py")]
    return sorted([*below, *(package / f"{name}.py" for name in FILES)])


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package without what the engine does not need."""
    folder = tmp_path_factory.mktemp("copy") / "tconv"
    ignored = shutil.ignore_patterns("__pycache__", *UNNEEDED)
    shutil.copytree(PACKAGE, folder, ignore=ignored)
    return folder


# ---- what counts ---------------------------------------------------------------------------------


def imported(path):
    """Names of modules, or of what is in one, that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def test_all_that_the_engine_and_the_geometry_import_is_covered():
    covered = set(sources(PACKAGE))
    waiting = [path for name in ("engine", "geometry") for path in (PACKAGE / name).rglob("*.py")]
    assert len(waiting) > 60
    seen = set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            assert path in covered, path
            for name in imported(path):
                if name.startswith("tconv."):
                    module = PACKAGE.parent / name.replace(".", "/")
                    found = (module.with_suffix(".py"), module / "__init__.py")
                    waiting += [each for each in found if each.exists()]


def test_every_file_that_is_covered_counts(copy):
    before = of_folder(str(copy))
    assert before == of_folder(str(PACKAGE))
    seen = {before}
    for path in sources(copy):
        data = path.read_bytes()
        path.write_bytes(data + b"#")
        seen.add(of_folder(str(copy)))
        path.write_bytes(data)
    assert len(seen) == 1 + len(sources(copy))
    assert of_folder(str(copy)) == before


def test_names_count_and_where_a_file_ends(copy):
    one, other = (copy / "engine" / f"{name}.py" for name in ("one", "other"))
    seen = {of_folder(str(copy))}
    for texts in (("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")):
        one.write_text(texts[0])
        other.write_text(texts[1])
        seen.add(of_folder(str(copy)))
    one.rename(copy / "engine" / "third.py")
    seen.add(of_folder(str(copy)))
    other.unlink()
    (copy / "engine" / "third.py").unlink()
    assert len(seen) == 6


def test_long_files_count_to_their_end(copy):
    path, seen = copy / "engine" / "long.py", set()
    for size in (2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16):
        for last in "ab":
            path.write_text("x" * size + last)
            seen.add(of_folder(str(copy)))
    path.unlink()
    assert len(seen) == 8


@pytest.mark.parametrize("name", ["_HALF_WIDE", "CPUS", "OPTIMISED", "INSTRUCTION_SETS"])
def test_constants_that_kernels_follow_from_count(copy, name):
    found = [path for path in sources(copy) if re.search(rf"(?m)^{name}\b", path.read_text())]
    assert found
    for path in found:
        text, before = path.read_text(), of_folder(str(copy))
        path.write_text(re.sub(rf"(?m)^({name}\b.*=)", r"\1 1 and ", text, count=1))
        assert path.read_text() != text
        assert of_folder(str(copy)) != before
        path.write_text(text)


def key_of(monkeypatch, target=CPU, **options):
    """The key of a kernel on disk under other options of LLVM."""
    jit._facts.cache_clear()
    with monkeypatch.context() as changed:
        changed.setattr(jit, "OPTIONS", jit.OPTIONS | options)
        key = jit._entry_of("kernel", target)
    jit._facts.cache_clear()
    return key


def test_every_option_of_llvm_counts(monkeypatch):
    keys = [key_of(monkeypatch)]
    keys += [key_of(monkeypatch, **{name: "other"}) for name in jit.OPTIONS]
    keys.append(key_of(monkeypatch, more="other"))
    for name in ("OPTIMISED", "BASELINE"):
        with monkeypatch.context() as changed:
            changed.setattr(jit, name, 3)
            keys.append(key_of(monkeypatch))
    with monkeypatch.context() as changed:
        changed.setattr("llvmlite.__version__", "other")
        keys.append(key_of(monkeypatch))
    with monkeypatch.context() as changed:
        changed.setattr("llvmlite.binding.llvm_version_info", (0, 0, 0))
        keys.append(key_of(monkeypatch))
    assert len(set(keys)) == len(keys)
    assert key_of(monkeypatch) == keys[0]


def test_all_of_a_processor_counts_that_emitters_read(monkeypatch):
    # Sizes of caches and numbers of cores decide on plans, and plans name their kernels.
    unread = {"l1_bytes", "l2_bytes", "l3_bytes", "cores", "threads", "runs_here", "uses_engine"}
    before = key_of(monkeypatch)
    others = {"isa": CPU.isa._replace(registers=CPU.isa.registers + 1)}
    for field in fields(CPU):
        value = getattr(CPU, field.name)
        other = others.get(field.name) or (f"{value}?" if isinstance(value, str) else value + 1)
        other = replace(CPU, **{field.name: other})
        assert (key_of(monkeypatch, other) != before) == (field.name not in unread), field.name


def test_another_fingerprint_is_another_key(monkeypatch):
    before = key_of(monkeypatch)
    monkeypatch.setattr(jit, "fingerprint", lambda: "other")
    assert key_of(monkeypatch) != before


# ---- packages without source files ---------------------------------------------------------------


def compiled_only(copy, folder):
    """A copy that has `.pyc` in place of every `.py`."""
    shutil.copytree(copy, folder / "tconv")
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "-b", str(folder / "tconv")], check=True
    )
    for path in (folder / "tconv").rglob("*.py"):
        path.unlink()
    return folder


def zipped(copy, folder):
    """A zip with the package in it."""
    with ZipFile(folder / "tconv.zip", "w") as archive:
        for path in copy.rglob("*"):
            archive.write(path, path.relative_to(copy.parent))
    return folder / "tconv.zip"


# As frozen programs do: modules are code objects in the program, and their files are nowhere.
FROZEN = """
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

class Frozen:
    def __init__(self, path):
        self.path = path
    def create_module(self, spec):
        return None
    def get_source(self, name):
        return None
    def get_code(self, name):
        return compile(self.path.read_bytes(), f"{name.replace('.', '/')}.py", "exec")
    def exec_module(self, module):
        module.__file__ = f"/nowhere/{module.__name__.replace('.', '/')}.pyc"
        exec(self.get_code(module.__name__), module.__dict__)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "tconv":
            return None
        place = Path(FOLDER, *name.split("."))
        is_package = place.is_dir()
        file = place / "__init__.py" if is_package else place.with_suffix(".py")
        if not file.exists():
            return None
        spec = ModuleSpec(name, Frozen(file), is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [f"/nowhere/{name.replace('.', '/')}"]
        return spec

sys.meta_path.insert(0, Finder())
"""
CALL = """
import warnings
warnings.simplefilter("error")
import numpy as np, tconv
from importlib import import_module
from tconv.geometry.geometry import Geometry
jit = import_module("tconv.engine.compile.jit")
compiled = []
keep = jit.keep
def kept(names, *rest, **more):
    compiled.extend(names)
    return keep(names, *rest, **more)
tiers = import_module("tconv.engine.compile.tiers")
jit.keep = tiers.keep = kept
x, w = np.ones((1, 8, 6, 6), np.float32), np.ones((8, 4, 4, 4), np.float32)
y = tconv.conv_transpose(x, w, stride=2, padding=1)
served = import_module("tconv.engine").serves(
    Geometry.of(x.shape, w.shape, stride=2, padding=1), "y", "float32"
)
import_module("tconv.engine.compile.tiers").wait_for_optimised()
fingerprint = import_module("tconv.engine.compile.fingerprint").fingerprint()
print(served, y.max() == 32, len(set(compiled)), fingerprint, tconv.__file__)
"""


def called(path, cache, before=""):
    """What a process says that finds the package at a path and makes a call."""
    done = subprocess.run(
        [sys.executable, "-c", before + CALL],
        env={**os.environ, "PYTHONPATH": str(path), "TCONV_CACHE": str(cache), "TCONV_CPU": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=cache.parent,
    )
    assert done.returncode == 0, done.stderr
    served, is_right, compiled, found, file = done.stdout.split()
    assert (served, is_right) == ("True", "True")
    return int(compiled), found, file


@pytest.mark.parametrize("kind", ["pyc", "zip", "frozen"])
def test_without_source_files_the_engine_and_its_cache_serve(copy, tmp_path, kind):
    path, before = tmp_path, f"FOLDER = {str(copy.parent)!r}\n{FROZEN}"
    if kind == "pyc":
        path, before = compiled_only(copy, tmp_path), ""
    elif kind == "zip":
        path, before = zipped(copy, tmp_path), ""
    compiled, found, file = called(path, tmp_path / "cache", before)
    assert compiled > 3
    assert not file.endswith(".py") if kind != "zip" else not os.path.exists(file)
    assert called(path, tmp_path / "cache", before) == (0, found, file)


def test_every_file_of_a_zip_counts(copy, tmp_path):
    seen = {of_archive(str(zipped(copy, tmp_path)), "tconv")}
    paths = sources(copy)[::7]
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data + b"#")
        seen.add(of_archive(str(zipped(copy, tmp_path)), "tconv"))
        path.write_bytes(data)
    assert len(seen) == 1 + len(paths)


def test_every_compiled_file_counts(copy, tmp_path):
    folder = compiled_only(copy, tmp_path) / "tconv"
    before = of_folder(str(folder))
    names = [path.relative_to(copy).with_suffix(".pyc") for path in sources(copy)]
    for name in names[::7]:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data + b"#")
        assert of_folder(str(folder)) != before, name
        (folder / name).write_bytes(data)


@pytest.fixture
def code_of(monkeypatch):
    """Frozen modules: their code by name, which a test may replace."""
    changed, find, seen = {}, FINGERPRINT._spec_of, set()

    class Loader:
        def __init__(self, spec):
            self.spec = spec

        def get_code(self, name):
            seen.add(name)
            return changed[name] if name in changed else self.spec.loader.get_code(name)

    class Spec:
        def __init__(self, spec):
            self.loader = Loader(spec)
            self.submodule_search_locations = spec.submodule_search_locations

    monkeypatch.setattr(FINGERPRINT, "_spec_of", lambda name: (s := find(name)) and Spec(s))
    return changed, seen


def test_code_objects_of_all_modules_count(code_of):
    changed, seen = code_of
    before = of_code(*FINGERPRINT._STARTS)
    assert before == of_code(*FINGERPRINT._STARTS)
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sources(PACKAGE)
        if path.name != "__init__.py" and path.relative_to(PACKAGE).parts[0] == "engine"
    }
    assert modules <= seen, modules - seen
    assert {"tconv.geometry.axis", "tconv.errors", "tconv.arrays.dtypes"} <= seen
    for name in sorted(modules)[::5]:
        text = Path(import_module(name).__file__).read_text()
        changed[name] = compile(f"{text}\nmore = 1", "elsewhere.py", "exec")
        assert of_code(*FINGERPRINT._STARTS) != before, name
        del changed[name]


def test_only_what_code_does_counts_and_not_where_it_was_compiled(code_of):
    changed, _ = code_of
    name = "tconv.engine.plan.plan"
    text = Path(import_module(name).__file__).read_text()
    seen = set()
    for file in ("one.py", "other.py"):
        changed[name] = compile(text, file, "exec")
        seen.add(of_code(*FINGERPRINT._STARTS))
    changed[name] = compile("def f():\n    return 1 in {'a', 'b', 2.0}", "", "exec")
    seen.add(of_code(*FINGERPRINT._STARTS))
    changed[name] = compile("def f():\n    return 1 in {'a', 'b', 3.0}", "", "exec")
    seen.add(of_code(*FINGERPRINT._STARTS))
    assert len(seen) == 3


def test_without_any_code_the_program_is_told_by_its_file(code_of, monkeypatch):
    changed, _ = code_of
    changed["tconv.engine.plan.plan"] = None
    assert of_code(*FINGERPRINT._STARTS) == ""
    one, other = (FINGERPRINT._of_program(version) for version in "12")
    assert one != other
    for nowhere in (None, "", "/nowhere/python"):
        monkeypatch.setattr(sys, "executable", nowhere)
        assert len(FINGERPRINT._of_program("1")) == len(fingerprint())
