"""ONNX graphs: run by ONNX Runtime, and made deterministic for comparison."""
