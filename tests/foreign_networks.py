"""Networks of users, written in each way that teachers come in, and some that cannot teach."""

import torch
from torch import nn
from torch.nn import functional as F

CONSTANT = 3


class Net(nn.Module):
    """conv, relu, conv, `after`, pool, dropout, fc; what differs is told by the arguments."""

    def __init__(self, after=None, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.after = after
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, classes)

    def maps(self, images):
        maps = self.last(self.relu(self.norm(self.conv(images))))
        return F.relu(maps) if self.after is None else self.after(maps)

    def pooled(self, images):
        return self.drop(self.pool(self.maps(images)).flatten(1))

    def forward(self, images):
        return self.fc(self.pooled(images))


class Block(nn.Module):
    """As torchvision writes it: one ReLU, in place, for two activations."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer1 = nn.Sequential(Block(3, 5))
        self.layer2 = nn.Sequential(Block(5, 7))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(7, 3)

    def forward(self, x):
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(x))), 1))


class InSteps(Net):
    """2x2 averages first, then their average: smaller maps with the same averages."""

    def __init__(self):
        super().__init__(nn.ReLU())
        self.pool = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1))


class Tuple(Net):
    def forward(self, images):
        maps = self.maps(images)
        return self.fc(self.pool(maps).flatten(1)), maps


class Functional(Net):
    """No module but convolutions; no Linear either."""

    def forward(self, images):
        return F.linear(self.maps(images).mean((2, 3)), self.fc.weight)


class Listless(Net):
    def forward(self, images):
        return {"logits": super().forward(images)}


class LogSoftmax(Net):
    def forward(self, images):
        return super().forward(images).log_softmax(1)


class Softmax(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)


class MaskedRelu(Net):
    """ReLU by hand: the mask is a boolean tensor of the maps' shape."""

    def maps(self, images):
        maps = self.last(self.relu(self.norm(self.conv(images))))
        return maps * (maps > 0)


class Indexed(Net):
    """A pooling on the way that also gives indices, integers of four dimensions."""

    def maps(self, images):
        pooled, places = F.max_pool2d(self.conv(images), 2, return_indices=True)
        return F.relu(pooled.repeat(1, 2, 1, 1)[:, :8]) * (1 + (places[:, :1] % 2))


class MaximumPool(Net):
    """The maxima of the maps, not their averages, are what the last layer reads."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)


class Rounded(Net):
    """Answers whole numbers."""

    def forward(self, images):
        return super().forward(images).round().long()


class FunctionalDropout(Net):
    """The usual slip: F.dropout is random unless it is told not to be."""

    def pooled(self, images):
        return F.dropout(self.pool(self.maps(images)).flatten(1), 0.5)


class Half(Net):
    def __init__(self):
        super().__init__(nn.ReLU())
        self.half()


class Flat(Net):
    def __init__(self):
        super().__init__(nn.ReLU())
        self.fc = nn.Linear(8 * 16, 3)

    def forward(self, images):
        return self.fc(self.maps(images).flatten(1))


class Deep(Net):
    def __init__(self):
        super().__init__(nn.ReLU())
        self.drop = nn.Sequential(nn.Linear(8, 8), nn.ReLU())


class Unexportable(Net):
    def forward(self, images):
        return super().forward(images) * (2 if images.max() > 99 else 1)


class Branching(Net):
    """A network whose work depends on values: no trace, but an activation that is a module."""

    def __init__(self):
        super().__init__(nn.ReLU())

    def forward(self, images):
        return super().forward(images * 2 if images.max() > 99 else images)


class Together(Net):
    def forward(self, images):
        return super().forward(images - images.mean(0))


class Random(Net):
    def forward(self, images):
        return super().forward(images + torch.rand_like(images))


class Wrong(Net):
    def forward(self, images):
        del images
        raise RuntimeError("no such\nluck")


def named():
    return Net(nn.ReLU(inplace=True))


def functional():
    return Net()


def gelu():
    return Net(nn.GELU())


def linear():
    return Net(nn.Identity())


def four():
    return Net(nn.ReLU(), classes=4)


def broken():
    net = Net()
    net.load_state_dict({k: v * float("nan") for k, v in net.state_dict().items()})
    return net


def leaving():
    raise SystemExit(0)


def raising():
    raise ZeroDivisionError("on purpose")


def nothing():
    return None


def needy(depth):
    return Net()
