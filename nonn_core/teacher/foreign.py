"""Foreign networks, made to answer as `nonn_core.networks.modules.Classifier` does.

They come from a package that can be imported, or from a file: see
`nonn_core.teacher.network_source`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from nonn_common.errors import InputError
from nonn_core.teacher.fconv import (
    REQUIRED,
    WRAP,
    Fconv,
    find_fconv,
    logits_node,
    nearly_equal,
    probe_graph,
    probe_modules,
    watch_outputs,
)
from nonn_core.teacher.inspection import CountedMacs, count_macs, peak_elements
from nonn_core.teacher.network_source import (
    PROGRAM_SUFFIX,
    as_input_error,
    import_network,
    read_program,
)

Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True)
class ForeignOutputs:
    """Outputs of a foreign network for N images.

    `logits` (N, classes), fconv's `maps` (N, filters, H, W), and `features` (N, filters): what
    the last linear layer read, the averages of the maps where nothing stands between.
    """

    logits: Tensor
    maps: Tensor
    features: Tensor


class ForeignClassifier(nn.Module):
    """A network that is not ours, its fconv, and its last layer.

    `fc_weight` (classes, filters) and `fc_bias` (classes,) are copies: the network's state does not
    hold them a second time.  `warnings` say what was changed or is not as it is usually.
    """

    fc_weight: Tensor
    fc_bias: Tensor

    def __init__(self, network: nn.Module, fconv: Fconv, warnings: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.fconv = fconv.name
        self.reads = fconv.reads
        self.warnings = warnings
        if fconv.maps.shape[2:].numel() == 1:
            self.warnings += (
                f"fconv {fconv.name} has one value for each filter, maps of 1x1: students learn "
                "from it without places",
            )
        self.register_buffer("fc_weight", fconv.weight.clone(), persistent=False)
        self.register_buffer("fc_bias", fconv.bias.clone(), persistent=False)

    def observe(self, images: Tensor) -> ForeignOutputs:
        """Run the network on images (N, C, H, W)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map images to logits and fconv's maps.

        (N, C, H, W) to (N, classes) and (N, filters, H', W').
        """
        seen = self.observe(images)
        return seen.logits, [seen.maps]

    @property
    def params(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def count_macs(self, example: Tensor) -> CountedMacs | None:
        """Count the MACs of one image, (1, C, H, W); None if untraceable."""
        return _or_none(lambda: count_macs(self.network, example))

    def peak_elements(self, example: Tensor) -> int | None:
        """Most elements alive at once for one image; None where the network cannot be traced."""
        return _or_none(lambda: peak_elements(self.network, example))


class HookedModule(ForeignClassifier):
    """A module, one of whose submodules gives fconv, and another one reads its averages."""

    def observe(self, images: Tensor) -> ForeignOutputs:
        """Run the network on images (N, C, H, W)."""
        seen: dict[str, Tensor] = {}
        read: list[Tensor] = []
        watched = {self.fconv: self.network.get_submodule(self.fconv)}
        last = self.network.get_submodule(self.reads)
        handle = last.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            with watch_outputs(watched, seen.__setitem__):
                answer = self.network(images)
        finally:
            handle.remove()
        return ForeignOutputs(logits_of(answer), seen[self.fconv], read[-1])


class ProgramWithFconv(ForeignClassifier):
    """An exported graph that also answers what two of its nodes give.

    A program that was exported for a fixed number of images is run on as many at a time, the last
    ones filled up.  Images come to it in the layout in which programs are usually exported.
    """

    def __init__(
        self, graph: fx.GraphModule, fconv: Fconv, batch: int | None, warnings: tuple[str, ...]
    ) -> None:
        super().__init__(_graph_with_fconv(graph, fconv), fconv, warnings)
        self.batch = batch

    def observe(self, images: Tensor) -> ForeignOutputs:
        """Run the network on images (N, C, H, W)."""
        images = images.contiguous()
        if self.batch is None:
            logits, maps, features = self.network(images)
        else:
            split = torch.split(images, self.batch)
            answers = zip(*(self.network(repeat_to(p, self.batch)) for p in split), strict=True)
            logits, maps, features = (torch.cat(each)[: len(images)] for each in answers)
        # Vectors are maps of 1x1.
        return ForeignOutputs(logits, maps if maps.dim() == 4 else maps[:, :, None, None], features)

    def count_macs(self, example: Tensor) -> CountedMacs | None:
        """Count the MACs of one image, (1, C, H, W); None if untraceable."""
        count = 1 if self.batch is None else self.batch
        found = _or_none(lambda: count_macs(self.network, repeat_to(example, count)))
        return found and replace(found, macs=found.macs // count)

    def peak_elements(self, example: Tensor) -> int | None:
        """Return None: an exported graph does not say which operations work in place."""
        del example
        return None


def load_foreign(
    reference: str, probe: Tensor, classes: int, fconv: str | None
) -> ForeignClassifier:
    """Read `package.module:callable` or a `.pt2` file, and find its fconv unless it is named.

    `probe` (N, C, H, W), N > 1, are images of the data set that it is for.  Raises InputError where
    it cannot be read or run, has no fconv, or does not answer `classes` logits for each image,
    whatever else is in the batch.
    """
    if Path(reference).suffix.lower() == PROGRAM_SUFFIX:
        found: ForeignClassifier = _program_with_fconv(
            read_program(Path(reference)), probe, fconv, reference
        )
    else:
        found = _hooked_module(import_network(reference), probe, fconv, reference)
    _check_answers(found.eval(), probe, classes, reference)
    return found


def logits_of(answer: object) -> Tensor:
    """Return the logits: what a network answers, or the first item of it; raises TypeError."""
    first = answer[0] if isinstance(answer, tuple | list) and answer else answer
    if not isinstance(first, Tensor):
        raise TypeError(f"answers {type(first).__name__}, not logits")
    return first


def repeat_to(images: Tensor, count: int) -> Tensor:
    """Return `count` images: these, and if they are fewer, the first ones again."""
    return images[torch.arange(count, device=images.device) % len(images)]


def _hooked_module(
    network: nn.Module, probe: Tensor, name: str | None, where: str
) -> ForeignClassifier:
    network, warnings = _in_float32(network)
    network = network.cpu().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with as_input_error(where, f"cannot be run on images {tuple(probe.shape)}"), torch.no_grad():
        answer, seen = probe_modules(network, probe)
        logits, again = logits_of(answer), logits_of(network(probe))
    _check_repeatable(logits, again, where)
    found = find_fconv(seen, logits, name, where)
    if found is not None:
        return HookedModule(network, found, warnings)
    # No module gives fconv; functions, which no hook sees, are nodes of the exported graph.
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with (
        as_input_error(where, f"{REQUIRED}; by no module, and it cannot be exported"),
        torch.no_grad(),
    ):
        program = torch.export.export(network, (probe,), dynamic_shapes=({0: Dim("batch")},))
    return _program_with_fconv(program, probe, name, where, warnings)


def _in_float32(network: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Widen or shorten the weights of a network to float32, in which images come."""
    values = (*network.parameters(), *network.buffers())
    kinds = sorted({str(one.dtype) for one in values if one.is_floating_point()})
    if kinds in ([], [str(torch.float32)]):
        return network, ()
    said = f"weights are {', '.join(kinds)}: the network was converted to float32"
    return network.float(), (said,)


