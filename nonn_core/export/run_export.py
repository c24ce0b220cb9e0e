"""Export of a run to a bundle: models, checked against torch, and a manifest.

The exported models, run together as boards and host would, are compared with the torch model
on the test images.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from nonn_common import Progress, silent
from nonn_common.errors import ExportError
from nonn_core.data.dataset import Dataset
from nonn_core.distillation.run import load_run
from nonn_core.export.bundle import (
    Agreement,
    BundledFile,
    BundledModel,
    FcLayer,
    Int8Form,
    Manifest,
    ModelFile,
    ModelPrecision,
    NcnnFiles,
    PixelScale,
    check_bundle_place,
    content_hash,
    write_bundle,
)
from nonn_core.export.deployment import (
    CHECK_IMAGES,
    NCNN_PACKAGES,
    NO_JOINT,
    DeployedModel,
    JointNames,
    Models,
    NcnnContent,
    check_ncnn_installed,
    deployed_models,
    ncnn_models,
    to_onnx,
)
from nonn_core.export.onnx_model import OPSET, Array, Inference, inference, quantise_int8
from nonn_core.feature_layer import FeatureLayer
from nonn_core.firmware import checked_library
from nonn_core.firmware.checked_library import CheckedLibrary, checked_libraries
from nonn_core.networks.modules import Nonn
from nonn_core.recipe import TrainingRecipe

CALIBRATION_IMAGES = 256
FC_FILE = "fc.safetensors"
TOLERANCE = 1e-3
"""Largest difference of an fp32 logit from torch's, beside the largest logit."""

VERSIONED = ("nonn-plan", "torch", "onnx", "onnxscript", "onnxruntime")

_SUFFIXES: dict[ModelPrecision, str] = {"fp32": ".onnx", "int8": ".int8.onnx"}
_NCNN_PARAM, _NCNN_WEIGHTS = ".ncnn.param", ".ncnn.bin"
_COMPARED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ExportedNetwork:
    """A network's parts, its FC layer if they answer vectors, and their models by precision.

    `ncnn` holds models for ncnn by the stem of their part, `c` C libraries; only if asked for.
    """

    parts: tuple[DeployedModel, ...]
    fc: FeatureLayer | None
    models: dict[ModelPrecision, Models]
    agreement: tuple[Agreement, ...]
    ncnn: dict[str, NcnnContent]
    c: dict[str, CheckedLibrary]
    c_agreement: Agreement | None


def export(
    run: Path,
    folder: Path,
    precisions: Collection[ModelPrecision],
    dataset: Dataset,
    progress: Progress = silent,
    *,
    planned: Mapping[str, ModelPrecision] = MappingProxyType({}),
    joint: JointNames = NO_JOINT,
    ncnn: bool = False,
    qdq: bool = False,
    c: bool = False,
) -> Manifest:
    """Write a finished run's bundle into `folder`, whole or not at all.

    `planned` is the precision that a plan counts on, by the name of the model; `joint` names the
    students that run as one model, beside a model of each.  `qdq` makes int8 models for other
    servers than our workers, too (`onnx_model.py:quantise_static`); `c` a C library for each.
    Raises InputError where the run is unfinished or damaged, where `folder` holds something else
    than a bundle, or where models for ncnn or in C cannot be made; ExportError where the fp32
    models do not compute what torch does, or others what they stand for.
    """
    check_bundle_place(folder)
    if ncnn:
        check_ncnn_installed()
    recipe, network = load_run(run, dataset)
    exported = exported_network(
        network, recipe, precisions, dataset, progress, joint=joint, ncnn=ncnn, qdq=qdq, c=c
    )
    contents = _contents(exported)
    manifest = _manifest(exported, contents, dataset, planned, "QDQ" if qdq else "QOperator")
    write_bundle(folder, manifest, contents)
    return manifest


def _contents(exported: ExportedNetwork) -> dict[str, bytes]:
    """Return the content of each file by its name."""
    contents = {
        file_name(part, precision): models[part.stem].SerializeToString(deterministic=True)
        for precision, models in exported.models.items()
        for part in exported.parts
    }
    for stem, content in exported.ncnn.items():
        contents[stem + _NCNN_PARAM] = content.param
        contents[stem + _NCNN_WEIGHTS] = content.weights
    contents |= checked_library.contents(exported.c.values())
    if exported.fc is not None:
        contents[FC_FILE] = save(exported.fc.tensors())
    return contents


