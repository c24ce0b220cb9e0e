"""Export: trained networks as ONNX and ncnn models, and the bundle that holds them."""
