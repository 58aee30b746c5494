"""The floor plan: rooms and who may import whom, first lines, lengths, and what importing loads."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from itertools import combinations
from pathlib import Path

import pytest

import tconv
from tconv.explainer.html_page import SCRIPTS

PACKAGE = Path(__file__).parents[1] / "tconv"
# From the ground up. A room is a folder, or a file at the top; it imports from the lines above its
# own only, never from a room beside it. Some rooms are reserved: nothing stands in them yet.
LAYERS = """
errors tables messages page_templates progress foreign_names
system
signatures
geometry
arrays
images checkerboard
definition portable spectral
engine.target
engine.codegen
engine.kernels engine.compile
engine.plan
engine.direct engine.runtime
engine.winograd engine.channel_lanes engine.depthwise engine.row_gemm engine.weight_gradient
engine
ops
graph
streams
nn
tinynet explainer
onnx.model
onnx.partition
onnx.ort
onnx torch scipy dask
volumes check
deconvnet.network
deconvnet.rules
deconvnet
__init__
cli
__main__
"""
LEVEL = {room: n for n, line in enumerate(LAYERS.split("\n")) for room in line.split()}
# Optional libraries: imported inside the function that needs them, or in the room named for them.
HOSTS = {
    *("torch", "jax", "cupy", "dask", "distributed", "zarr", "onnx", "onnxruntime", "llvmlite"),
    *("scipy", "pylops", "PIL", "rich", "safetensors"),
}
ITS_HOSTS = {
    "engine": {"llvmlite"},
    "onnx": {"onnx", "onnxruntime", "google"},
    "torch": {"torch"},
    "dask": {"dask"},
    "scipy": {"scipy", "pylops"},
    "volumes": {"dask", "distributed", "zarr"},
}
# Those with libraries of their own, which other threads of a program may import as well.
MAY_IMPORT_LATE = {
    *(
        "tables",
        "progress",
        "explainer",
        "deconvnet",
        "onnx",
        "torch",
        "scipy",
        "dask",
        "volumes",
        "cli",
    )
}
MAY_READ_THE_ENVIRONMENT = "engine.target."
MOST_LINES, MOST_MODULES = 500, 14
WH_WORDS = {"what", "how", "who", "whose", "which", "where", "when", "why", "whether"}


def name_of(file):
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts if len(parts) == 1 or parts[-1] != "__init__" else parts[:-1])


def room_of(name):
    """The innermost room that a module stands in."""
    parts = name.split(".")
    starts = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((start for start in starts if start in LEVEL), None)


def imports(tree, *, also_in_functions=True):
    """Yield the full name of everything that is imported in a tree."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the full name, tconv.{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif also_in_functions or not (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_type_checkers(node)
        ):
            yield from imports(node, also_in_functions=also_in_functions)


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def file_of(imported):
    """The file that holds what is imported: a module, or what stands in one."""
    parts = imported.split(".")[1:]
    starts = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((start for start in starts if start in SOURCES), "__init__")


