"""Programs of a model: of the whole, or of its tail after one subgraph of ONNX Runtime."""
