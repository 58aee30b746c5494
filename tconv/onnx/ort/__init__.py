"""Interface to ONNX Runtime: sessions, options and error messages."""
