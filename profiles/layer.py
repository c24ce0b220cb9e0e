"""A layer as hardware sees it: how much work it is, and the shapes of what it reads and writes.

What a model costs a device beyond its number of multiply-accumulates (MACs) is decided by these
figures, and where a model can be cut is decided by what is alive between two of them.  A *layer
table* holds a model's layers in the order in which they are executed, for one image.
"""

from dataclasses import dataclass
from typing import Literal

LayerKind = Literal["conv", "norm", "pool", "fc"]


@dataclass(frozen=True, slots=True)
class LayerWork:
    """One layer for one image.

    `macs` and `weights` are counted as in `nonn_core.costs`.  `kernel`, `stride` and `groups` are
    1 where a layer has none; a global pooling has a kernel and a stride of its maps' longer side.
    `side` marks a layer on a shortcut beside the main path.  `held_elements` are values of other
    branches that are alive after this layer, beside its own output: what is cut off here sends
    both.
    """

    name: str
    kind: LayerKind
    macs: int
    weights: int
    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    out_height: int
    out_width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    side: bool = False
    held_elements: int = 0

    @property
    def in_elements(self) -> int:
        """Values that the layer reads."""
        return self.in_channels * self.in_height * self.in_width

    @property
    def out_elements(self) -> int:
        """Values that the layer writes."""
        return self.out_channels * self.out_height * self.out_width


LayerTable = tuple[LayerWork, ...]
"""A model's layers in the order of execution."""
