"""What a model writes for the samples of a dataset, each with a medium of choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ibllm_core.contract.sampling import Sampling
from ibllm_core.data.dataset import NO_FEATURE, Dataset
from ibllm_core.evaluation.memory import answer_bytes, batches_of, usable_bytes
from ibllm_core.model.generation import Request, generate
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.prompts import Prompter

MOST_ANSWERS = 128  # of a batch: a GPU is busy long before

Key = tuple[tuple[int, ...], int, int]  # prompt, feature, limit


class Answerer:
    """Greedy answers, in batches as large as memory allows. What was answered once is not asked again."""

    def __init__(self, model: ImageBindLLM, data: Dataset, prompter: Prompter) -> None:
        self._model = model
        self._data = data
        self._prompter = prompter
        self._known: dict[Key, str] = {}

    def can_ask(self, sample: int, limit: int) -> bool:
        """Whether a sample's first prompt, media and an answer of ``limit`` tokens fit into the base's context."""
        room: int = self._model.llama.config.max_position_embeddings - limit - self._model.fusion.media_tokens
        return len(self._data.prompt(sample)) <= room

    def answers(
        self,
        samples: Sequence[int],
        features: Sequence[int],
        limit: int,
        tell: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """The answer to each sample's first prompt with a feature of the dataset, ``NO_FEATURE`` for none.

        ``tell`` hears how many were answered, of how many.
        """
        keys = [
            (tuple(self._data.prompt(sample)), int(feature), limit)
            for sample, feature in zip(samples, features, strict=True)
        ]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        done = 0
        for batch in self._batches(new, limit):
            if tell:
                tell(done, len(new))
            self._ask([new[number] for number in batch], limit)
            done += len(batch)
        return [self._known[key] for key in keys]

    def _batches(self, keys: Sequence[Key], limit: int) -> list[list[int]]:
        if not keys:
            return []
        llama, shape = self._model.llama, self._model.shape
        lengths = [len(prompt) + self._model.fusion.media_tokens for prompt, *_ in keys]
        needed = [answer_bytes(shape, llama.dtype.itemsize, length, limit) for length in lengths]
        return batches_of(needed, usable_bytes(llama.device), MOST_ANSWERS)

    def _ask(self, keys: Sequence[Key], limit: int) -> None:
        requests = [Request(prompt=prompt, feature=self._feature(feature)) for prompt, feature, _ in keys]
        written = generate(self._model, requests, Sampling(max_new_tokens=limit), self._prompter.end_tokens)
        for key, tokens in zip(keys, written, strict=True):
            self._known[key] = self._prompter.tokenizer.decode(tokens).strip()

    def _feature(self, feature: int) -> torch.Tensor | None:
        if feature == NO_FEATURE:
            return None
        return torch.from_numpy(self._data.vectors(np.array([feature]), epoch=None)[0])
