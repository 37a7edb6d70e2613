"""Exports the networks as ONNX graphs with the published inputs and outputs."""
