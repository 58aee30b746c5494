"""Weight gradient: plan, kernels, driver and executor."""
