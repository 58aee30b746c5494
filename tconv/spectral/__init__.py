"""The three contractions by Fourier transforms, block by block: for long kernels."""

from tconv.spectral.contract import Kernel, contract
from tconv.spectral.division import Division, kernel_bytes, workspace_bytes

__all__ = ["Division", "Kernel", "contract", "kernel_bytes", "workspace_bytes"]
