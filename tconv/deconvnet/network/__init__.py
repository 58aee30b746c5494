"""Networks as graphs of ONNX nodes, images for them, and their values."""
