"""Wide residual networks (arXiv:1605.07146) as torch modules: the teacher, and parts of students.

Pre-activation blocks; convolutions without bias, 3x3 unless they change channels only.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nonn_core.family import STEM_CHANNELS, WrnSpec


class Block(nn.Module):
    """Norm, activation, convolution, twice, and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        projects = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        active = F.relu(self.norm1(maps))
        kept = maps if self.shortcut is None else self.shortcut(active)
        inner = F.relu(self.norm2(self.conv1(active)))
        return cast(Tensor, self.conv2(inner) + kept)


def group(spec: WrnSpec, index: int) -> nn.Sequential:
    """Build group 0, 1 or 2 of a network; groups 1 and 2 halve height and width."""
    channels = STEM_CHANNELS if index == 0 else spec.widths[index - 1]
    blocks = []
    for position in range(spec.blocks_per_group):
        stride = 2 if index > 0 and position == 0 else 1
        blocks.append(Block(channels, spec.widths[index], stride))
        channels = spec.widths[index]
    return nn.Sequential(*blocks)


def group0(spec: WrnSpec, image_channels: int) -> nn.Sequential:
    """Build G0: the stem and the first group, the part that students share."""
    stem = nn.Conv2d(image_channels, STEM_CHANNELS, 3, padding=1, bias=False)
    return nn.Sequential(stem, *group(spec, 0))


class Trunk(nn.Module):
    """What follows G0: groups 1 and 2, and the last normalisation and activation."""

    def __init__(self, spec: WrnSpec) -> None:
        super().__init__()
        self.groups = nn.Sequential(*group(spec, 1), *group(spec, 2))
        self.norm = nn.BatchNorm2d(spec.widths[2])

    def forward(self, maps: Tensor) -> Tensor:
        """Map G0's output (N, W1, H, W) to (N, W3, H / 4, W / 4), all values >= 0."""
        return F.relu(self.norm(self.groups(maps)))


class WideResNet(nn.Module):
    """A whole classifier.  Its fconv is the output of the trunk, after the activation."""

    def __init__(self, spec: WrnSpec, image_channels: int, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.group0 = group0(spec, image_channels)
        self.trunk = Trunk(spec)
        self.fc = nn.Linear(spec.widths[2], classes)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, C, H, W) to logits (N, classes) and fconv maps (N, W3, H/4, W/4)."""
        maps = self.trunk(self.group0(images))
        return self.fc(pooled(maps)), maps


def pooled(maps: Tensor) -> Tensor:
    """Average over height and width: (N, C, H, W) to (N, C)."""
    return F.adaptive_avg_pool2d(maps, 1).flatten(1)


def initialise(network: nn.Module) -> None:
    """Give convolutions He's normal initialisation (arXiv:1502.01852), fan-out mode."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def build_teacher(spec: WrnSpec, image_channels: int, classes: int, seed: int) -> WideResNet:
    """Build a classifier whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WideResNet(spec, image_channels, classes)
