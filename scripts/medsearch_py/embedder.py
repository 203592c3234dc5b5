"""The exported module: uint8 images in, pooled vectors out, everything between inside."""

import torch
import torch.nn.functional as F
from torch import nn

# How features become a vector: spatial means of one layer, or of several, each brought to unit norm.
AVG = "avg"
AVG_UNIT = "avg-unit"


class Embedder(nn.Module):
    """uint8 [N, H, W, 3] RGB -> float32 [N, D]; normalisation, layout and precision inside.

    With AVG_UNIT the trunk gives a list of features, and D is the sum of their channels.
    """

    def __init__(
        self,
        trunk: nn.Module,
        mean: list[float],
        std: list[float],
        grey: bool = False,
        precision: torch.dtype = torch.float32,
        pooling: str = AVG,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.grey = grey
        self.precision = precision
        self.pooling = pooling
        # On 0..255 values: (x / 255 - mean) / std = x * scale + shift.
        means, stds = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (1 / (255 * stds)).float())
        self.register_buffer("shift", (-means / stds).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        if self.pooling == AVG_UNIT:
            # Channels differ in number and scale from layer to layer: by unit norm every layer weighs the same.
            return torch.cat([F.normalize(pooled(layer), dim=1) for layer in features], dim=1)
        return pooled(features)

    def cells(self, images: torch.Tensor) -> list[torch.Tensor]:
        """uint8 [N, H, W, 3] -> float32 [N, C, h, w] of each part, the features before pooling.

        The vector is made of their means over h and w, one part after the other, each at unit norm with AVG_UNIT.
        Raises ValueError where the trunk pools by itself, so that there is nothing to split.
        """
        features = self.features(images)
        parts = features if self.pooling == AVG_UNIT else [features]
        if any(part.dim() != 4 for part in parts):
            raise ValueError("the network has no cells: it gives one vector, not one of each place")
        return [part.to(torch.float32) for part in parts]

    def features(self, images: torch.Tensor):
        """What the trunk gives."""
        # NHWC seen as NCHW is torch's channels-last layout already: nothing is copied.
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        pixels = pixels * self.scale + self.shift
        if self.grey:
            pixels = pixels.mean(dim=1, keepdim=True)
        return self.trunk(pixels.to(self.precision))


def vector_of_cells(parts: list[torch.Tensor], normalise_parts: bool) -> torch.Tensor:
    """[N, C, h, w] of each part -> the vector [N, D] that they make."""
    means = [part.mean(dim=(2, 3)) for part in parts]
    return torch.cat([F.normalize(mean, dim=1) if normalise_parts else mean for mean in means], dim=1)


def pooled(features: torch.Tensor) -> torch.Tensor:
    """[N, C, h, w], or [N, C] as it is, -> float32 [N, C]."""
    if features.dim() == 4:
        features = features.mean(dim=(2, 3), dtype=torch.float32)
    return features.to(torch.float32)
