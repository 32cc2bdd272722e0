"""The kinds of media that a sample may hold and an encoder may read."""

from __future__ import annotations

from enum import StrEnum


class Modality(StrEnum):
    """A kind of media, by the name it has in rows, in encoders and in the feature store."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    TEXT = "text"
    DEPTH = "depth"
    THERMAL = "thermal"
    IMU = "imu"
    POINT = "point"

    @property
    def is_experimental(self) -> bool:
        """Whether nobody published a loader for it, so that published accuracies cannot be expected."""
        return self in (Modality.DEPTH, Modality.THERMAL, Modality.IMU)
