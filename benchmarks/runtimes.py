"""Engines for boards beside each other on one student, in one run, one thread, one image at a time.

    python benchmarks/runtimes.py
    python benchmarks/runtimes.py --tvm-python ENV/bin/python              TVM untuned, too
    python benchmarks/runtimes.py --tvm-python ENV/bin/python --trials 512     ... and tuned

The student is wrn16:32,64,88 with 34 filters on 3x32x32, untrained (speed does not depend on the
weights), exported as `nonn-plan export --ncnn` does and run as a worker does.  All engines take
turns, round by round; a ratio is the median over the rounds of an engine's median beside
onnxruntime's in fp32.  The difference is the largest of any feature from onnxruntime's in fp32,
over the largest feature.

TVM has an environment of its own (`python -m venv ENV; ENV/bin/pip install apache-tvm onnx`; for
its tuner `'apache-tvm[meta-schedule,popen-pool]'`) and a process of its own, which waits while the
others run.

Also printed: what a call costs beside its arithmetic, on a network of almost none, called plainly
and with buffers bound; and what threads that spin cost where three models share the processors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from boards.worker.model_runtime import open_ncnn, open_onnx
from nonn_core.data.dataset import Dataset, Images
from nonn_core.export.bundle import BundledModel, ModelFile, Port, content_hash
from nonn_core.export.deployment import OnPixels, convert_to_ncnn, to_onnx
from nonn_core.export.onnx_model import quantise_int8
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_nonn

STUDENT, FILTERS = "wrn16:32,64,88", 34
FIRST = "onnxruntime fp32"
HERE = Path(__file__).parent
TVM_TARGET = {"kind": "llvm", "mcpu": "core-avx2", "num-cores": 1}

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Way:
    """One engine: its answer, its files' size if any, and runs of so many images (each in ms)."""

    answer: Array
    size_bytes: int | None
    runs: Callable[[int], list[float]]


def random_images(count: int) -> Dataset:
    """Make images of CIFAR-10's shape."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.zeros(count, dtype=torch.int64))
    mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.29)
    return Dataset("random", ("0", "1"), images, images, True, mean, std)


def student_model(network: str, dataset: Dataset) -> onnx.ModelProto:
    """Export an untrained student, its statistics being those of the images."""
    nonn = build_nonn([StudentShape(parse_network(network), FILTERS)], 3, 10, seed=0)
    with torch.no_grad():
        nonn.train()(dataset.normalised(dataset.train.pixels))
    module = OnPixels(next(nonn.deployed()), dataset).eval()
    return to_onnx(module, torch.zeros(2, 3, 32, 32), "image", "vector")


def described(model: onnx.ModelProto) -> BundledModel:
    """Describe a student as a manifest does."""
    content = model.SerializeToString()
    file = ModelFile(
        file="s.onnx", sha256=content_hash(content), size_bytes=len(content), precision="fp32"
    )
    return BundledModel(
        name="student",
        role="student",
        network=STUDENT,
        reads=Port(name="image", shape=(3, 32, 32)),
        answers=Port(name="vector", shape=(FILTERS,)),
        filters=tuple(range(FILTERS)),
        fc_offset=0,
        files=(file,),
    )


def spent_ms(run: Callable[[], object], times: int) -> list[float]:
    """Return the milliseconds of each of so many calls."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        spent.append(1000 * (time.perf_counter() - began))
    return spent


def here(answer: Callable[[Array], Array], image: Array, size_bytes: int) -> Way:
    """Return an engine that runs in this process."""
    return Way(answer(image), size_bytes, lambda times: spent_ms(lambda: answer(image), times))


@contextmanager
def tvm(python: str, model: onnx.ModelProto, image: Array, trials: int) -> Iterator[Way]:
    """Start TVM's process; it compiles, and waits."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        onnx.save(model, place / "model.onnx")
        np.save(place / "image.npy", image)
        program = [python, HERE / "compiled_by_tvm.py", place / "model.onnx", place / "image.npy"]
        with subprocess.Popen(  # noqa: S603  (an interpreter that the user named)
            [*program, json.dumps(TVM_TARGET), str(trials)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TVM_NUM_THREADS": "1"},
        ) as process:
            asked, told = process.stdin, process.stdout
            assert asked is not None and told is not None  # noqa: S101  (both are pipes)
            line = told.readline()
            if not line:
                sys.exit(f"TVM, {trials} trials: its process ended, exit code {process.wait()}")
            first = json.loads(line)
            told_of = (
                f"TVM {first['version']}, {trials} trials: {first['seconds']:.1f} s to compile"
            )
            print(told_of, file=sys.stderr)

            def runs(times: int) -> list[float]:
                print(times, file=asked, flush=True)
                spent: list[float] = json.loads(told.readline())
                return spent

            yield Way(np.array(first["answer"], np.float32), None, runs)
            asked.close()


def engines(options: argparse.Namespace, running: ExitStack) -> dict[str, Way]:
    """Open the student in every engine."""
    dataset = random_images(64)
    fp32 = student_model(STUDENT, dataset)
    pixels = dataset.train.pixels.float().numpy()
    image = pixels[:1]
    int8 = quantise_int8(fp32, pixels).SerializeToString()
    qdq = quantise_int8(fp32, pixels, qdq=True).SerializeToString()
    saturating = session(int8, 1, spinning=False)
    model, exact = described(fp32), fp32.SerializeToString()
    param, weights = convert_to_ncnn(fp32, (3, 32, 32), "student")
    ways = {
        FIRST: here(open_onnx(model, "fp32", exact, 1, "s.onnx").answer, image, len(exact)),
        "onnxruntime int8": here(
            open_onnx(model, "int8", int8, 1, "s.int8.onnx").answer, image, len(int8)
        ),
        # Without our entry of the session: x86 without VNNI adds in 16 bits.
        "onnxruntime int8 by default": here(
            lambda images: saturating.run(None, {"image": images})[0], image, len(int8)
        ),
        "onnxruntime int8 QDQ": here(
            open_onnx(model, "int8", qdq, 1, "s.int8.onnx").answer, image, len(qdq)
        ),
        "ncnn fp32": here(
            open_ncnn(model, param, weights, 1, "s.ncnn.param").answer,
            image,
            len(param) + len(weights),
        ),
    }
    if options.tvm_python:
        for trials in sorted({0, options.trials}):
            name = "TVM tuned" if trials else "TVM untuned"
            way = tvm(options.tvm_python, fp32, image, trials)
            ways[name] = running.enter_context(way)
    return ways


def in_turns(ways: dict[str, Way], rounds: int, times: int) -> dict[str, list[float]]:
    """Return each engine's median in each round, in ms."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            # The first ones after another engine find its data in the caches.
            found[name].append(median(way.runs(times + 2)[2:]))
    return found


