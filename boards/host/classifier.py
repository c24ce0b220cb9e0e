"""The FC layer on the host: logits from the features that came, zero where none did."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from boards.protocol.frames import Values
from nonn_core.bundle import BundledModel, Manifest, read_bundled
from profiles.errors import InputError


class Classifier:
    """The FC layer of a bundle."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Read the layer; raises InputError where the bundle has none or it is another one."""
        from safetensors.numpy import load

        if manifest.fc is None:
            raise InputError(
                "the bundle is of one network that answers by itself; there is nothing to join",
                where=str(folder),
                fix="export the run of a plan",
            )
        layer = load(read_bundled(folder, manifest.fc))
        self._weight: Values = layer["weight"]
        self._bias: Values = layer["bias"]

    def logits(
        self, images: int, students: tuple[BundledModel, ...], features: Mapping[str, Values]
    ) -> Values:
        """Return `(images, classes)`; students that are not in `features` count as zero."""
        joined = np.zeros((images, self._weight.shape[1]), dtype=np.float32)
        for student in students:
            if student.name in features and student.fc_offset is not None:
                end = student.fc_offset + len(student.filters)
                joined[:, student.fc_offset : end] = features[student.name]
        logits: Values = joined @ self._weight.T + self._bias
        return logits
