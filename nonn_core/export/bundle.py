"""Bundle: a folder with all that boards and host need, described by `manifest.json`.

Boards read bundles and compute with the models in them, so that this loads neither torch nor
onnx; an engine is loaded when a model is opened.
"""

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from nonn_common.document import Document, Record, write_atomic
from nonn_common.errors import InputError, NonnError
from nonn_core.data.picture import PictureReading
from nonn_core.firmware import CStudent
from nonn_core.networks.blueprint import Filters, ImageShapeText

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

MANIFEST = "manifest.json"

ModelPrecision = Literal["fp32", "int8"]
Int8Form = Literal["QOperator", "QDQ"]
Role = Literal["student", "head", "group0", "whole", "joint"]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9%._~-]*$")]


MOST_VALUES = 2**26
"""Values of one image or answer, of 4 bytes each: more is a mistake, and no board's memory."""


class BundledFile(Record):
    """One file of the bundle, its size and its digest."""

    file: FileName = Field(description="Name of the file in the bundle's folder.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of its content.")
    size_bytes: int = Field(gt=0, description="Its size.")


class ModelFile(BundledFile):
    """An ONNX model."""

    precision: ModelPrecision = Field(description="Of its weights and activations.")


class NcnnFiles(Record):
    """The same model for ncnn, in fp32: where onnxruntime has no wheel.

    ncnn has no batch: it reads `in0` and answers `out0`, of one image.
    """

    param: BundledFile = Field(description="Its layers, ncnn's param format.")
    weights: BundledFile = Field(description="Its weights, ncnn's bin format.")
    images: int = Field(gt=0, description="Test images on which both models were compared.")
    largest_difference: float = Field(
        ge=0,
        description="Of any value that it answers from the fp32 ONNX model's, in absolute value.",
    )
    largest_value: float = Field(
        ge=0, description="Of the fp32 ONNX model's answers, in absolute value."
    )


