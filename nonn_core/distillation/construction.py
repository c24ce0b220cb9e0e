"""Construction of a recipe's networks and objectives, and fake quantisation.

While a network is fake-quantised (quantisation-aware training, arXiv:1712.05877), its
convolutions use weights rounded to int8 with one scale for each output channel, and
activations are rounded to uint8 with one scale for each tensor, where
`nonn_core.export.onnx_model` will round them.  Gradients pass through the rounding.  A
convolution's rounding commutes with the normalisation after it, which is folded into it on
export, because that multiplies whole output channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nonn_core.distillation.loop import Objective, learning_rate
from nonn_core.distillation.losses import (
    attention_distillation,
    group_assignment,
    nonn_distillation,
    single_distillation,
)
from nonn_core.distillation.splitnet import SoftSplitNet, SplitNet, build_splitnet
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.group_layout import group_layout
from nonn_core.networks.modules import (
    Classifier,
    Nonn,
    ResidualBlock,
    StudentShape,
    build_classifier,
    build_nonn,
)
from nonn_core.recipe import NonnRecipe, OptimiserRecipe, SplitNetRecipe, TrainingRecipe
from nonn_core.teacher.teacher import TargetSpec

Network = Nonn | Classifier | SplitNet
"""Network that a finished run leaves."""


@dataclass(frozen=True, slots=True)
class AssignmentPhase:
    """First phase of a SplitNet's training, which assigns channels and classes to groups.

    It looks at labels alone; `remaining` are the epochs after the cut.
    """

    network: SoftSplitNet
    objective: Objective
    optimiser: OptimiserRecipe
    remaining: OptimiserRecipe

    @classmethod
    def of(cls, recipe: TrainingRecipe, model: SplitNetRecipe, classes: int, batches: int) -> Self:
        """Phase of a recipe whose epochs have so many batches."""
        channels = ImageShape.parse(recipe.image).channels
        optimiser, remaining = _split_epochs(recipe.optimiser, model.assignment_share)
        network = SoftSplitNet(
            build_classifier(model.spec, channels, classes, recipe.seed),
            group_layout(model.spec, channels, classes, model.groups),
            _total_step(optimiser, batches),
            recipe.seed,
        )
        return cls(network, group_assignment(network, model), optimiser, remaining)


def build_network(recipe: TrainingRecipe, classes: int) -> Network:
    """Build the untrained network of a recipe; its weights depend on the recipe's seed alone."""
    channels, seed = ImageShape.parse(recipe.image).channels, recipe.seed
    match recipe.model:
        case NonnRecipe() as model:
            shapes = [StudentShape(s.spec, len(s.filters)) for s in model.students]
            return build_nonn(shapes, channels, classes, seed, model.group0 != "separate")
        case SplitNetRecipe() as model:
            return build_splitnet(model.spec, channels, classes, model.groups, seed)
        case model:
            return build_classifier(model.spec, channels, classes, seed)


def objective_of(network: Network, recipe: TrainingRecipe) -> Objective:
    """Objective of a recipe's network."""
    losses = recipe.distillation
    if isinstance(network, Nonn):
        return nonn_distillation(network, losses)
    if isinstance(network, Classifier) and losses.attention:
        return attention_distillation(network, losses)
    return single_distillation(network, losses)


def target_spec_of(recipe: TrainingRecipe) -> TargetSpec:
    """Teacher outputs that the losses of a recipe look at."""
    losses = recipe.distillation
    if isinstance(recipe.model, NonnRecipe):
        transferred = losses.beta or losses.attention
        students = recipe.model.students if transferred else ()
        return TargetSpec(tuple(student.filters for student in students))
    return TargetSpec(attention=losses.attention > 0)


def _split_epochs(
    optimiser: OptimiserRecipe, share: float
) -> tuple[OptimiserRecipe, OptimiserRecipe]:
    """Part the epochs in two, at least one each."""
    first = min(max(1, round(optimiser.epochs * share)), optimiser.epochs - 1)
    return (
        optimiser.model_copy(update={"epochs": first}),
        optimiser.model_copy(update={"epochs": optimiser.epochs - first}),
    )


