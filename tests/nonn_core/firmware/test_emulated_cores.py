"""Emulated microcontrollers answer as onnxruntime does, in the memory and work that was counted."""

import numpy as np
import pytest
from emulated_core import CORES, missing_tools, run_on_core
from int8_students import FAMILIES, images, int8_student

from nonn_core.export.onnx_model import inference
from nonn_core.firmware.c_library import c_library
from nonn_core.firmware.int8_network import read_int8_network

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=missing_tools() or "")


@pytest.mark.parametrize("core", CORES)
def test_a_core_answers_as_onnxruntime_does(core):
    """A network of all kernels but one pool; widths that are no multiple of two or four."""
    name = "mobilenetv2-cifar-0.1" if core == "cortex-m4" else "wrn10:5,6,9"
    model, pixels = int8_student(name, FAMILIES[name]), images(FAMILIES[name])[:3]
    network = read_int8_network(model, FAMILIES[name], name)
    library, features = c_library(network, name), network.maps[network.features]
    found = run_on_core(library, pixels, core)
    expected = np.rint(inference(model)(pixels) / features.scale) + features.zero
    assert np.abs(found.features - expected).max() <= 1
    assert found.kernel_bytes <= 8192
    assert found.flash_bytes >= library.constant_bytes
    assert 0 < found.stack_bytes <= 512


@pytest.mark.parametrize(("core", "most"), [("cortex-m3", 4.5), ("cortex-m7", 2.0)])
def test_wide_layers_cost_few_instructions(core, most):
    """Per multiply-accumulate of convolutions, counted by hand: 3x3 on 16x16, 1 to 16, then 32."""
    shape, name = (1, 16, 16), "wrn10:32,32,32"
    model = int8_student(name, shape)
    found = run_on_core(
        c_library(read_int8_network(model, shape, name), name), images(shape)[:1], core
    )
    macs = 256 * 9 * (1 * 16 + 16 * 32 + 32 * 32) + 256 * 16 * 32  # The stem and the first group.
    macs += 64 * 9 * (32 * 32 + 32 * 32) + 64 * 32 * 32  # The second, on 8x8.
    macs += 16 * 9 * (32 * 32 + 32 * 32) + 16 * 32 * 32 + 16 * 32 * 5  # The third, and fconv.
    assert found.instructions <= most * macs
