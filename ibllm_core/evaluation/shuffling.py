"""Another sample's media for each sample: the control that says whether a model looks at them."""

from __future__ import annotations

import numpy as np

from ibllm_core.data.dataset import Dataset


def shuffled_media(data: Dataset, seed: int) -> np.ndarray:
    """For each sample a medium that is not its own, from the same dataset; text-only samples stay as they are.

    Where there is one medium alone, it stays too.
    """
    own = np.asarray(data.feature_S)
    media = np.arange(data.num_features)
    media = media[media != (-1 if data.grey is None else data.grey)]
    if len(media) < 2:
        return own
    places = np.searchsorted(media, own) + np.random.default_rng(seed).integers(1, len(media), len(own))
    return np.where(data.has_media_S, media[places % len(media)], own)
