"""Processors: instruction sets, and the host that code is compiled for."""