def _program_with_fconv(
    program: ExportedProgram,
    probe: Tensor,
    name: str | None,
    where: str,
    warnings: tuple[str, ...] = (),
) -> ProgramWithFconv:
    graph = program.module()
    batch = _fixed_batch(graph, probe, where)
    images = probe if batch is None else repeat_to(probe, batch)
    with as_input_error(where, f"cannot be run on images {tuple(images.shape)}"), torch.no_grad():
        logits, seen = probe_graph(graph, images)
        again, _ = probe_graph(graph, images)
    _check_repeatable(logits, again, where)
    found = find_fconv(seen, logits, name, where)
    if found is None:
        raise InputError(REQUIRED, where=where, fix=WRAP)
    return ProgramWithFconv(graph, found, batch, warnings)


def _fixed_batch(graph: fx.GraphModule, probe: Tensor, where: str) -> int | None:
    """Return the number of images that a program takes at a time; None: any number.

    Raises InputError unless its only input is a batch of images of the probe's shape.
    """
    inputs = [node.meta.get("val") for node in graph.graph.find_nodes(op="placeholder")]
    shapes = [tuple(value.shape) if isinstance(value, Tensor) else () for value in inputs]
    kinds = {str(one.dtype) for one in inputs if isinstance(one, Tensor)} - {str(probe.dtype)}
    if kinds:
        raise InputError(
            "takes images of another number format",
            where=where,
            found=", ".join(sorted(kinds)),
            allowed=str(probe.dtype),
            fix="convert the network before it is exported: network.float()",
        )
    wanted = probe.shape[1:]
    if len(shapes) != 1 or not _accepts(shapes[0], wanted):
        raise InputError(
            "is not made for these images",
            where=where,
            found=shapes,
            allowed=f"one input, (images, {', '.join(map(str, wanted))})",
        )
    return shapes[0][0] if isinstance(shapes[0][0], int) else None


