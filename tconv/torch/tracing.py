"""Symbolic tracing of a model by torch.fx, with the modules of tconv as leaves."""

from torch import fx, nn

from tconv.torch.modules import THEIRS

__all__ = ["Tracer"]


class Tracer(fx.Tracer):
    """``torch.fx.Tracer`` to which the modules of `tconv.torch` are leaves, as PyTorch's own are.

    Each is one node, which calls the module with its hooks and its packed weight. Without this,
    ``torch.fx.symbolic_trace`` looks into them, and their nodes call `conv_transpose2d` and the
    like with weights that are packed for each call.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 2, 3), torch.nn.ReLU())
    >>> _ = tconv.torch.accelerate(model)
    >>> traced = torch.fx.GraphModule(model, Tracer().trace(model))
    >>> [node.op for node in traced.graph.nodes]
    ['placeholder', 'call_module', 'call_module', 'output']
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node: PyTorch's own and tconv's."""
        return isinstance(m, tuple(THEIRS)) or super().is_leaf_module(m, module_qualified_name)
