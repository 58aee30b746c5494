"""The three contractions by Fourier transforms, block by block: for long kernels."""

from tconv.spectral.contract import contract
from tconv.spectral.division import Division, workspace_bytes

__all__ = ["Division", "contract", "workspace_bytes"]
