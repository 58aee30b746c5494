"""Public functions on arrays, their dispatch, call cache, planned calls and gradients."""
