"""What every measurement of a stage needs: the model, the data, and where to say how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.data.dataset import Dataset, SampleText
from ibllm_core.evaluation.answering import Answerer
from ibllm_core.evaluation.losses import SHUFFLE_SEED
from ibllm_core.evaluation.shuffling import shuffled_media
from ibllm_core.evaluation.tasks import Tasks, tasks_of
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.prompts import Prompter

Tell = Callable[[str, int, int], None]
"""Hears a phase, steps done, and steps in all."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One stage's model before its held-out data; ``max_samples`` of each task are measured."""

    stage: TrainingStage
    model: ImageBindLLM
    data: Dataset
    prompter: Prompter
    max_samples: int
    tell: Tell

    @cached_property
    def texts(self) -> Sequence[SampleText]:
        """Of each sample."""
        return self.data.provenance.texts

    @cached_property
    def tasks(self) -> Tasks:
        """Which samples are measured by what."""
        return tasks_of(self.data, self.stage)

    def askable(self, samples: Sequence[int], limit: int) -> list[int]:
        """Those of the samples whose prompt leaves room for an answer."""
        return [sample for sample in samples if self._answerer.can_ask(sample, limit)]

    def answers(self, samples: Sequence[int], limit: int, phase: str) -> tuple[list[str], list[str]]:
        """The answers with each sample's own medium, and with another one's."""
        found = []
        for media, seen in ((np.asarray(self.data.feature_S), "right"), (self._shuffled, "shuffled")):
            tell = self._teller(f"{phase} with {seen} media")
            found.append(self._answerer.answers(samples, media[list(samples)].tolist(), limit, tell))
        return found[0], found[1]

    def _teller(self, phase: str) -> Callable[[int, int], None]:
        return lambda done, total: self.tell(phase, done, total)

    @cached_property
    def _answerer(self) -> Answerer:
        return Answerer(self.model, self.data, self.prompter)

    @cached_property
    def _shuffled(self) -> np.ndarray:
        return shuffled_media(self.data, SHUFFLE_SEED)
