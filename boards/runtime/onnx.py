"""A model run by onnxruntime, which is loaded only when a model is opened with it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from boards.runtime.model import Batch, Engine, check_batch
from nonn_core.bundle import BundledModel, ModelPrecision, Port
from profiles.errors import InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_ERRORS_ONLY = 3


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model in a session of onnxruntime, on the CPU."""

    name: str
    precision: ModelPrecision
    reads: Port
    answers: Port
    session: "InferenceSession"

    @property
    def engine(self) -> Engine:
        """What computes it."""
        return "onnxruntime"

    def answer(self, images: Batch) -> Batch:
        """Map (n, *reads.shape) to (n, *answers.shape), both float32.

        Raises InputError where the model cannot read `images`.
        """
        check_batch(images, self.reads, self.name)
        answers: Batch = self.session.run((self.answers.name,), {self.reads.name: images})[0]
        return answers


def open_onnx(
    model: BundledModel, precision: ModelPrecision, content: bytes, threads: int, where: str
) -> OnnxModel:
    """Open an ONNX model, on `threads` threads; `where` names the file that `content` is of.

    Raises InputError where it is no such model, or reads and answers other things than the
    manifest says.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # A thread that waits for work must not keep a processor busy that another model needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base
        raise InputError(
            f"onnxruntime cannot load it: {' '.join(str(error).split())}", where=where
        ) from None
    _check_ports(session, model, where)
    return OnnxModel(model.name, precision, model.reads, model.answers, session)


def _check_ports(session: "InferenceSession", model: BundledModel, where: str) -> None:
    """Make sure that the model is the one which the manifest describes."""
    for found, port in (
        (session.get_inputs(), model.reads),
        (session.get_outputs(), model.answers),
    ):
        ports = [(one.name, tuple(one.shape[1:]), one.type) for one in found]
        allowed = [(port.name, port.shape, "tensor(float)")]
        if ports != allowed:
            raise InputError(
                "has other inputs or outputs than the manifest says",
                where=where,
                found=ports,
                allowed=str(allowed),
            )
