"""The order of the house: who imports whom, how long a file is, and what importing tconv loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tconv"
# In reading order. A file imports only what stands above it.
ORDER = [
    "errors", "axis", "arguments", "solver", "layouts", "settings", "geometry",
    "dtypes", "operands", "canonical", "definition",
    "grid", "blocks", "portable",
    "borders", "memory", "dispatch", "ops", "gradients",
    "files", "states", "parameter", "module", "initialisers", "convolution", "switches", "pooling",
    "layers", "optimisers", "tinynet", "images", "__init__",
]  # fmt: skip
# Optional libraries: imported inside the function that needs them, or in the file named for them.
HOSTS = {
    "torch", "jax", "cupy", "dask", "onnx", "llvmlite", "scipy", "PIL", "rich", "safetensors",
}  # fmt: skip
MAY_IMPORT_THE_DEFINITION: set[str] = set()
MAY_READ_THE_ENVIRONMENT: set[str] = set()


def name_of(file):
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts if len(parts) == 1 or parts[-1] != "__init__" else parts[:-1])


def imports(tree, *, also_in_functions=True):
    """Yield the full name of everything that is imported in a tree."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the full name, tconv.{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif also_in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, also_in_functions=also_in_functions)


SOURCES = {name_of(file): file.read_text("utf-8") for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
each_file = pytest.mark.parametrize("name", SOURCES)


def test_every_file_has_its_place():
    assert sorted(ORDER) == sorted(SOURCES)


@each_file
def test_a_file_imports_only_what_stands_above_it(name):
    above = ORDER[: ORDER.index(name)]
    for imported in imports(TREES[name]):
        if f"{imported}.".startswith("tconv."):
            assert any(f"{imported}.".startswith(f"tconv.{module}.") for module in above), imported


@each_file
def test_fast_code_never_leans_on_the_definition(name):
    leans = any(f"{imported}.".startswith("tconv.definition.") for imported in imports(TREES[name]))
    assert not leans or name in MAY_IMPORT_THE_DEFINITION


@each_file
def test_optional_libraries_are_not_imported_on_the_way(name):
    for imported in imports(TREES[name], also_in_functions=False):
        assert imported.partition(".")[0] not in HOSTS - {name}


@each_file
def test_the_environment_is_not_read(name):
    for node in ast.walk(TREES[name]):
        word = getattr(node, "attr", getattr(node, "name", None))
        if word in ("environ", "environb", "getenv", "getenvb"):
            assert name in MAY_READ_THE_ENVIRONMENT, f"line {node.lineno}"


@each_file
def test_a_file_is_short(name):
    assert len(SOURCES[name].splitlines()) <= 400


def test_importing_tconv_loads_no_optional_library():
    code = "import sys, tconv; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not loaded & (HOSTS | {"matplotlib", "onnxruntime", "pandas", "skimage", "sklearn"})
