import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import build_classifier, build_nonn
from nonn_core.networks.network_cost import group0_cost, student_cost, teacher_cost
from nonn_core.teacher.inspection import count_macs, measured_cost


class Residual(nn.Module):
    """conv(relu(x)) + x: the input stays alive beside the activation and the output."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)

    def forward(self, maps):
        return self.conv(F.relu(maps)) + maps


class Chain(nn.Module):
    """conv(relu(conv(x))): nothing is needed twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.second = nn.Conv2d(3, 1, 1, bias=False)

    def forward(self, maps):
        return self.second(F.relu(self.first(maps)))


def test_a_residual_by_hand():
    cost = measured_cost(Residual(), ImageShape(2, 4, 5))
    assert cost.params == 2 * 2 * 9
    assert cost.macs == 2 * 2 * 9 * 20
    assert cost.peak_elements == 3 * 2 * 20


def test_a_chain_by_hand():
    cost = measured_cost(Chain(), ImageShape(2, 4, 5))
    assert cost.params == 2 * 3 * 9 + 3 * 1
    assert cost.macs == (2 * 3 * 9 + 3 * 1) * 20
    assert cost.peak_elements == (2 + 3) * 20


@pytest.mark.parametrize("image", [ImageShape(3, 8, 8), ImageShape(1, 9, 6)])
def test_g0_alone_and_a_nonn_s_students_cost_what_the_closed_form_says(two_shapes, image):
    network = build_nonn(two_shapes, image.channels, 3, seed=0)
    assert measured_cost(network.group0[0], image) == group0_cost(two_shapes[0].spec, image)
    for shape, student in zip(two_shapes, network.deployed(), strict=True):
        assert measured_cost(student, image) == student_cost(shape.spec, image, shape.filters)


def test_measuring_changes_nothing():
    network = build_classifier(parse_network("wrn10:4,4,4"), 3, 3, seed=0)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measured = measured_cost(network, ImageShape(3, 8, 8))
    assert measured == teacher_cost(network.spec, ImageShape(3, 8, 8), 3)
    assert network.training
    assert all(module.training for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


class Attention(nn.Module):
    """Self-attention of 6 channels in 2 heads over the places of an image, as torch has it."""

    def __init__(self, need_weights):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.need_weights = need_weights

    def forward(self, maps):
        rows = maps.flatten(2).mT
        return self.attention(rows, rows, rows, need_weights=self.need_weights)[0]


class Recurrent(nn.Module):
    def __init__(self, layer, packed=False):
        super().__init__()
        self.layer, self.packed = layer, packed

    def forward(self, maps):
        rows = maps.flatten(2).mT
        if self.packed:
            rows = nn.utils.rnn.pack_padded_sequence(rows, torch.tensor([20]), batch_first=True)
        return self.layer(rows)[0]


class Cells(nn.Module):
    """A step of each recurrent cell, on the channels of the first place."""

    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(6, 5), nn.GRUCell(6, 5), nn.RNNCell(6, 5)])

    def forward(self, maps):
        lstm, gru, rnn = (cell(maps[:, :, 0, 0]) for cell in self.cells)
        return lstm[0] + gru + rnn


class OneMatrix(nn.Module):
    """A product whose first operand is broadcast."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 4))

    def forward(self, maps):
        return self.weight @ maps


PLACES = 20
"""4 x 5 places of 6 channels."""


@pytest.mark.parametrize(
    ("module", "macs"),
    [
        # Q, K, V and the projection; then Q K^T and the weighted sum of V, all heads together.
        (Attention(need_weights=False), 4 * 6 * 6 * PLACES + 2 * PLACES * PLACES * 6),
        (Attention(need_weights=True), 4 * 6 * 6 * PLACES + 2 * PLACES * PLACES * 6),
        # Four gates, each of the inputs and of the state; a second layer; both directions.
        (Recurrent(nn.LSTM(6, 5, batch_first=True)), PLACES * 4 * 5 * (6 + 5)),
        (Recurrent(nn.LSTM(6, 5, 2, batch_first=True)), PLACES * 4 * 5 * (6 + 5 + 5 + 5)),
        (
            Recurrent(nn.GRU(6, 5, batch_first=True, bidirectional=True)),
            2 * PLACES * 3 * 5 * (6 + 5),
        ),
        (Recurrent(nn.RNN(6, 5, batch_first=True)), PLACES * 5 * (6 + 5)),
        (Recurrent(nn.LSTM(6, 5, batch_first=True), packed=True), PLACES * 4 * 5 * (6 + 5)),
        (Recurrent(nn.LSTM(6, 5, batch_first=True, proj_size=3)), PLACES * (20 * (6 + 3) + 15)),
        (Cells(), (4 + 3 + 1) * 5 * (6 + 5)),
        (nn.Conv2d(6, 7, 3, padding="same"), 6 * 7 * 9 * PLACES),
        # One matrix for each of the six channels: five rows of four by five columns.
        (OneMatrix(), 6 * 5 * 4 * 5),
    ],
)
def test_what_attention_and_recurrent_layers_multiply_is_counted(module, macs):
    counted = count_macs(module.eval().requires_grad_(False), torch.ones(1, 6, 4, 5))
    assert (counted.macs, counted.uncounted) == (macs, ())


def test_a_transformer_layer_is_looked_into():
    """Attention, and two linear layers; two normalisations of fvcore's 5 per element."""
    layer = nn.TransformerEncoderLayer(6, 2, 7, batch_first=True)
    counted = count_macs(layer.eval().requires_grad_(False), torch.ones(1, PLACES, 6))
    attention = 4 * 6 * 6 * PLACES + 2 * PLACES * PLACES * 6
    assert counted.macs == attention + 2 * 6 * 7 * PLACES + 2 * 5 * 6 * PLACES
    assert counted.uncounted == ()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_, maps):
        return maps @ maps.mT

    @staticmethod
    def backward(_, gradient):
        return gradient


class Strange(nn.Module):
    """Distances between places, and a function of the user's own."""

    def forward(self, maps):
        return torch.cdist(maps[:, 0], maps[:, 1]).sum() + Doubled.apply(maps).mean()


def test_operators_that_nobody_counts_are_named():
    counted = count_macs(Strange(), torch.ones(1, 6, 4, 5))
    assert (counted.macs, counted.uncounted) == (0, ("cdist", "prim::PythonOp.Doubled"))


def test_what_multiplies_nothing_is_not_named():
    class Harmless(nn.Module):
        def forward(self, maps):
            maps = F.silu(F.hardswish(F.gelu(maps))) * F.hardsigmoid(maps)
            maps = F.max_pool2d(F.pad(maps, (1, 1, 1, 1), mode="reflect"), 2)
            maps = F.channel_shuffle(F.dropout(maps, 0.5, self.training), 2).roll(1, 3)
            maps = maps + torch.zeros_like(maps).fill_(2.0)
            return maps.flatten(1).softmax(1).topk(3)[0].cumsum(1).std() + maps.amax((2, 3)).norm()

    assert count_macs(Harmless().eval(), torch.ones(1, 6, 4, 5)).uncounted == ()
