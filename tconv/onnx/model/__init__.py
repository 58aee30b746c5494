"""ONNX models as they are read: weights, inputs, outputs, shapes."""
