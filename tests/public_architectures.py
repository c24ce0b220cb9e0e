"""Six public architectures, small, with the last layers that their authors gave them.

Each has `maps`, which returns what is averaged over height and width, and `head`, the rest.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.build()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                # As after training: no normalisation is the identity.
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.maps(images))

    def maps(self, images: Tensor) -> Tensor:
        return self.features(images)

    def head(self, maps: Tensor) -> Tensor:
        return self.classifier(self.avgpool(maps).flatten(1))


def conv(inputs, outputs, kernel=1, act=nn.SiLU, stride=1, groups=1):
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), act())


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, act, gate):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)
        self.act, self.gate = act(), gate()

    def forward(self, x):
        return x * self.gate(self.fc2(self.act(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


def inverted(inputs, outputs, act, gate):
    """Expand, depthwise, squeeze and excite, project without an activation."""
    middle = 2 * inputs
    squeeze = SqueezeExcitation(middle, nn.ReLU, gate)
    return nn.Sequential(
        conv(inputs, middle, 1, act),
        conv(middle, middle, 3, act, 2, middle),
        squeeze,
        conv(middle, outputs, 1, nn.Identity),
    )


class EfficientNet(Network):
    """Tan and Le 2019: SiLU ends the maps."""

    def build(self):
        self.features = nn.Sequential(
            conv(3, 6, 3), inverted(6, 8, nn.SiLU, nn.Sigmoid), conv(8, 12)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2, inplace=True), nn.Linear(12, 3))


class MobileNetV3(Network):
    """Howard et al. 2019, as torchvision has it: a hidden layer stands behind the averages."""

    def build(self):
        act = nn.Hardswish
        self.features = nn.Sequential(
            conv(3, 6, 3, act), inverted(6, 8, act, nn.Hardsigmoid), conv(8, 9, 1, act)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(9, 14),
            nn.Hardswish(inplace=True),
            nn.Dropout(0.2, inplace=True),
            nn.Linear(14, 3),
        )


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = (
            nn.Linear(channels, 2 * channels),
            nn.Linear(2 * channels, channels),
        )
        self.scale = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x):
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.scale * self.narrow(F.gelu(self.wide(inner))).permute(0, 3, 1, 2)


class ConvNext(Network):
    """Liu et al. 2022: the averages are normalised before the last layer."""

    def build(self):
        self.features = nn.Sequential(
            nn.Conv2d(3, 10, 2, 2), LayerNorm2d(10, eps=1e-6), ConvNextBlock(10)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(LayerNorm2d(10, eps=1e-6), nn.Flatten(1), nn.Linear(10, 3))

    def head(self, maps):
        return self.classifier(self.avgpool(maps))


class Window(nn.Module):
    """A block of Swin, its window being all places."""

    def __init__(self, channels):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.GELU())

    def forward(self, x):
        rows = x.flatten(1, 2)
        query, key, value = self.qkv(self.norm1(rows)).chunk(3, -1)
        rows = rows + self.proj(F.scaled_dot_product_attention(query, key, value))
        return (rows + self.mlp(self.norm2(rows))).reshape(x.shape)


class Swin(Network):
    """Liu et al. 2021: channels are last, and normalised, until the maps are averaged."""

    def build(self):
        self.patches, self.block = nn.Conv2d(3, 8, 2, 2), Window(8)
        self.norm = nn.LayerNorm(8)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8, 3)

    def maps(self, images):
        return self.norm(self.block(self.patches(images).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class DenseNet(Network):
    """Huang et al. 2017: the last ReLU is a function."""

    def build(self):
        self.first = nn.Conv2d(3, 6, 3, 2, 1)
        self.dense = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, 1, 1))
        self.norm = nn.BatchNorm2d(10)
        self.classifier = nn.Linear(10, 3)

    def maps(self, images):
        first = self.first(images)
        return F.relu(self.norm(torch.cat([first, self.dense(first)], 1)), inplace=True)

    def head(self, maps):
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(maps, (1, 1)), 1))


class ShuffleNetV2(Network):
    """Ma et al. 2018: halves of the channels are shuffled; `mean` averages."""

    def build(self):
        self.first = conv(3, 8, 3, nn.ReLU, 2)
        self.branch = conv(4, 4, 3, nn.ReLU)
        self.last = conv(8, 12, 1, nn.ReLU)
        self.classifier = nn.Linear(12, 3)

    def maps(self, images):
        kept, changed = self.first(images).chunk(2, 1)
        return self.last(F.channel_shuffle(torch.cat([kept, self.branch(changed)], 1), 2))

    def head(self, maps):
        return self.classifier(maps.mean([2, 3]))
