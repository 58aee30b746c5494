"""Public functions, dispatch, repeated calls and gradients."""
