"""Backend of ``torch.compile``: what it is given, and what it leaves to PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import RestartAnalysis
from torch._guards import TracingContext
from torch.fx import GraphModule
from torch.nn import Parameter

from tconv import engine
from tconv.errors import ParameterError
from tconv.geometry.arguments import as_flag
from tconv.messages import show
from tconv.torch.compiling.calls import CompiledCall
from tconv.torch.compiling.compiled_graph import CompiledGraph
from tconv.torch.compiling.interpolation import interpolations_kept

__all__ = ["backend"]

_OPTIONS = ("frozen",)
_TYPES = (Tensor, Parameter, torch.nn.Buffer)


def backend(
    module: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: Any = None,
) -> Callable[..., Any]:
    """Compile a graph of Dynamo: its regions of convolutions become programs.

    ``torch.compile(model, backend="tconv")`` calls it; nothing else needs to.

    Parameters
    ----------
    module : the graph
    example_inputs : its inputs, parameters among them
    options : {"frozen": True} detects changes of parameters without reading them at each call, as
        `tconv.torch.freeze` does
    mode : must be left out

    Returns
    -------
    function of the inputs

    Raises
    ------
    ParameterError : an option is unknown, or a mode is given

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    >>> compiled = torch.compile(model, backend="tconv")
    >>> with torch.inference_mode():
    ...     y = compiled(torch.ones(1, 3, 32, 32))
    >>> y.shape
    torch.Size([1, 8, 30, 30])
    """
    is_frozen = _is_frozen(options, mode)
    why = _reason_to_leave(example_inputs)
    if why:
        return CompiledCall(module.forward, example_inputs, why=why)
    compiled = list[CompiledGraph]()

    def compile_inference(graph: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        context = TracingContext.try_get()
        parameters = () if context is None else context.fw_metadata.static_input_indices or ()
        compiled.append(CompiledGraph(graph, tuple(parameters), is_frozen))
        return _boxed(compiled[-1])

    try:
        compiler = aot_autograd(
            fw_compiler=lambda graph, _: _boxed(lambda given: graph(*given)),
            inference_compiler=compile_inference,
        )
        with interpolations_kept(module):
            run = compiler(module, example_inputs)
    except RestartAnalysis:  # of Dynamo, which begins anew
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        why = f"AOTAutograd failed with {type(error).__name__}: {first}"
        return CompiledCall(module.forward, example_inputs, why=why)
    if len(compiled) != 1:
        return CompiledCall(module.forward, example_inputs, why="AOTAutograd made no single graph")
    return CompiledCall(module.forward, example_inputs, run, compiled[0])


def _boxed(function: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """A function that AOTAutograd calls with a list, which it may empty."""

    def run(arguments: list[Any]) -> Any:
        return function(arguments)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _is_frozen(options: Mapping[str, Any] | None, mode: Any) -> bool:
    if mode is not None:
        raise ParameterError(
            f"mode={show(mode)} is not for backend='tconv', which has no modes; leave it out."
        )
    for name in options or ():
        if name not in _OPTIONS:
            raise ParameterError(
                f"options[{name!r}] is unknown to backend='tconv', which has "
                f"{', '.join(map(repr, _OPTIONS))}; leave it out."
            )
    return as_flag((options or {}).get("frozen", False), "options['frozen']")


def _reason_to_leave(inputs: Sequence[Any]) -> str:
    """Why a graph is left to PyTorch; "" if it is not."""
    if not engine.host_target().uses_engine:
        return "there is no machine code for this processor"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    tensors = [each for each in inputs if isinstance(each, Tensor)]
    for each in tensors:
        if type(each) not in _TYPES:
            return f"an input is a {type(each).__name__}"
        if not each.is_cpu:
            return f"an input is on {each.device}"
    if torch.is_grad_enabled() and any(each.requires_grad for each in tensors):
        return "gradients are on; under torch.inference_mode() or torch.no_grad() tconv computes"
    return ""