def exported_network(
    network: nn.Module,
    recipe: TrainingRecipe,
    precisions: Collection[ModelPrecision],
    dataset: Dataset,
    progress: Progress = silent,
    *,
    joint: JointNames = NO_JOINT,
    ncnn: bool = False,
    qdq: bool = False,
    c: bool = False,
) -> ExportedNetwork:
    """Convert a trained network to ONNX models, and compare them.

    The comparison is made on the test images. int8 is calibrated on training images, the same for
    the same recipe.  Models for `ncnn` are made of the fp32 models and compared with them.  Raises
    ExportError where the fp32 models do not compute what torch does, or those for ncnn what the
    fp32 models do.
    """
    deployed = tuple(deployed_models(network, recipe, dataset, joint))
    if c:
        checked_library.check_parts(deployed)
    fc = network.feature_layer if isinstance(network, Nonn) else None
    models: dict[ModelPrecision, Models] = {}
    fp32 = dict(_fp32_models(deployed, progress))
    if "fp32" in precisions:
        models["fp32"] = fp32
    examples = _calibration_pixels(dataset, recipe.seed)
    if "int8" in precisions:
        models["int8"] = _int8_models(deployed, fp32, examples, progress, qdq)
    rows: tuple[Agreement, ...] = ()
    # What runs for itself is checked as well; what is reported is how the boards of a plan run.
    alone = tuple(part for part in deployed if not part.members)
    for parts in (alone, deployed) if joint else (deployed,):
        inferences = {
            precision: combined_inference(parts, each, fc) for precision, each in models.items()
        }
        rows = agreement(inferences, network, dataset, progress)
        for row in rows:
            if row.precision == "fp32":
                _check_agreement(row)
    for_ncnn = ncnn_models(deployed, fp32, _test_pixels(dataset), progress) if ncnn else {}
    libraries: dict[str, CheckedLibrary] = {}
    c_row: Agreement | None = None
    if c:
        libraries = checked_libraries(deployed, fp32, examples, _test_pixels(dataset), progress)
        in_c = {stem: each.model for stem, each in libraries.items()}
        run = combined_inference(alone, in_c, fc)
        (c_row,) = agreement({"int8": run}, network, dataset, progress)
    return ExportedNetwork(deployed, fc, models, rows, for_ncnn, libraries, c_row)


def file_name(part: DeployedModel, precision: ModelPrecision) -> str:
    """Return the name of a model's file."""
    return f"{part.stem}{_SUFFIXES[precision]}"


def _fp32_models(
    deployed: tuple[DeployedModel, ...], progress: Progress
) -> Iterator[tuple[str, onnx.ModelProto]]:
    for number, part in enumerate(deployed):
        progress("exporting", number, len(deployed))
        yield part.stem, to_onnx(part.module, part.example, part.reads.name, part.answers.name)


def _int8_models(
    deployed: tuple[DeployedModel, ...],
    fp32: Models,
    pixels: Array,
    progress: Progress,
    qdq: bool,
) -> Models:
    """Quantise each part on its own input.

    That is pixels, or the maps of a G0 that is int8 already.
    """
    models: dict[str, onnx.ModelProto] = {}
    examples = pixels
    for number, part in enumerate(deployed):
        progress("quantising", number, len(deployed))
        models[part.stem] = quantise_int8(fp32[part.stem], examples, qdq=qdq)
        if part.role == "group0":
            examples = inference(models[part.stem])(pixels)
    return models


def _calibration_pixels(dataset: Dataset, seed: int) -> Array:
    """Return some training images, (N, C, H, W)."""
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(seed))
    chosen: Array = dataset.train.take(order[:CALIBRATION_IMAGES]).pixels.float().numpy()
    return chosen


def _test_pixels(dataset: Dataset) -> Array:
    """Return the first test images, (N, C, H, W)."""
    chosen: Array = dataset.test.pixels[:CHECK_IMAGES].float().numpy()
    return chosen


def _check_agreement(fp32: Agreement) -> None:
    """Refuse models that do not compute what torch does."""
    if fp32.largest_difference > TOLERANCE * fp32.largest_logit:
        raise ExportError(
            f"the exported models differ from the trained network: a logit by "
            f"{fp32.largest_difference:.3g}, where the largest is {fp32.largest_logit:.3g}; "
            "nothing was written; report this with the recipe and the versions of torch, onnx and "
            "onnxruntime"
        )


def _manifest(
    exported: ExportedNetwork,
    contents: dict[str, bytes],
    dataset: Dataset,
    planned: Mapping[str, ModelPrecision],
    int8_form: Int8Form,
) -> Manifest:
    fc = exported.fc
    int8 = "int8" in exported.models
    return Manifest(
        data=dataset.source,
        image=str(dataset.image),
        class_names=dataset.class_names,
        pixel_scale=PixelScale(
            mean=tuple(dataset.mean.flatten().tolist()), std=tuple(dataset.std.flatten().tolist())
        ),
        pictures=dataset.reading,
        models=tuple(
            _described(part, exported, contents, planned.get((part.members or (part.name,))[0]))
            for part in exported.parts
        ),
        fc=None
        if fc is None
        else FcLayer(
            **_bundled(FC_FILE, contents[FC_FILE]).model_dump(),
            inputs=fc.weight.shape[1],
            classes=fc.weight.shape[0],
            imputes=fc.moments is not None,
        ),
        calibration_images=min(CALIBRATION_IMAGES, len(dataset.train)) if int8 else None,
        int8_form=int8_form if int8 else None,
        agreement=exported.agreement,
        c_files=tuple(
            _bundled(name, content)
            for name, content in contents.items()
            if name[-2:] in (".c", ".h")
        ),
        c_agreement=exported.c_agreement,
        opset=OPSET,
        versions={
            name: metadata.version(name)
            for name in VERSIONED + (NCNN_PACKAGES if exported.ncnn else ())
        },
    )


