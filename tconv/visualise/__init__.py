"""HOW IT IS SEEN: transposed convolution cell by cell, and what the features of networks see."""

from tconv.visualise.deconvnet import See, see, see_layers
from tconv.visualise.explainer import Explainer, explain

__all__ = ["Explainer", "See", "explain", "see", "see_layers"]
