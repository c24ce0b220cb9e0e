"""Blueprints as torch modules, and whole classifiers made of them."""

import os
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nonn_core.blueprint import Conv, MaxPool, Norm, Op, Ops, Relu, Residual
from nonn_core.family import NetworkSpec

# Where a processor has AVX2 and no AVX-512, the kernels that oneDNN picks for gradients of a few
# channels damage the heap (docs/decisions/0029).  Read by oneDNN when it first computes.
if torch.backends.cpu.get_cpu_capability() == "AVX2":
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX")


class ResidualBlock(nn.Module):
    """What `blueprint.Residual` describes."""

    def __init__(self, op: Residual) -> None:
        super().__init__()
        self.before = sequence(op.before)
        self.body = sequence(op.body)
        self.shortcut = sequence(op.shortcut) if op.shortcut else None
        self.after = sequence(op.after)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        active = self.before(maps)
        kept = maps if self.shortcut is None else self.shortcut(active)
        return cast(Tensor, self.after(self.body(active) + kept))


class Classifier(nn.Module):
    """A whole network: G0, stages, average pool, FC layer.

    Its fconv is the output of `trunk`, after the last activation.
    """

    def __init__(self, spec: NetworkSpec, image_channels: int, classes: int) -> None:
        super().__init__()
        self.spec = spec
        blueprint = spec.blueprint(image_channels)
        self.group0 = sequence(blueprint.group0)
        stages = [sequence(ops) for ops in blueprint.stages]
        self.trunk = nn.Sequential(*stages, *([sequence(blueprint.tail)] if blueprint.tail else []))
        self.fc = nn.Linear(blueprint.features, classes)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images (N, C, H, W) to logits (N, classes) and the maps after each stage.

        G0's maps come first, fconv's (N, features, H', W') last.
        """
        maps = [self.group0(images)]
        for stage in self.trunk:
            maps.append(stage(maps[-1]))
        return self.fc(pooled(maps[-1])), maps


def sequence(ops: Ops) -> nn.Sequential:
    """Build operations in a row."""
    return nn.Sequential(*(_module(op) for op in ops))


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


def build_classifier(spec: NetworkSpec, image_channels: int, classes: int, seed: int) -> Classifier:
    """Build a classifier whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(spec, image_channels, classes)


def _module(op: Op) -> nn.Module:
    match op:
        case Conv(inputs, outputs, kernel, stride, groups):
            return nn.Conv2d(
                inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
            )
        case Norm(channels):
            return nn.BatchNorm2d(channels)
        case Relu(ceiling):
            return nn.ReLU() if ceiling is None else nn.Hardtanh(0.0, ceiling)
        case MaxPool(kernel):
            return nn.MaxPool2d(kernel, 2, (kernel - 1) // 2)
        case Residual():
            return ResidualBlock(op)
