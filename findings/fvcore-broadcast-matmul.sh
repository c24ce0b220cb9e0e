#!/usr/bin/env bash
# fvcore 0.1.5.post20221221: `FlopCountAnalysis` counts a broadcast matmul by its first operand alone.
#
# Behaviour: matmul of (5, 6) by (10, 6, 7) is ten products of 5 x 6 x 7 multiplications, 2,100.  fvcore
# says 210, with no warning; the same product with the first operand expanded to (10, 5, 6) is 2,100.
# Why: its handle multiplies the size of the first operand by the last side of the second, and never
# looks at the batch of the second.  What it costs: networks that apply one learned matrix to each image
# or head (position encodings, graph convolutions) are counted a batch too low.
#
# Seen: 210 and 2100, under torch 2.13.0.  Fails if that changes.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 fvcore==0.1.5.post20221221
counted="$("$work/venv/bin/python" -W ignore - <<'PY'
import torch
from fvcore.nn import FlopCountAnalysis


class Product(torch.nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(*shape))

    def forward(self, batch):
        return self.weight @ batch


for shape in ((5, 6), (10, 5, 6)):
    print(int(FlopCountAnalysis(Product(*shape), torch.ones(10, 6, 7)).total()))
PY
)"
echo "counted, broadcast and expanded:" $counted
test "$counted" = $'210\n2100'
