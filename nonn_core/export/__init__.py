"""Export: trained networks as ONNX and ncnn models, and the bundle that holds them."""

import os

# onnxruntime (seen: 1.31.1 and 1.32.0) else sends what it does to its maker, writes an identifier
# of the machine into the home folder, and keeps a thread for it.  It looks once, as it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
