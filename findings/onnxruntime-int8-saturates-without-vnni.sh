#!/usr/bin/env bash
# onnxruntime 1.31.1: by default, int8 convolutions saturate on x86 with AVX2 and no VNNI, and say nothing.
#
# Behaviour: products of uint8 activations and int8 weights are added in pairs by an instruction of 16
# bits, which saturates.  On such a processor a model answers something else than on Arm, on x86 with
# VNNI, or on x86 without AVX2.  The entry session.x64quantprecision=1 of SessionOptions makes the sums
# exact; it is off by default.  What it costs: a small ResNet, quantised by quantize_static, was wrong by
# more than half of the range of its answers.
#
# Seen: four products of 255 and 127 are 129540; the answer is 65280, which is 2 x 32767 in steps of the
# scale; 129540 with the entry, and both on an emulated Nehalem, which has no AVX2.  Fails if that changes.
# A processor with VNNI needs qemu-x86_64 7.2 or newer (Debian: qemu-user) to emulate one without.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet onnxruntime==1.31.1 onnx==1.23.2
cat >"$work/sums.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

tensors = {
    "one": np.float32(1),
    "zero": np.uint8(0),
    "weight": np.full((8, 4, 1, 1), 127, np.int8),
    "scales": np.ones(8, np.float32),
    "zeros": np.zeros(8, np.int8),
    "scale": np.float32(4 * 255 * 127 / 254),
}
reads = ["q", "one", "zero", "weight", "scales", "zeros", "scale", "zero"]
nodes = [
    helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
    helper.make_node("QLinearConv", reads, ["a"]),
    helper.make_node("DequantizeLinear", ["a", "scale", "zero"], ["y"]),
]
x, y = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 4, 4])
    for name, channels in (("x", 4), ("y", 8))
)
initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
graph = helper.make_graph(nodes, "g", [x], [y], initializers)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
found = []
for entry in ("0", "1"):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # a container hides some of /sys, which is no matter here
    options.add_session_config_entry("session.x64quantprecision", entry)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (answer,) = np.unique(session.run(None, {"x": np.full((1, 4, 4, 4), 255, np.float32)})[0])
    found.append(int(answer))
print(f"{sys.argv[1]}: {found[0]} by default, {found[1]} with the entry; exact: 129540")
assert found == [int(sys.argv[2]), 129540]
PY
without_vnni=()
if ! grep -qw avx2 /proc/cpuinfo || grep -qwE 'avx512_vnni|avx_vnni' /proc/cpuinfo; then
    without_vnni=(qemu-x86_64 -cpu Skylake-Client)
fi
"${without_vnni[@]}" "$work/venv/bin/python" "$work/sums.py" "AVX2, no VNNI" 65280
if command -v qemu-x86_64 >/dev/null; then
    qemu-x86_64 -cpu Nehalem "$work/venv/bin/python" "$work/sums.py" "no AVX2" 129540
fi
