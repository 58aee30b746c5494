"""The order of the house: who imports whom, how long a file is, and what importing tconv loads."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tconv
from tconv.visualise.page import SCRIPTS

PACKAGE = Path(__file__).parents[1] / "tconv"
# In reading order. A file imports only what stands above it.
ORDER = [
    "errors", "forks", "messages", "axis", "arguments", "files", "memory", "solver", "layouts",
    "settings", "geometry", "dtypes", "activations", "operands", "canonical", "definition",
    "engine.arena",
    "engine.target", "engine.phases", "engine.problem", "engine.winograd", "engine.plan",
    "engine.costs", "engine.tilings", "engine.turnings", "engine.bands", "engine.choice",
    "engine.values", "engine.builder",
    "engine.ir", "engine.call", "engine.halves", "engine.kernels", "engine.gathering",
    "engine.panels", "engine.spread", "engine.transforms", "engine.tiles",
    "engine.epilogue", "engine.output", "engine.driver", "engine.cells", "engine.layout",
    "engine.transposing", "engine.turned", "engine.turned_layout", "engine.tiled_layout",
    "engine.making", "engine.packing",
    "engine.objects", "engine.store", "engine.plan_log", "engine.encoding", "engine.known",
    "engine.mapping", "engine.jit",
    "engine.drafts", "engine.pool", "engine.teams", "engine.content_hash", "engine.addresses",
    "engine.entering",
    "engine.laid", "engine.laying", "engine.executor",
    "engine.folds", "engine.folding", "engine.compound",
    "engine.products", "engine.chunks", "engine.correlation", "engine.correlating",
    "engine.correlator", "engine",
    "grid", "blocks", "portable",
    "borders", "dispatch", "repeated", "planned", "ops", "gradients",
    "nodes", "conventions", "constants", "exchange",
    "npy", "states", "parameter", "module", "initialisers", "convolution", "switches", "pooling",
    "layers", "adoption", "normalisation", "optimisers", "tinynet", "images",
    "checkerboard", "visualise.scene", "visualise.snippets", "visualise.facts",
    "visualise.drawing", "visualise.svg", "visualise.raster", "visualise.page",
    "visualise.explainer",
    "tables",
    "onnx.followers", "onnx.inference", "onnx.graph", "onnx.model", "onnx.session_options",
    "onnx.ort_sessions", "onnx.pieces", "onnx.cost_model", "onnx.profitability", "onnx.report",
    "onnx.float64_errors", "onnx.loading", "onnx.execution", "onnx.inference_session",
    "onnx.session", "onnx.reference", "onnx.plain", "onnx.interleaved_timing", "onnx.compare",
    "onnx.warm", "onnx",
    "visualise.windows", "visualise.signals", "visualise.derivatives", "visualise.running",
    "visualise.opening", "visualise.network", "visualise.copying", "visualise.rows",
    "visualise.windowed", "visualise.reversals", "visualise.projection", "visualise.field",
    "visualise.catalogue", "visualise.photos", "visualise.exporting", "visualise.features",
    "visualise.tiles", "visualise.looking", "visualise.sanity", "visualise.seen",
    "visualise.montage", "visualise.gallery", "visualise.deconvnet", "visualise", "__init__",
    "torch.tensors", "torch.norms", "torch.threads", "torch.weights", "torch.computing",
    "torch.operator", "torch.contraction", "torch.scripting", "torch.functional", "torch.modules",
    "torch.tracing", "torch.acceleration", "torch",
    "cli.console", "cli.options", "cli.feeds", "cli.outputs", "cli.progress", "cli.shape",
    "cli.info", "cli.explain", "cli.run", "cli.see", "cli", "__main__",
]  # fmt: skip
# Optional libraries: imported inside the function that needs them, or in the file named for them.
HOSTS = {
    "torch", "jax", "cupy", "dask", "onnx", "onnxruntime", "llvmlite", "scipy", "PIL", "rich",
    "safetensors",
}  # fmt: skip
ITS_HOSTS = {"engine": {"llvmlite"}, "onnx": {"onnx", "onnxruntime", "google"}, "torch": {"torch"}}
# Those with libraries of their own, which other threads of a program may import as well.
MAY_IMPORT_LATE = {"tables", "visualise", "onnx", "torch", "cli"}
MAY_READ_THE_ENVIRONMENT = {"engine.target"}


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
each_file = pytest.mark.parametrize("name", SOURCES)


def test_every_file_has_its_place():
    assert sorted(ORDER) == sorted(SOURCES)


@each_file
def test_a_file_imports_only_what_stands_above_it(name):
    above = ORDER[: ORDER.index(name)]
    for imported in imports(TREES[name]):
        if f"{imported}.".startswith("tconv."):
            assert file_of(imported) in above, imported


@each_file
def test_nothing_leans_on_the_definition(name):
    assert not any(f"{each}.".startswith("tconv.definition.") for each in imports(TREES[name]))


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
            assert [alias.name for alias in node.names] == ["__version__"], f"line {node.lineno}"


@each_file
def test_no_attribute_is_computed_under_a_lock(name):
    assert "functools.cached_property" not in imports(TREES[name])


@each_file
def test_the_environment_is_not_read(name):
    for node in ast.walk(TREES[name]):
        word = getattr(node, "attr", getattr(node, "name", None))
        if word in ("environ", "environb", "getenv", "getenvb"):
            assert name in MAY_READ_THE_ENVIRONMENT, f"line {node.lineno}"


@each_file
def test_a_file_is_short(name):
    assert len(SOURCES[name].splitlines()) <= 500


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.js")), ids=lambda file: file.name)
def test_a_script_is_short_and_narrow_and_opens_with_its_question(file):
    lines = file.read_text("utf-8").splitlines()
    assert len(lines) <= 500
    assert [n for n, line in enumerate(lines, 1) if len(line) > 100] == []
    assert lines[0].startswith("// ")
    assert lines[0].endswith(".")


def test_every_script_is_part_of_a_page():
    found = sorted(file.name for file in PACKAGE.rglob("*.js"))
    assert sorted([*SCRIPTS, "gallery.js"]) == found


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
    assert set(tconv.__all__) <= set(dir(tconv))


def test_a_name_is_what_its_file_holds():
    for name, file in tconv._FILE_OF.items():
        assert getattr(tconv, name) is getattr(import_module(f"tconv.{file}"), name)
        assert vars(tconv)[name] is getattr(tconv, name)


def test_names_and_files_can_be_reached_in_every_way():
    loaded = loaded_by(
        "import pickle, tconv\n"
        "assert tconv.images.renormalise and tconv.tinynet.Deconv2D and tconv.cli.main\n"
        "from tconv import *\n"
        "from tconv import conv_transpose, Geometry as G, states\n"
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
