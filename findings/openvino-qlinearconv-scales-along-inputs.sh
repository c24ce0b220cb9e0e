#!/usr/bin/env bash
# OpenVINO 2026.4.1 lays the weight scales of ONNX QLinearConv along the input channels, and says nothing.
#
# Behaviour: by the ONNX specification `w_scale` has one value for each output channel.  OpenVINO's
# reader of ONNX dequantises the weights (outputs, inputs, ...) along axis 1, the inputs.  A convolution
# with as many outputs as inputs is computed with the wrong scales, without a warning; any other one with
# more than one scale is refused at loading.  The same convolution as QuantizeLinear, DequantizeLinear
# and Conv (QDQ) is right.  What it costs: int8 models of onnxruntime's QuantFormat.QOperator cannot be
# given to OpenVINO, nor to OpenVINO Model Server.
#
# Seen: a 1x1 convolution, all weights 1, scales 1 and 2, of the pixels 10 and 1: onnxruntime 1.31.1
# answers 11 and 22, OpenVINO 12 and 12; 11 and 22 in QDQ form.  Fails if that changes.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet openvino==2026.4.1 onnxruntime==1.31.1 onnx==1.23.2
"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper


def model(qdq):
    tensors = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weight": np.ones((2, 2, 1, 1), np.int8),
        "scales": np.array([1, 2], np.float32),
        "zeros": np.zeros(2, np.int8),
    }
    if qdq:
        middle = [
            helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
            helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["w"], axis=0),
            helper.make_node("Conv", ["d", "w"], ["c"]),
            helper.make_node("QuantizeLinear", ["c", "one", "zero"], ["a"]),
        ]
    else:
        reads = ["q", "one", "zero", "weight", "scales", "zeros", "one", "zero"]
        middle = [helper.make_node("QLinearConv", reads, ["a"])]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        *middle,
        helper.make_node("DequantizeLinear", ["a", "one", "zero"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 1, 1]) for n in "xy"]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


x = np.array([10, 1], np.float32).reshape(1, 2, 1, 1)
found = {}
for form, qdq in (("QLinearConv", False), ("QDQ", True)):
    content = model(qdq)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found["onnxruntime", form] = session.run(None, {"x": x})[0].ravel().tolist()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU")
    found["openvino", form] = compiled(x)[0].ravel().tolist()
for (engine, form), answer in found.items():
    print(f"{engine:11} {form:11} {answer}")
assert found.pop(("openvino", "QLinearConv")) == [12, 12]
assert all(answer == [11, 22] for answer in found.values())
PY
