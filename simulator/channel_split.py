"""Channel split: each of K boards computes 1/K of every layer's output channels.

The "split" rows of arXiv:1907.11804 (section 3: WRN40-4 on two x86 machines; Table 8: WRN40-2 on
Raspberry Pis under PyTorch).  Weights and multiply-accumulates (MACs) are shared out, but a
convolution reads all channels, so that after each convolution every board sends its share to every
other one.  Boards that are alike, on full-duplex links, take for one image::

    total = compute_fixed_ms + sum over layers of compute_ms_per_mmac * macs / K / 1e6
          + sum over convolutions of exchange_ms
                                   + (K - 1) * (peer_message_ms + wire_ms(output share))

An exchange begins when the last board has computed and holds all processors for `exchange_ms`, the
largest where boards differ; then messages go in K - 1 rounds, from each board b to b + r in round
r, each on its sender's and its receiver's link.  Values travel as fp32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from profiles.device import DeviceProfile, figure_of
from profiles.fleet import Board
from profiles.layer import LayerTable, LayerWork
from profiles.link import BYTES_PER_FEATURE
from simulator.hops import JobBuilder, cpu
from simulator.job import Job, Step
from simulator.pace import NO_EFFORT, Pace
from simulator.splitting import alive_bytes, check, receive_ms


def job(table: LayerTable, boards: Sequence[Board], host: DeviceProfile | None = None) -> Job:
    """Return what one image sets off.

    With a `host`, it sends the image to each board and joins their shares of the last layer's
    output; without, every board has the image, and the last one to compute ends it, as in the
    published measurements.  Raises SimulationError without a layer or a board, and ProfileError
    where a device lacks exchange_ms or peer_message_ms.
    """
    check(table, boards)
    build = JobBuilder(host)
    count = len(boards)
    paces = [Pace(board.device, table) for board in boards]
    waits: list[tuple[int, ...]] = [
        (build.send(board, alive_bytes(table, 0)),) if host else () for board in boards
    ]
    for position, layers in enumerate(_stretches(table)):
        computed: list[int] = []
        for number, (board, pace) in enumerate(zip(boards, paces, strict=True)):
            begin = NO_EFFORT if position else pace.begin
            shares = (share(layer, number, count) for layer in layers)
            effort = begin + pace.layers(each for each in shares if each is not None)
            computed.append(build.compute(board, after=waits[number], ms=effort.ms, mj=effort.mj))
        if layers[-1].kind == "conv" and count > 1:
            waits = _exchange(build, boards, layers[-1], computed)
        else:
            waits = [(each,) for each in computed]
    return _answer(build, table[-1], boards, host, waits)


def share(layer: LayerWork, board: int, boards: int) -> LayerWork | None:
    """Return the part of a layer that a board computes, or None where it has no output channel.

    Channels are shared out evenly; what does not divide goes to the first boards.  A layer whose
    channels do not mix, such as a normalisation, reads its own ones alone.
    """
    channels = channels_of(layer, board, boards)
    if not channels:
        return None
    apart = layer.kind in ("norm", "pool") or layer.groups == layer.in_channels > 1
    return replace(
        layer,
        macs=layer.macs * channels // layer.out_channels,
        weights=layer.weights * channels // layer.out_channels,
        in_channels=max(1, layer.in_channels * channels // layer.out_channels)
        if apart
        else layer.in_channels,
        out_channels=channels,
        groups=max(1, layer.groups * channels // layer.out_channels) if apart else layer.groups,
    )


def channels_of(layer: LayerWork, board: int, boards: int) -> int:
    """Return how many of a layer's output channels a board computes."""
    each, over = divmod(layer.out_channels, boards)
    return each + (board < over)


def _stretches(table: LayerTable) -> Iterator[tuple[LayerWork, ...]]:
    """Yield the layers between two exchanges; each stretch but the last ends in a convolution."""
    layers: list[LayerWork] = []
    for layer in table:
        layers.append(layer)
        if layer.kind == "conv":
            yield tuple(layers)
            layers = []
    if layers:
        yield tuple(layers)


def _exchange(
    build: JobBuilder, boards: Sequence[Board], layer: LayerWork, computed: Sequence[int]
) -> list[tuple[int, ...]]:
    """Add one all-to-all exchange of `layer`; return what each board then waits for."""
    count = len(boards)
    software_ms = max(figure_of(board.device, "exchange_ms") for board in boards)
    processors = tuple(map(cpu, boards))
    meet = build.add(
        Step(boards[0].name, "exchange", processors, software_ms, after=tuple(computed))
    )
    waits: list[list[int]] = [[meet] for _ in boards]
    area = layer.out_height * layer.out_width
    for distance in range(1, count):
        for number, sender in enumerate(boards):
            size_bytes = BYTES_PER_FEATURE * area * channels_of(layer, number, count)
            other = (number + distance) % count
            if size_bytes:
                message_ms = figure_of(sender.device, "peer_message_ms")
                message = build.exchange(
                    sender, boards[other], size_bytes, (meet,), message_ms=message_ms
                )
                waits[number].append(message)
                waits[other].append(message)
    return [tuple(each) for each in waits]


def _answer(
    build: JobBuilder,
    layer: LayerWork,
    boards: Sequence[Board],
    host: DeviceProfile | None,
    waits: Sequence[tuple[int, ...]],
) -> Job:
    """End the image where every board has its share of the last layer, or where the host has."""
    if host is None:
        build.join(sorted({index for each in waits for index in each}), ms=0.0)
        return build.job()
    replies = []
    for number, (board, wait) in enumerate(zip(boards, waits, strict=True)):
        channels = channels_of(layer, number, len(boards))
        if channels:
            size_bytes = BYTES_PER_FEATURE * channels * layer.out_height * layer.out_width
            replies.append(build.reply(board, size_bytes, wait))
    build.join(replies, ms=receive_ms(host))
    return build.job()
