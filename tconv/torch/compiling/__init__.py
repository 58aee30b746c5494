"""Backend of torch.compile: regions of a network as programs, the rest by PyTorch."""

from tconv.torch.compiling.backend import backend
from tconv.torch.compiling.report import (
    CompilationReport,
    CompiledGraphReport,
    CompiledRegion,
    report,
)

__all__ = ["CompilationReport", "CompiledGraphReport", "CompiledRegion", "backend", "report"]
