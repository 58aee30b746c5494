"""Operators of ONNX as steps of a program: one function each, below `register`."""