def _accepts(shape: tuple[int | torch.SymInt, ...], wanted: torch.Size) -> bool:
    """Whether an input of this shape takes such images.

    Symbols stand for any size.
    """
    return len(shape) == 4 and all(
        size == side for size, side in zip(shape[1:], wanted, strict=True) if isinstance(size, int)
    )


def _graph_with_fconv(graph: fx.GraphModule, fconv: Fconv) -> fx.GraphModule:
    """Copy a graph so that it answers logits, fconv's maps, and features."""
    copy = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    copy.graph_copy(graph.graph, copied)
    named = {node.name: node for node in copied}
    answers = (logits_node(graph), named[fconv.name], named[fconv.reads])
    copy.output(tuple(copied[node] for node in answers))
    for guard in copy.find_nodes(op="call_module"):
        # Guards compare with the shapes at the time of export; `_fixed_batch` has done that.
        copy.erase_node(guard)
    return fx.GraphModule(graph, copy)


def _check_repeatable(logits: Tensor, again: Tensor, where: str) -> None:
    """Raise InputError where the same images are answered differently, as dropout does."""
    if logits.isfinite().all() and not nearly_equal(again, logits):
        raise InputError(
            "the same images are answered differently each time: something in it is random",
            where=where,
            fix="write F.dropout(x, p, training=self.training), and put the network into "
            "evaluation mode (eval) before it is exported",
        )


def _check_answers(network: ForeignClassifier, probe: Tensor, classes: int, where: str) -> None:
    """Raise InputError unless each image is answered alone, with a logit for each class."""
    images = probe.contiguous(memory_format=torch.channels_last)
    with as_input_error(where, f"cannot be run on images {tuple(probe.shape)}"), torch.no_grad():
        logits, alone = network(images)[0], network(images[:1])[0]
    if logits.shape != (len(probe), classes):
        raise InputError(
            "is for another number of classes than the data set",
            where=where,
            found=tuple(logits.shape)[1:],
            allowed=str(classes),
        )
    if not nearly_equal(alone, logits[:1]):
        raise InputError(
            "an image is answered differently when other images are beside it",
            where=where,
            fix="put the network into evaluation mode (eval) before it is exported; it must have "
            "no random layers",
        )


def _or_none(measure: Callable[[], Measured]) -> Measured | None:
    try:
        return measure()
    except Exception:
        # Tracing raises whatever the network's own code raises when it meets a traced value.
        return None