def _described(
    part: DeployedModel,
    exported: ExportedNetwork,
    contents: dict[str, bytes],
    planned: ModelPrecision | None,
) -> BundledModel:
    names = {precision: file_name(part, precision) for precision in exported.models}
    return BundledModel(
        name=part.name,
        role=part.role,
        network=part.network,
        reads=part.reads,
        answers=part.answers,
        filters=part.filters,
        fc_offset=part.fc_offset,
        members=part.members,
        files=tuple(
            ModelFile(precision=precision, **_bundled(name, contents[name]).model_dump())
            for precision, name in names.items()
        ),
        planned=planned,
        ncnn=_ncnn_files(part.stem, exported.ncnn[part.stem]) if exported.ncnn else None,
        c=exported.c[part.stem].entry if part.stem in exported.c else None,
    )


def _ncnn_files(stem: str, content: NcnnContent) -> NcnnFiles:
    return NcnnFiles(
        param=_bundled(stem + _NCNN_PARAM, content.param),
        weights=_bundled(stem + _NCNN_WEIGHTS, content.weights),
        images=content.images,
        largest_difference=content.largest_difference,
        largest_value=content.largest_value,
    )


def _bundled(name: str, content: bytes) -> BundledFile:
    return BundledFile(file=name, sha256=content_hash(content), size_bytes=len(content))


def combined_inference(
    parts: Sequence[DeployedModel], models: Models, fc: FeatureLayer | None
) -> Inference:
    """Function of all models together; joint ones answer in place of their members.

    It maps pixels (N, C, H, W) to logits (N, classes).
    """
    runs = {part.stem: inference(models[part.stem]) for part in parts}
    root = next((runs[part.stem] for part in parts if part.role == "group0"), None)
    widths = {part.name: len(part.filters) for part in parts if part.filters}
    joined = {name for part in parts for name in part.members}
    others = [part for part in parts if part.role != "group0" and part.name not in joined]

    def logits(pixels: Array) -> Array:
        shared = pixels if root is None else root(pixels)
        answers: dict[str, Array] = {}
        for part in others:
            answer = runs[part.stem](shared)
            ends = np.cumsum([widths[name] for name in part.members[:-1]], dtype=np.int64)
            vectors = np.split(answer, ends, axis=1)
            answers |= zip(part.members or (part.name,), vectors, strict=True)
        if fc is None:
            return next(iter(answers.values()))
        return fc.logits(np.concatenate([answers[name] for name in widths], axis=1))

    return logits


def agreement(
    exported: Mapping[ModelPrecision, Inference],
    network: nn.Module,
    dataset: Dataset,
    progress: Progress = silent,
) -> tuple[Agreement, ...]:
    """Compare exported models of each precision with a network on all test images.

    Nothing is chosen by the outcome: test images only judge.
    """
    images = dataset.test
    answers: dict[ModelPrecision, list[Array]] = {precision: [] for precision in exported}
    expected: list[Array] = []
    for start in range(0, len(images), _COMPARED_AT_ONCE):
        pixels = images.pixels[start : start + _COMPARED_AT_ONCE]
        with torch.no_grad():
            expected.append(network(dataset.normalised(pixels))[0].numpy())
        for precision, logits in exported.items():
            answers[precision].append(logits(pixels.float().numpy()))
        progress("checking", min(start + _COMPARED_AT_ONCE, len(images)), len(images))
    wanted, labels = np.concatenate(expected), images.labels.numpy()
    return tuple(
        _agreement_row(precision, np.concatenate(found), wanted, labels)
        for precision, found in answers.items()
    )


def _agreement_row(
    precision: ModelPrecision, found: Array, expected: Array, labels: NDArray[np.int64]
) -> Agreement:
    named = found.argmax(axis=1)
    return Agreement(
        precision=precision,
        images=len(labels),
        largest_difference=float(np.abs(found - expected).max()),
        largest_logit=float(np.abs(expected).max()),
        label_agreement_pct=100 * float(np.mean(named == expected.argmax(axis=1))),
        accuracy_pct=100 * float(np.mean(named == labels)),
    )
