"""The three contractions by Fourier transforms, block by block: for long kernels."""

from tconv.spectral.contract import Kernel, contract
from tconv.spectral.division import Division, workspace_bytes

__all__ = ["Division", "Kernel", "contract", "workspace_bytes"]
