"""ImageBind as an ``Encoder``: media of eight kinds into one space of 1024 dimensions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_core.contract.media import Modality
from ibllm_core.encoders.batches import in_batches
from ibllm_core.encoders.imagebind.config import ImageBindConfig, Tower
from ibllm_core.encoders.imagebind.folder import tower_file
from ibllm_core.encoders.imagebind.model import ImageBind
from ibllm_core.encoders.imagebind.weights import load_tower, open_weights
from ibllm_core.errors import InvalidDataError, InvalidSpecError, InvalidWeightsError

# Raise it with every change of preprocessing or of the towers' arithmetic: features are stored under ``sha256``.
PREPROCESSING_VERSION = 1


def make(*, weights: Path | None, device: str, dtype: torch.dtype) -> ImageBindEncoder:
    """The entry point's factory."""
    if weights is None:
        raise InvalidSpecError(
            "ImageBind's weights may not be shipped, and none were brought in: `ibllm import-encoder imagebind "
            "imagebind_huge.pth` does that",
            encoder=ImageBindEncoder.name,
        )
    return ImageBindEncoder(weights, device=device, dtype=dtype)


class ImageBindEncoder:
    """An ``Encoder`` of the modalities that the weights have towers for, each read on the first ``encode`` of one.

    ``weights`` is a released ``.pth`` or a folder that ``split`` wrote; ``config`` gives the sizes of a ``.pth`` other
    than the released. ``dtype`` is float32 or bfloat16. Raises ``InvalidWeightsError`` and ``InvalidSpecError``.
    """

    name = "imagebind"
    licence = "CC-BY-NC-SA-4.0"

    def __init__(
        self,
        weights: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        config: ImageBindConfig | None = None,
    ) -> None:
        if dtype not in (torch.float32, torch.bfloat16):
            raise InvalidSpecError(f"ImageBind computes in float32 or bfloat16, not in {dtype}: choose one of them")
        self._weights = open_weights(weights, config)
        self._device, self._dtype = torch.device(device), dtype
        self._models: dict[Tower, ImageBind] = {}
        self.feature_dim = self._weights.config.output_dim
        self.modalities = frozenset(m for m in Modality if Tower.of(m) in self._weights.config.towers)

    @cached_property
    def sha256(self) -> str:
        """Of all towers' contents and sizes, the dtype and the preprocessing; the same for a file and its folder.

        A ``.pth`` is read for it as a whole, a folder is not.
        """
        depends_on = {
            "towers": self._weights.tower_hashes(),
            "config": self._weights.config.model_dump(mode="json"),
            "dtype": str(self._dtype),
            "preprocessing": PREPROCESSING_VERSION,
        }
        return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()

    def weight_files(self, modality: Modality) -> Sequence[str]:
        """The file of the modality's tower in a folder that ``split`` wrote."""
        self._check_tower(modality)
        return (tower_file(Path(), Tower.of(modality)).name,)

    def preprocess(self, modality: Modality, content: bytes, *, crop_seed: int | None = None) -> Tensor:
        """See ``Encoder``; images and videos stay uint8, ``encode`` normalises them on its device."""
        from ibllm_core.encoders.preprocess import audio, depth, image, imu, points, text, thermal, video

        if modality is Modality.IMAGE:
            return image.centre_crop(content) if crop_seed is None else image.random_crop(content, crop_seed)
        loaders: dict[Modality, Callable[[bytes], Tensor]] = {
            Modality.VIDEO: video.load,
            Modality.AUDIO: audio.load,
            Modality.TEXT: text.load,
            Modality.DEPTH: depth.load,
            Modality.THERMAL: thermal.load,
            Modality.IMU: imu.load,
            Modality.POINT: points.load,
        }
        return loaders[modality](content)

    def grey(self) -> Tensor:
        """Zeros as an image that is normalised already: no uint8 becomes exactly zero."""
        self._check_tower(Modality.IMAGE)
        return torch.zeros(self._weights.config.clip_shape(Modality.IMAGE))

    @torch.inference_mode()
    def encode(self, modality: Modality, inputs: Sequence[Tensor]) -> Tensor:
        """See ``Encoder``. Images and videos are uint8, or floats which count as normalised already.

        An input may be one clip or several (``[3, 1, 128, 204]`` of sound, ``[15, 3, 2, 224, 224]`` of video), whose
        vectors are averaged. On one machine a vector depends on nothing but its own input, to the bit: sums are taken
        in another order where a batch has another size, so the device always sees batches of one size, the last one
        filled up (tested on the CPU, and on a GPU where there is one). Raises ``InvalidDataError`` naming the input
        whose shape is wrong or whose vector is not finite, and ``InvalidWeightsError`` where the weights lack the
        modality's tower or are damaged.
        """
        model = self._model_of(modality)
        if not inputs:
            return torch.empty(0, self.feature_dim)
        clips_of = [self._clips(modality, index, medium) for index, medium in enumerate(inputs)]
        clips = [clip for medium in clips_of for clip in medium]

        def encode_batch(batch: Sequence[Tensor]) -> Tensor:
            prepared = torch.stack([self._normalised(modality, clip.to(self._device)) for clip in batch])
            vectors: Tensor = model(modality, prepared)
            return vectors.cpu()

        vectors = in_batches(encode_batch, clips, self._device)
        means = [medium.mean(0) for medium in torch.split(vectors, [len(medium) for medium in clips_of])]
        features = F.normalize(torch.stack(means), dim=-1)
        bad = (~features.isfinite().all(-1)).nonzero().flatten()
        if len(bad):
            raise InvalidDataError(
                f"{modality} {int(bad[0]) + 1} of {len(inputs)} has no finite vector: it holds NaN or infinite "
                "numbers; replace it or remove its row"
            )
        return features

    def _check_tower(self, modality: Modality) -> None:
        if modality not in self.modalities:
            raise InvalidWeightsError(
                f"{self._weights.path} has no tower for {modality}, only for {', '.join(sorted(self.modalities))}: "
                "give weights that have one (points: imagebind_w3D.pth)",
                file=str(self._weights.path),
                expected=Tower.of(modality).value,
            )

    def _model_of(self, modality: Modality) -> ImageBind:
        self._check_tower(modality)
        tower = Tower.of(modality)
        if tower not in self._models:
            self._models[tower] = load_tower(self._weights, tower, device=self._device, dtype=self._dtype)
        return self._models[tower]

    def _clips(self, modality: Modality, index: int, medium: Tensor) -> Tensor:
        """The clips of an input, ``[S, ...]``."""
        clip_shape = self._weights.config.clip_shape(modality)
        clips = medium[None] if medium.ndim == len(clip_shape) else medium
        if clips.shape[1:] != clip_shape or not len(clips):
            raise InvalidDataError(
                f"{modality} {index + 1} has shape {list(medium.shape)}, expected {list(clip_shape)} or several such "
                "clips: use what preprocess returns"
            )
        return clips

    def _normalised(self, modality: Modality, clip: Tensor) -> Tensor:
        if Tower.of(modality) is Tower.VISION and clip.dtype == torch.uint8:
            from ibllm_core.encoders.preprocess import image

            return image.normalise(clip)
        return clip
