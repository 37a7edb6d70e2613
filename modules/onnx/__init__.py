"""ONNX graphs: running them with ONNX Runtime, and making them deterministic for comparison."""
