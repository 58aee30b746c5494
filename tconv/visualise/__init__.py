"""HOW IT IS SEEN: transposed convolution explained cell by cell, as a page and as pictures."""

from tconv.visualise.explainer import Explainer, explain

__all__ = ["Explainer", "explain"]