class Port(Record):
    """Input or output of a model, float32.

    The batch is the first axis.
    """

    name: str = Field(min_length=1, description="Name of the ONNX input or output.")
    shape: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        min_length=1, description="Sizes of the axes after the batch, which may be of any size."
    )

    @field_validator("shape")
    @classmethod
    def _is_possible(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if prod(shape) > MOST_VALUES:
            raise ValueError(f"{prod(shape)} values; up to {MOST_VALUES} are taken")
        return shape


class BundledModel(Record):
    """A model: what it is, what it reads and answers, and its files."""

    name: str = Field(
        min_length=1,
        description="Name of the student; or group0, or model; or students-of-BOARD of a joint "
        "model.",
    )
    role: Role = Field(
        description="student: image to vector; group0: image to G0's maps; head: these maps to a "
        "student's vector; whole: image to logits; joint: image to the vectors of several students "
        "of one board, which G0 computes once for."
    )
    network: str | None = Field(description="Its network; null for group0 and joint.")
    reads: Port = Field(description="Its input.")
    answers: Port = Field(description="Its output.")
    members: tuple[str, ...] = Field(
        default=(),
        description="Names of a joint model's students, in the order of their vectors in its "
        "answer; empty of any other.",
    )
    filters: Filters = Field(
        description="Ids of the teacher's filters that the vector's values stand for, in order; "
        "empty unless it answers one student's vector."
    )
    fc_offset: int | None = Field(
        ge=0,
        description="Where its vector begins in the input of FC; null unless it answers one "
        "student's vector.",
    )
    files: tuple[ModelFile, ...] = Field(min_length=1, description="One for each precision.")
    planned: ModelPrecision | None = Field(
        default=None,
        description="Precision that its plan counts on; null where it was exported without a plan.",
    )
    ncnn: NcnnFiles | None = Field(
        default=None, description="Its form for ncnn; null unless it was asked for."
    )
    c: CStudent | None = Field(default=None, description="Its C library; null unless asked for.")


class FcLayer(BundledFile):
    """FC layer that the host applies: logits = weight x vectors + bias.

    A safetensors file with `weight` (classes, inputs) and `bias` (classes), float32.  Where it
    imputes, `mean` (inputs) and `covariance` (inputs, inputs) of the vectors, too, by which those
    that are missing are told from those that came; else they count as zero.
    """

    inputs: int = Field(gt=0, description="Length of all vectors together.")
    classes: int = Field(gt=1, description="Number of logits.")
    imputes: bool = Field(
        default=False, description="Whether the file tells what vectors that are missing may be."
    )


class PixelScale(Record):
    """How the models normalise an image; they do it themselves.

    They read pixels as decoded, whole numbers from 0 to 255, and compute (pixel / 255 - mean) / std
    for each channel.
    """

    mean: tuple[float, ...] = Field(description="Of each channel, on a scale of 0 to 1.")
    std: tuple[float, ...] = Field(description="Of each channel, on a scale of 0 to 1.")


class Agreement(Record):
    """Exported models of one precision, beside the torch model.

    They are run together by onnxruntime.
    """

    precision: ModelPrecision = Field(description="Of the models.")
    images: int = Field(gt=0, description="Number of test images.")
    largest_difference: float = Field(ge=0, description="Of any logit, in absolute value.")
    largest_logit: float = Field(ge=0, description="Of the torch model, in absolute value.")
    label_agreement_pct: float = Field(
        ge=0, le=100, description="Images on which both name the same class, in percent."
    )
    accuracy_pct: float = Field(
        ge=0, le=100, description="Images whose class the exported models name, in percent."
    )


class Manifest(Document):
    """Describes a bundle."""

    data: str = Field(description="Data set of training and test images.")
    image: ImageShapeText = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    class_names: tuple[str, ...] = Field(description="Names of the classes, in order.")
    pixel_scale: PixelScale = Field(description="How the models normalise an image.")
    pictures: PictureReading | None = Field(
        default=None, description="How its data set's pictures became images; null without any."
    )
    models: tuple[BundledModel, ...] = Field(min_length=1, description="The models.")
    fc: FcLayer | None = Field(description="The FC layer; null if a model answers logits.")
    calibration_images: int | None = Field(
        description="Training images that gave the ranges of int8 activations; null without int8."
    )
    int8_form: Int8Form | None = Field(
        default=None,
        description="Form of int8 models: QOperator for workers; QDQ, with weights of 7 bits, for "
        "Triton and OpenVINO, too; null without int8, and in bundles made before there was QDQ.",
    )
    agreement: tuple[Agreement, ...] = Field(description="One row for each precision.")
    c_files: tuple[BundledFile, ...] = Field(
        default=(), description="C libraries of all students, and the kernels that they share."
    )
    c_agreement: Agreement | None = Field(
        default=None,
        description="Models that are int8 throughout, as C libraries are; null without these.",
    )
    opset: int = Field(gt=0, description="ONNX operator set of the models.")
    versions: dict[str, str] = Field(description="Versions of what made the bundle.")

    @model_validator(mode="after")
    def _files_differ(self) -> Self:
        names = [one.file for one in self.files()]
        if len({MANIFEST, *names}) <= len(names):
            raise ValueError("a file is named twice")
        return self

    @model_validator(mode="after")
    def _members_are_students(self) -> Self:
        students = {model.name: model for model in self.models if model.role == "student"}
        for model in self.models:
            if (model.role == "joint") != bool(model.members):
                raise ValueError(f"{model.name}: a joint model has members, and no other has")
            unknown = [name for name in model.members if name not in students]
            if unknown or len(set(model.members)) < len(model.members):
                raise ValueError(f"{model.name}: its members are students, each named once")
            widths = sum(len(students[name].filters) for name in model.members)
            if model.members and model.answers.shape != (widths,):
                raise ValueError(f"{model.name}: answers its members' {widths} values")
        return self

    def joint_models(self, students: Collection[str]) -> tuple[BundledModel, ...]:
        """Joint models by which a board runs these students, the largest first, none twice."""
        found: list[BundledModel] = []
        left = set(students)
        for model in sorted(self.models, key=lambda each: -len(each.members)):
            if model.members and left.issuperset(model.members):
                found.append(model)
                left.difference_update(model.members)
        return tuple(found)

    def files(self) -> Iterator[BundledFile]:
        """Yield every file but the manifest."""
        for model in self.models:
            yield from model.files
            if model.ncnn is not None:
                yield model.ncnn.param
                yield model.ncnn.weights
        yield from self.c_files
        if self.fc is not None:
            yield self.fc


def read_bundle(folder: Path) -> Manifest:
    """Read a bundle's manifest and check the digests of its files.

    Raises InputError naming the file that is missing or another one.
    """
    manifest = Manifest.read(folder / MANIFEST)
    for one in manifest.files():
        path = folder / one.file
        _check_hash(path, _sha256(path), one.sha256)
    return manifest


def read_bundled(folder: Path, one: BundledFile) -> bytes:
    """Read one file of a bundle, once, and check its digest.

    Raises InputError where it is missing, unreadable, no regular file, or another one.
    """
    path = folder / one.file
    try:
        _check_regular(path)
        with path.open("rb") as file:
            # No more than is needed to see that it is too long, whatever the manifest says.
            most = min(one.size_bytes, os.fstat(file.fileno()).st_size)
            content = file.read(most + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    _check_hash(path, content_hash(content), one.sha256)
    return content


def _check_regular(path: Path) -> None:
    """Refusal of what is no file: a pipe would be waited for.  Raises InputError."""
    if path.exists() and not path.is_file():
        raise InputError("is no regular file", where=str(path), fix="copy the bundle again")


def content_hash(content: bytes) -> str:
    """Return the SHA-256 of a file's content, as a manifest states it."""
    return hashlib.sha256(content).hexdigest()


def check_bundle_place(folder: Path) -> None:
    """Make sure, before any work, that a bundle may be written here.

    Raises InputError unless there is nothing, an empty folder, or a bundle and nothing else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError("is a file; a bundle is a folder", where=str(folder))
    found = {path.name for path in folder.iterdir()}
    if not found:
        return
    if MANIFEST not in found:
        raise InputError(
            "holds something else than a bundle and is not replaced",
            where=str(folder),
            found=min(found),
            fix="choose another output",
        )
    strangers = found - {MANIFEST} - {one.file for one in Manifest.read(folder / MANIFEST).files()}
    if strangers:
        raise InputError(
            "holds a file that is not the bundle's, so that it is not replaced",
            where=str(folder),
            found=min(strangers),
            fix="move the file, or choose another output",
        )


def write_bundle(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Write a bundle's files and its manifest, all of them or none.

    They are written under a temporary name, which then takes the place of the folder.  Raises
    NonnError where the system refuses; what was there before then stays.
    """
    # Through a link, to the folder that it names.
    target = folder.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as place:
            new, old = Path(place) / "new", Path(place) / "old"
            for name, content in contents.items():
                write_atomic(new / name, content)
            manifest.write(new / MANIFEST)
            _exchange(target, new, old)
    except OSError as error:
        raise NonnError(
            f"{folder}: could not be written: {error.strerror or error}; choose another place"
        ) from error


def _exchange(target: Path, new: Path, old: Path) -> None:
    """Move `target`, if any, to `old`, and `new` to `target`.

    A failure puts it back.
    """
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise


def _check_hash(path: Path, found: str, exported: str) -> None:
    if found != exported:
        raise InputError(
            "is not the file that was exported: its SHA-256 differs from the manifest's",
            where=str(path),
            found=found,
            allowed=exported,
            fix="export, or copy, the bundle again",
        )


def _sha256(path: Path) -> str:
    try:
        _check_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot be read: {error.strerror or error}",
        where=str(path),
        fix="export, or copy, the bundle again",
    )


ERRORS_ONLY = 3
"""onnxruntime's level of messages."""


def session_options(threads: int) -> "SessionOptions":
    """Options of onnxruntime for any model: silence, exact int8 sums, so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads
    # On x86 without VNNI, products of int8 are otherwise added in pairs in 16 bits, which saturate.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options
