"""What boards did, image by image, in the parts that a prediction has."""

from collections.abc import Callable, Sequence

import numpy as np

from boards.host.inference import Answer, BoardTiming


class Measured:
    """The answers of a closed loop, each with every student."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers

    @property
    def total_ms(self) -> list[float]:
        """From taking an image up to its logits."""
        return [answer.total_ms for answer in self._answers]

    @property
    def compute_ms(self) -> list[float]:
        """Time of the board that computed longest; of images of which all boards told theirs."""
        return [compute_ms for _, compute_ms in self._divided]

    @property
    def communication_ms(self) -> list[float]:
        """All the rest, waiting included; of the same images."""
        return [total_ms - compute_ms for total_ms, compute_ms in self._divided]

    @property
    def _divided(self) -> list[tuple[float, float]]:
        """The time of an image, and of the board that computed longest, where it is known."""
        divided = []
        for answer in self._answers:
            told = [each.computed_ms for each in answer.timings if each.computed_ms is not None]
            if told and len(told) == len(answer.timings):
                divided.append((answer.total_ms, max(told)))
        return divided

    @property
    def typical(self) -> Answer:
        """The answer whose total is the median's neighbour."""
        return sorted(self._answers, key=lambda answer: answer.total_ms)[len(self._answers) // 2]

    def of(self, board: str, figure: Callable[[BoardTiming], float | None]) -> list[float]:
        """Return one figure of a board, where it answered and told it."""
        found = (
            figure(timing)
            for answer in self._answers
            for timing in answer.timings
            if timing.board == board
        )
        return [each for each in found if each is not None]


def median(values: Sequence[float]) -> float | None:
    """Return the median; None without any value."""
    return float(np.median(values)) if values else None
