"""The exported module: uint8 images in, pooled vectors out, everything between inside."""

import torch
from torch import nn


class Embedder(nn.Module):
    """uint8 [N, H, W, 3] RGB -> float32 [N, D]; normalisation, layout and precision inside."""

    def __init__(
        self,
        trunk: nn.Module,
        mean: list[float],
        std: list[float],
        grey: bool = False,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.grey = grey
        self.precision = precision
        # On 0..255 values: (x / 255 - mean) / std = x * scale + shift.
        means, stds = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (1 / (255 * stds)).float())
        self.register_buffer("shift", (-means / stds).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # NHWC seen as NCHW is torch's channels-last layout already: nothing is copied.
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        pixels = pixels * self.scale + self.shift
        if self.grey:
            pixels = pixels.mean(dim=1, keepdim=True)
        features = self.trunk(pixels.to(self.precision))
        if features.dim() == 4:
            features = features.mean(dim=(2, 3), dtype=torch.float32)
        return features.to(torch.float32)
