"""A net of ncnn: the engine where onnxruntime has no wheel (32-bit Arm).

It loads no torch, and ncnn itself only when a net is opened.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import BoardError, InputError

if TYPE_CHECKING:
    from ncnn import Net

NCNN_READS, NCNN_ANSWERS = "in0", "out0"
"""Names of the input and output of a model for ncnn."""

FloatArray = NDArray[np.float32]

_HALF_PRECISION = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"),
    *("use_bf16_packed", "use_bf16_storage"),
)


@dataclass(frozen=True, slots=True)
class NcnnNet:
    """A net in memory; several threads may compute with it at once."""

    net: "Net"

    @classmethod
    def open(cls, param: bytes, weights: bytes, threads: int, where: str) -> "NcnnNet":
        """Open the content of a param and a bin file; `where` names them in errors.

        Raises InputError where ncnn cannot load them.
        """
        net = _empty_net(threads)
        # From memory ncnn would go on to use memory that its Python package has given back.
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder) / "param", Path(folder) / "bin"
            for path, content in zip(files, (param, weights), strict=True):
                path.write_bytes(content)
            if net.load_param(str(files[0])) or net.load_model(str(files[1])):
                raise InputError("ncnn cannot load it", where=where)
        return cls(net)

    def __call__(self, batch: FloatArray) -> FloatArray:
        """Map (n, ...) to (n, ...), one after the other.

        n is at least 1; ncnn knows no batch.  Raises BoardError where ncnn fails.
        """
        return np.stack([self._one(each) for each in np.ascontiguousarray(batch)])

    def _one(self, each: FloatArray) -> FloatArray:
        """Compute one input in an extractor of its own.

        Threads may not share one.
        """
        import ncnn

        with self.net.create_extractor() as extractor:
            # A clone has the alignment that ncnn wants.
            extractor.input(NCNN_READS, ncnn.Mat(each).clone())
            failed, answer = extractor.extract(NCNN_ANSWERS)
            if failed:
                raise BoardError(f"ncnn could not compute {NCNN_ANSWERS} (its error {failed})")
            # A copy: what ncnn has computed goes when its extractor does.
            return np.array(answer)


def _empty_net(threads: int) -> "Net":
    """Return a net that will compute in fp32: on Arm, ncnn's default is half precision."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for option in _HALF_PRECISION:
        setattr(net.opt, option, False)
    return net
