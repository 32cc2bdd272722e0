"""A tiny model before data that is made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.contract.marking import Marking, MultipleChoice, PeoplesAnswers
from ibllm_core.data.dataset import CompiledSample, Dataset
from ibllm_core.formats.sample import Turn
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.prompts import Prompter
from tests.conftest import FEATURE_DIM, tiny_llama, word_tokenizer
from workers.evaluate.bench import Bench

NUM_WORDS = 19
PEOPLE = PeoplesAnswers(answers=("cat", "a cat", "dog"))
SCIENCE = MultipleChoice(choices=("cat", "dog"), correct=1, subject="natural science", grade=2, has_context=False)


def words_model() -> ImageBindLLM:
    """A model over the tokenizer's words, whose gates are open."""
    llama = tiny_llama(vocab_size=NUM_WORDS, max_position_embeddings=64)
    torch.manual_seed(1)
    model = ImageBindLLM(llama, FEATURE_DIM).eval()
    with torch.no_grad():
        model.fusion.gates.fill_(2.0)
    return model


def sample(question: str, answer: str, feature: int, *, row: int = 1, marking: Marking | None = None) -> CompiledSample:
    prompter = Prompter(tokenizer=word_tokenizer(), template="short")
    made = prompter.sample([Turn(instruction=question, answer=answer)])
    return CompiledSample(
        tokens=made.tokens,
        labels=made.labels,
        feature=feature,
        row=row,
        instruction=question,
        answer=answer,
        marking=marking,
    )


def features(number: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((number, FEATURE_DIM)).astype(np.float32)


def data_of(*samples: CompiledSample, media: int = 3) -> Dataset:
    return Dataset.of(samples, features(media), [f"image/{number}" for number in range(media)])


def bench(
    data: Dataset,
    stage: TrainingStage,
    told: list[tuple[str, int, int]] | None = None,
    model: ImageBindLLM | None = None,
    max_samples: int = 256,
) -> Bench:
    heard: list[tuple[str, int, int]] = [] if told is None else told
    return Bench(
        stage=stage,
        model=model or words_model(),
        data=data,
        prompter=Prompter(tokenizer=word_tokenizer(), template="short"),
        max_samples=max_samples,
        tell=lambda phase, step, total: heard.append((phase, step, total)),
    )


def mixed() -> Sequence[CompiledSample]:
    """Something of every task."""
    return [
        sample("what ?", "a cat on the mat", 0, row=1),
        sample("what ?", "the cat is on a mat", 0, row=2),
        sample("what ?", "a red dog", 1, row=3),
        sample("is this a cat ?", "cat", 2, row=4, marking=PEOPLE),
        sample("what is this ?", "dog", 1, row=5, marking=SCIENCE),
    ]
