"""Networks of the package `strange`, as modules and as exported programs."""

from pathlib import Path

import pytest
import torch
from torch.export import export, save


def made(name):
    """The network of the package, in evaluation mode."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path.cwd())
        from strange import nets
    return getattr(nets, name)().eval()


def exported(name, path, count=4, batch=None, decomposed=False):
    program = export(
        made(name), (torch.zeros(count, 3, 8, 8),), dynamic_shapes=batch and ({0: batch},)
    )
    if decomposed:
        program = program.run_decompositions()
    save(program, path)
    return str(path)


def same_as(network, found, images):
    """Check that a loaded teacher answers as its network does, by its last layers too."""
    with torch.no_grad():
        logits, (maps,) = found(images)
        expected = network(images)
        expected = expected[0] if isinstance(expected, tuple) else expected
        expected_maps = network.maps(images)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(maps, expected_maps)
    torch.testing.assert_close(maps.mean((2, 3)) @ found.fc_weight.T + found.fc_bias, expected)
