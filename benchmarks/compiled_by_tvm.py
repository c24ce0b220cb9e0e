"""A model compiled by TVM, timed for `runtimes.py`, which starts this with an interpreter of TVM's.

    PYTHON benchmarks/compiled_by_tvm.py model.onnx image.npy TARGET TRIALS

Reads the model, its input as an array, TVM's target as JSON, and how many programs its tuner may
try (0: compile without tuning).  Writes a line of JSON: version, seconds to compile and tune, and
what the model answers.  Then, for each line with a number that it reads, runs the model so often
and writes a line with the milliseconds of each run.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def compiled(path: str, shape: tuple[int, ...], target: dict[str, object], trials: int) -> object:
    """Compile a model of one input for a fixed shape; tune it before where `trials` is not 0."""
    model = onnx.load(path)
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = shape[0]
    module = from_onnx(
        model, shape_dict={model.graph.input[0].name: list(shape)}, keep_params_in_input=False
    )
    chosen = tvm.target.Target(target)
    if trials:
        with tempfile.TemporaryDirectory() as folder, chosen:
            tuning = relax.get_pipeline(
                "static_shape_tuning", target=chosen, total_trials=trials, work_dir=folder
            )
            module = tuning(module)
    return tvm.compile(module, target=chosen)


def runner(executable: object, image: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a call that computes the image once, on one thread as TVM_NUM_THREADS says."""
    machine = relax.VirtualMachine(executable, tvm.cpu())
    tensor = tvm.runtime.tensor(image)

    def run() -> np.ndarray:
        answer = machine["main"](tensor)
        return (answer if hasattr(answer, "numpy") else answer[0]).numpy()

    return run


def main() -> None:
    """Compile, then run as often as asked."""
    path, image_path, target, trials = sys.argv[1:]
    out, sys.stdout = sys.stdout, sys.stderr
    image = np.load(image_path)
    began = time.perf_counter()
    executable = compiled(path, image.shape, json.loads(target), int(trials))
    seconds = time.perf_counter() - began
    run = runner(executable, image)
    first = {"version": tvm.__version__, "seconds": seconds, "answer": run().tolist()}
    print(json.dumps(first), file=out, flush=True)
    for line in sys.stdin:
        spent = []
        for _ in range(int(line)):
            began = time.perf_counter()
            run()
            spent.append(1000 * (time.perf_counter() - began))
        print(json.dumps(spent), file=out, flush=True)


if __name__ == "__main__":
    main()