SOURCES = {name_of(file): file.read_text("utf-8") for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
OURS = {  # the files that each imports
    name: {file_of(each) for each in imports(tree) if f"{each}.".startswith("tconv.")}
    for name, tree in TREES.items()
}
FOLDERS = sorted({file.parent for file in PACKAGE.rglob("*.py")})
each_file = pytest.mark.parametrize("name", SOURCES)
each_folder = pytest.mark.parametrize(
    "folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PACKAGE.parent))
)


# ---- rooms ---------------------------------------------------------------------------------------


@each_file
def test_a_file_imports_from_its_room_and_from_lower_ones(name):
    room = room_of(name)
    assert room, f"{name} stands in no room of LAYERS"
    for other in sorted(OURS[name] - {"__init__"}):  # which all may ask for the version
        assert room_of(other) == room or LEVEL[room_of(other)] < LEVEL[room], other


def test_no_files_import_each_other_in_a_circle():
    try:
        TopologicalSorter(OURS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@each_file
def test_outside_the_engine_only_its_door_is_imported(name):
    if name.partition(".")[0] != "engine":
        assert not [other for other in OURS[name] if other.startswith("engine.")]


@each_file
def test_nothing_leans_on_the_definition(name):
    assert "definition" not in OURS[name]


@each_file
def test_optional_libraries_are_not_imported_on_the_way(name):
    for imported in imports(TREES[name], also_in_functions=False):
        own = ITS_HOSTS.get(name.partition(".")[0], set())
        assert imported.partition(".")[0] not in HOSTS - own


@each_file
def test_late_imports_are_what_a_fork_waits_for(name):
    if name.partition(".")[0] in MAY_IMPORT_LATE:
        return
    held = [
        child
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.With) and "importing" in map(ast.unparse, node.items)
        for child in ast.walk(node)
    ]
    for function in ast.walk(TREES[name]):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                is_import = isinstance(node, ast.Import | ast.ImportFrom)
                assert not is_import or node in held, f"line {node.lineno}"


@each_file
def test_no_file_asks_the_package_for_a_name_while_it_is_imported(name):
    """That would wait for a thread that asks for a name, and that may wait for this file."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module == "tconv":
            asked = {alias.name for alias in node.names} - set(SOURCES)
            assert asked <= {"__version__"}, f"line {node.lineno}"


@each_file
def test_no_attribute_is_computed_under_a_lock(name):
    assert "functools.cached_property" not in imports(TREES[name])


@each_file
def test_the_environment_is_not_read(name):
    for node in ast.walk(TREES[name]):
        word = getattr(node, "attr", getattr(node, "name", None))
        if word in ("environ", "environb", "getenv", "getenvb"):
            assert name.startswith(MAY_READ_THE_ENVIRONMENT), f"line {node.lineno}"


# ---- files and folders ---------------------------------------------------------------------------


@each_file
def test_a_file_is_short(name):
    assert len(SOURCES[name].splitlines()) <= MOST_LINES


@each_file
def test_the_first_line_of_a_file_names_the_thing(name):
    """A noun phrase that ends like a sentence: no question, and no word in capitals alone."""
    first = (ast.get_docstring(TREES[name]) or "").splitlines()[0]
    assert first.endswith((".", ":")), first
    assert first.split()[0].strip(",:").lower() not in WH_WORDS, first
    for word in re.findall(r"[A-Z]{2,}", first):
        assert word in ACRONYMS, word


ACRONYMS = {
    *("NumPy", "ONNX", "LLVM", "NCHW", "GEMM", "SVG", "PNG", "GIF", "HTML", "JSON", "CSS", "ABI"),
    *("CPU", "GPU", "OS", "TCONV", "API", "RNG", "SGD", "PEP", "JIT", "MP", "OME"),
}  # fmt: skip


@each_folder
def test_a_folder_is_seen_at_a_glance(folder):
    modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES


def stem(name):
    """A name without what tells tense and number."""
    return re.sub(r"(ies|ing|ed|er|or|es|s|e|y)$", "", name)


@each_folder
def test_no_two_names_of_a_folder_differ_by_tense_or_number(folder):
    names = sorted({file.stem for file in folder.iterdir() if not file.name.startswith("_")})
    for one, other in combinations(names, 2):
        assert stem(one) != stem(other), (one, other)


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.js")), ids=lambda file: file.name)
def test_a_script_is_short_and_narrow_and_says_what_it_is(file):
    lines = file.read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    assert [n for n, line in enumerate(lines, 1) if len(line) > 100] == []
    assert lines[0].startswith("// ")
    assert lines[0].endswith(".")


def test_every_script_is_part_of_a_page():
    found = sorted(file.name for file in PACKAGE.rglob("*.js"))
    assert sorted([*SCRIPTS, "gallery.js"]) == found


@pytest.mark.parametrize(
    "one",
    [
        ("folds", "folding"),
        ("lowered", "lowering"),
        ("correlating", "correlator"),
        ("pool", "pools"),
    ],
)
def test_names_that_differ_by_tense_are_found(one):
    assert stem(one[0]) == stem(one[1])


# ---- what is loaded ------------------------------------------------------------------------------


def loaded_by(code):
    """Top-level packages that some code loads, those aside that Python starts with."""
    code = f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_tconv_loads_the_standard_library_only():
    assert loaded_by("import tconv; dir(tconv)") - set(sys.stdlib_module_names) == {"tconv"}


def test_using_tconv_loads_numpy_and_no_optional_library():
    loaded = loaded_by("import tconv; tconv.conv_transpose")
    assert "numpy" in loaded
    assert not loaded & (HOSTS | {"matplotlib", "pandas", "skimage", "sklearn"})


# ---- the names of the package, which are imported when they are first asked for ------------------


def test_the_lists_of_public_names_agree():
    table = {(tconv._FILE_OF[name], name) for name in tconv._FILE_OF}
    (block,) = filter(is_for_type_checkers, TREES["__init__"].body)
    checked = [
        (node.module.removeprefix("tconv."), alias.name, alias.asname)
        for node in block.body
        for alias in node.names
    ]
    assert sorted(checked) == sorted((file, name, None) for file, name in table)
    assert sorted(tconv.__all__) == sorted(name for _, name in table)


def test_dir_has_the_public_names_and_modules_only():
    api = (PACKAGE.parent / "docs" / "api.md").read_text("utf-8")
    modules = set(re.findall(r"^::: tconv\.([a-z]+)\.", api, re.MULTILINE)) | {"torch"}
    assert modules == {*tconv._MODULES, *tconv._HOSTS}
    loaded = set(tconv._HOSTS) & set(vars(tconv))
    assert set(dir(tconv)) == {*tconv.__all__, *tconv._MODULES, *loaded, "__version__"}


def test_help_of_the_package_loads_no_optional_library():
    loaded = loaded_by("import pydoc, tconv; assert 'conv_output_shape' in pydoc.render_doc(tconv)")
    assert not loaded & HOSTS


def test_a_name_is_what_its_file_holds():
    for name, file in tconv._FILE_OF.items():
        assert getattr(tconv, name) is getattr(import_module(f"tconv.{file}"), name)
        assert vars(tconv)[name] is getattr(tconv, name)


def test_names_and_files_can_be_reached_in_every_way():
    loaded = loaded_by(
        "import pickle, tconv\n"
        "assert tconv.images.renormalise and tconv.tinynet.Deconv2D and tconv.cli.main\n"
        "from tconv import *\n"
        "from tconv import conv_transpose, Geometry as G, errors\n"
        "assert conv is tconv.conv and pickle.loads(pickle.dumps(G)) is tconv.Geometry"
    )
    assert not loaded & HOSTS


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("conv_trnspose", "; did you mean 'conv_transpose'?"),
        ("zzz", ""),
        ("_conv", ""),
        ("a.b", ""),
    ],
)
def test_an_unknown_name_is_an_attribute_error(name, hint):
    with pytest.raises(
        AttributeError, match=rf"^module 'tconv' has no attribute '{name}'"
    ) as error:
        getattr(tconv, name)
    assert str(error.value).endswith(hint)
    assert not hasattr(tconv, name)
