"""Public functions on arrays: dispatch, call cache, planned calls, gradients and max pooling."""
