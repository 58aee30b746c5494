"""Report of a compiled model: its graphs, their regions, and what stays with PyTorch and why."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from tconv.errors import ParameterError
from tconv.messages import show
from tconv.torch.compiling.calls import CompiledCall, compiled_calls
from tconv.torch.compiling.compiled_graph import CompiledGraph

__all__ = ["CompilationReport", "CompiledRegion", "CompiledGraphReport", "report"]


@dataclass(frozen=True)
class CompiledRegion:
    """A region of a graph.

    Attributes
    ----------
    operators : how many of PyTorch's operators it takes the place of, by name
    steps : native steps of its first program, 0 if it has none
    programs : for how many sets of sizes a program computes it
    memory_bytes, packed_bytes : of the values between steps, and of packed weights
    pytorch_ms, tconv_ms : predicted at the sizes of the first call; None without a program
    why : why it has no program
    """

    operators: dict[str, int]
    steps: int
    programs: int
    memory_bytes: int
    packed_bytes: int
    pytorch_ms: float
    tconv_ms: float | None
    why: str


@dataclass(frozen=True)
class CompiledGraphReport:
    """A graph that Dynamo made of a function.

    Attributes
    ----------
    function : the name of the function
    compilation : which compilation of that function it is, from 1 on
    computed_by : "tconv" if any region is a program, "PyTorch", or "" before the first call
    why : why PyTorch runs all of it, "" if it does not
    regions : tuple of CompiledRegion
    others : PyTorch's operators around the regions, by name
    excluded : why nodes that might have been in a region are in none, by name
    packings : how often its weights were packed: once for each set of parameters, and once more
        when changed ones come a second time
    """

    function: str
    compilation: int
    computed_by: str
    why: str
    regions: tuple[CompiledRegion, ...]
    others: dict[str, int]
    excluded: dict[str, str]
    packings: int


@dataclass(frozen=True)
class CompilationReport:
    """What ``torch.compile(model, backend="tconv")`` made of a model.

    Attributes
    ----------
    graphs : tuple of CompiledGraphReport
    recompilations : how often functions were compiled once more
    limit : compilations of a function after which Dynamo runs it without a backend; only its log
        says so
    """

    graphs: tuple[CompiledGraphReport, ...]
    recompilations: int
    limit: int

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.graphs:
            return "no graphs: the model was not called yet, or another backend compiled it"
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        count, again = len(self.graphs), self.recompilations
        yield f"{count} graph{'s' * (count != 1)}, {again} recompilation{'s' * (again != 1)}"
        if any(each.compilation >= self.limit for each in self.graphs):
            yield (
                f"  a function was compiled {self.limit} times, PyTorch's limit: it runs other "
                "variants as they are; raise torch._dynamo.config.recompile_limit"
            )
        for each in self.graphs:
            yield from _lines_of(each)


def _lines_of(graph: CompiledGraphReport) -> Iterator[str]:
    title = f"{graph.function}, compilation {graph.compilation}"
    if graph.why:
        yield f"  {title}: computed by PyTorch, because {graph.why}"
    elif not graph.computed_by:
        yield f"  {title}: not called yet"
    else:
        times = f"weights packed {graph.packings} time{'s' * (graph.packings != 1)}"
        yield f"  {title}: {times}" if graph.computed_by == "tconv" else f"  {title}"
    for number, region in enumerate(graph.regions, 1):
        yield f"    region {number}: {_counted(region.operators)}"
        if region.tconv_ms is None:
            yield f"      computed by PyTorch: {region.why}"
            continue
        kept = f"{region.memory_bytes / 2**20:.1f} MiB of values, "
        kept += f"{region.packed_bytes / 2**20:.1f} MiB of packed weights"
        many = f"{region.programs} size{'s' * (region.programs != 1)}"
        if region.programs:
            yield f"      {region.steps} steps, programs for {many}, {kept}"
        yield (
            f"      predicted {region.tconv_ms:.2f} ms, by PyTorch {region.pytorch_ms:.2f} ms"
            f"{'' if region.programs else ': left to PyTorch'}"
        )
    if graph.others and not graph.why:
        yield f"    by PyTorch: {_counted(graph.others)}"
    for name, why in graph.excluded.items():
        yield f"      {name}: {why}"


def _counted(operators: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.items()) or "nothing"


def report(compiled: Any) -> CompilationReport:
    """Say what ``torch.compile(model, backend="tconv")`` has made of a model so far.

    Parameters
    ----------
    compiled : what `torch.compile` returned, a module or a function

    Returns
    -------
    CompilationReport : it prints as text, and has all as attributes

    Raises
    ------
    ParameterError : `compiled` is not what `torch.compile` returned

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU()).eval()
    >>> compiled = torch.compile(model, backend="tconv")
    >>> with torch.inference_mode():
    ...     y = compiled(torch.ones(1, 16, 64, 64))
    >>> graphs = tconv.torch.report(compiled).graphs
    >>> graphs[0].computed_by, graphs[0].regions[0].operators
    ('tconv', {'convolution': 1, 'relu': 1})
    """
    original = getattr(compiled, "_orig_mod", None)
    original = original or getattr(compiled, "_torchdynamo_orig_callable", None)
    if original is None:
        raise ParameterError(
            f"compiled={show(compiled)} must be what torch.compile returned; pass that."
        )
    found = [each for each in compiled_calls() if each.code is not None]
    codes, places = set(_codes(original)), set[int]()
    if isinstance(original, nn.Module):
        tensors = [*original.parameters(), *original.buffers()]
        places = {each.data_ptr() for each in tensors}
    found = [each for each in found if _is_of(each, codes, places)]
    frames = Counter(each.frame for each in found)
    return CompilationReport(
        tuple([_graph_report(each) for each in found]),
        sum(frames.values()) - len(frames),
        torch._dynamo.config.recompile_limit,
    )


def _codes(original: Any) -> Iterator[Any]:
    """The code of a function, or of the methods of a module."""
    if isinstance(original, nn.Module):
        for module in original.modules():
            yield getattr(type(module).forward, "__code__", None)
    yield getattr(original, "__code__", None)


def _is_of(call: CompiledCall, codes: set[Any], places: set[int]) -> bool:
    """Whether a graph is of a model: of its parameters, or of its code if it has none."""
    own = set(call.places)
    if call.compiled is not None:
        own |= call.compiled.states.places()
    return not own.isdisjoint(places) if own and places else call.code in codes


def _graph_report(call: CompiledCall) -> CompiledGraphReport:
    compiled, why = call.compiled, call.why
    regions = () if compiled is None else tuple(_region_reports(compiled))
    if compiled is not None and not why:
        why = compiled.why_left
    outlook = None if compiled is None else compiled.outlook
    computed_by = "PyTorch" if why else "" if outlook is None else "tconv"
    return CompiledGraphReport(
        call.code.co_name,
        call.number + 1,
        computed_by,
        why,
        regions,
        {} if compiled is None else compiled.other_operators(),
        {} if outlook is None else outlook.excluded,
        0 if compiled is None else compiled.states.count,
    )


def _region_reports(compiled: CompiledGraph) -> Iterator[CompiledRegion]:
    outlook = compiled.outlook
    if outlook is None:
        return
    for region, forecast in zip(compiled.regions, outlook.forecasts, strict=True):
        kept = region.kept(compiled.states)
        yield CompiledRegion(
            region.operators(),
            forecast.steps,
            kept.programs,
            forecast.memory_bytes,
            kept.packed_bytes,
            forecast.pytorch_us / 1e3,
            None if forecast.tconv_us is None else forecast.tconv_us / 1e3,
            forecast.why,
        )