def _total_step(optimiser: OptimiserRecipe, batches: int) -> float:
    """Return how far all steps together can carry a weight under a gradient of one."""
    steps = optimiser.epochs * batches
    rates = (learning_rate(optimiser, step, steps) for step in range(steps))
    return sum(rates) / (1 - optimiser.momentum)


WEIGHT_LEVELS, ACTIVATION_LEVELS = 127, 255
RANGE_MOMENTUM = 0.05
"""Weight of the newest batch in the running range of an activation."""

_ROUNDER = "rounder"
_SMALLEST = 1e-12
_CONTINUED = (nn.BatchNorm2d, nn.ReLU, nn.Hardtanh)
_OPERATIONS = (nn.Conv2d, *_CONTINUED)


class RoundedWeights(nn.Module):
    """Rounding of weights (outputs, ...) to 2 x 127 + 1 levels per output.

    The levels are symmetric around zero.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """Round."""
        scale = weight.detach().abs().flatten(1).amax(dim=1).clamp_min(_SMALLEST) / WEIGHT_LEVELS
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zero, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
        )


class RoundedActivations(nn.Module):
    """Rounds activations to 256 levels between a low and a high that follow training batches."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """Round, after learning the range from this batch if training."""
        if self.training:
            self._follow(maps.detach())
        scale = ((self.high - self.low) / ACTIVATION_LEVELS).clamp_min(_SMALLEST)
        zero = (-self.low / scale).round().to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(
            maps.float(), scale, zero, 0, ACTIVATION_LEVELS
        )

    def _follow(self, maps: Tensor) -> None:
        """Move the range towards this batch's; the range holds zero, which must be exact."""
        low, high = (value.float() for value in torch.aminmax(maps))
        # A range of zero has seen no batch yet.
        step = torch.where(self.high > self.low, RANGE_MOMENTUM, 1.0)
        self.low.lerp_(low.clamp_max(0), step)
        self.high.lerp_(high.clamp_min(0), step)


def fine_tuning_recipe(
    recipe: TrainingRecipe, run: Path, epochs: int, learning_rate: float
) -> TrainingRecipe:
    """Recipe that goes on from a finished run, rounding as int8 will.

    Raises InputError for impossible epochs or rates.
    """
    rates = {"epochs": epochs, "learning_rate": learning_rate}
    changed = {
        "optimiser": {**recipe.optimiser.model_dump(), **rates},
        "start": str(run),
        "fake_quantised": True,
    }
    return TrainingRecipe.check({**recipe.model_dump(), **changed}, where="fine-tuning")


@contextmanager
def fake_quantised(network: nn.Module) -> Iterator[None]:
    """Round weights and activations of a network inside the context; its own weights come back."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    rounded = list(_rounded_modules(network))
    for convolution in convolutions:
        parametrize.register_parametrization(convolution, "weight", RoundedWeights())
    hooks = []
    for module in rounded:
        module.add_module(_ROUNDER, RoundedActivations())
        hooks.append(module.register_forward_hook(_round_output))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in rounded:
            delattr(module, _ROUNDER)
        for convolution in convolutions:
            parametrize.remove_parametrizations(convolution, "weight", leave_parametrized=False)


def _rounded_modules(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose outputs are stored as uint8 on a board.

    A convolution with the normalisation and activation that follow it is one operation there.
    """
    for module in network.modules():
        if isinstance(module, ResidualBlock) and not module.after:
            yield module
        if isinstance(module, nn.Sequential):
            for child, following in pairwise([*module, None]):
                if isinstance(child, _OPERATIONS) and not isinstance(following, _CONTINUED):
                    yield child


def _round_output(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    del inputs
    rounder = module.get_submodule(_ROUNDER)
    rounded: Tensor = rounder(output)
    return rounded
