"""Symbolic tracing by torch.fx, with tconv's modules as leaves."""

from torch import fx, nn

from tconv.torch.modules import TORCH_CLASS_OF

__all__ = ["Tracer"]


class Tracer(fx.Tracer):
    """``torch.fx.Tracer`` that treats the modules of `tconv.torch` as leaves, as PyTorch's own.

    Each becomes one node, which calls the module with its hooks and its packed weight. By contrast,
    ``torch.fx.symbolic_trace`` traces into them, and the nodes call `conv_transpose2d` and the like
    with weights that are packed for each call.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 2, 3), torch.nn.ReLU())
    >>> _ = tconv.torch.accelerate(model)
    >>> traced = torch.fx.GraphModule(model, Tracer().trace(model))
    >>> [node.op for node in traced.graph.nodes]
    ['placeholder', 'call_module', 'call_module', 'output']
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module becomes one node: PyTorch's own and tconv's."""
        return isinstance(m, tuple(TORCH_CLASS_OF)) or super().is_leaf_module(
            m, module_qualified_name
        )
