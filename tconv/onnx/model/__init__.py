"""ONNX models: files, nodes, inputs and outputs, shape inference."""