def session(content: bytes, threads: int, spinning: bool) -> onnxruntime.InferenceSession:
    """Open a model, its threads spinning while they wait or not."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def calls(rounds: int) -> dict[str, float]:
    """Return the time of a call of onnxruntime in us: as we call it, bare, with bound buffers."""
    shape = (1, 3, 32, 32)
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name in ("image", "vector")
    ]
    node = onnx.helper.make_node("Relu", ["image"], ["vector"])
    graph = onnx.helper.make_graph([node], "almost nothing", ports[:1], ports[1:])
    opsets = [onnx.helper.make_opsetid("", 18)]
    content = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    opened = session(content, 1, spinning=False)
    image = np.zeros(shape, np.float32)
    port = Port(name="image", shape=shape[1:])
    answers = Port(name="vector", shape=shape[1:])
    model = described(onnx.load_from_string(content)).model_copy(
        update={"reads": port, "answers": answers}
    )
    ours = open_onnx(model, "fp32", content, 1, "s.onnx")

    def bound() -> Array:
        binding = opened.io_binding()
        binding.bind_cpu_input("image", image)
        binding.bind_output("vector")
        opened.run_with_iobinding(binding)
        answer: Array = binding.copy_outputs_to_cpu()[0]
        return answer

    ways = {
        "ours, with its checks": lambda: ours.answer(image),
        "run": lambda: opened.run(("vector",), {"image": image}),
        "IO binding": bound,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(median(spent_ms(way, 2000)))
    return {name: 1000 * median(each) for name, each in found.items()}


def sharing(rounds: int, times: int) -> dict[str, tuple[float, float]]:
    """Return ms and ms of processor time per image, three models at once on two threads each."""
    content = student_model(STUDENT, random_images(64)).SerializeToString()
    image = np.zeros((1, 3, 32, 32), np.float32)
    found: dict[str, list[tuple[float, float]]] = {"spinning": [], "waiting": []}
    for _ in range(rounds):
        for name, each in found.items():
            opened = [session(content, 2, spinning=name == "spinning") for _ in range(3)]
            threads = [
                threading.Thread(
                    target=lambda one: spent_ms(lambda: one.run(None, {"image": image}), times),
                    args=(one,),
                )
                for one in opened
            ]
            began, busy = time.perf_counter(), time.process_time()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            images = 3 * times / 1000
            each.append(
                ((time.perf_counter() - began) / images, (time.process_time() - busy) / images)
            )
    return {
        name: (median(wall for wall, _ in each), median(busy for _, busy in each))
        for name, each in found.items()
    }


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything."""
    with ExitStack() as running:
        ways = engines(options, running)
        found = in_turns(ways, options.rounds, options.images)
    exact = ways[FIRST].answer
    return {
        "student": f"{STUDENT} + {FILTERS}, 3x32x32",
        "machine": {
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        "versions": {name: metadata.version(name) for name in ("onnxruntime", "ncnn", "pnnx")},
        "engines": {
            name: {
                "ms": median(found[name]),
                "ratio": median(
                    one / beside for one, beside in zip(found[name], found[FIRST], strict=True)
                ),
                "difference": float(np.abs(way.answer - exact).max() / np.abs(exact).max()),
                "size_bytes": way.size_bytes,
            }
            for name, way in ways.items()
        },
        "call_us": calls(options.rounds),
        "three_models_ms": sharing(options.rounds, options.images),
    }


def show(found: dict[str, Any]) -> None:
    """Print for people."""
    for title in ("student", "machine", "versions"):
        print(f"{title}: {found[title]}")
    for name, row in found["engines"].items():
        size = f"  {row['size_bytes']:>9,} bytes" if row["size_bytes"] is not None else ""
        print(
            f"{name:27} {row['ms']:8.2f} ms  {row['ratio']:6.2f} x  "
            f"differs by {row['difference']:.1e}{size}"
        )
    for name, us in found["call_us"].items():
        print(f"a call: {name:22} {us:6.1f} us")
    for name, (wall, busy) in found["three_models_ms"].items():
        print(f"three models, {name:9} {wall:6.2f} ms an image, {busy:6.2f} ms of processor time")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=40, help="in each round, of each engine")
    parser.add_argument("--tvm-python", help="interpreter that has apache-tvm")
    parser.add_argument("--trials", type=int, default=0, help="programs that TVM's tuner may try")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = report(options)
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        show(found)


if __name__ == "__main__":
    main()
