"""The examples as modules; their folder is not a package."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def example(name):
    """Load an example."""
    file = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = spec_from_file_location(name, file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
