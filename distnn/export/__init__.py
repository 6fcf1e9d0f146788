"""A trained network in the formats of others: ONNX, PyTorch, safetensors, numpy."""
