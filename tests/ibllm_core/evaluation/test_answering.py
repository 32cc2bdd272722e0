from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.evaluation.answering import Answerer
from ibllm_core.formats.sample import Turn
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.prompts import Prompter
from tests.conftest import FEATURE_DIM, tiny_llama, word_tokenizer

LIMIT = 5


@pytest.fixture
def words_model() -> ImageBindLLM:
    llama = tiny_llama(vocab_size=19, max_position_embeddings=40)
    torch.manual_seed(1)
    model = ImageBindLLM(llama, FEATURE_DIM).eval()
    with torch.no_grad():
        model.fusion.gates.fill_(2.0)
    return model


def asked(question: str, feature: int) -> CompiledSample:
    made = Prompter(tokenizer=word_tokenizer(), template="short").sample([Turn(instruction=question, answer="a cat")])
    return CompiledSample(
        tokens=made.tokens, labels=made.labels, feature=feature, row=1, instruction=question, answer="a cat"
    )


@pytest.fixture
def answerer(words_model: ImageBindLLM, dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> Answerer:
    questions = ["what ?", "what is this ?", "what ?", "what " * 40]
    samples = [asked(question, number % 3) for number, question in enumerate(questions)]
    data = Dataset.of(samples, dataset.features, dataset.provenance.media)
    return Answerer(words_model, data, Prompter(tokenizer=tokenizer, template="short"))


def test_answers_do_not_depend_on_what_is_asked_beside_them(answerer: Answerer) -> None:
    together = answerer.answers([0, 1, 2, 0], [0, 1, 2, NO_FEATURE], LIMIT)
    fresh = Answerer(answerer._model, answerer._data, answerer._prompter)
    assert [fresh.answers([i], [f], LIMIT)[0] for i, f in ((0, 0), (1, 1), (2, 2), (0, NO_FEATURE))] == together
    assert len(set(together)) > 1


def test_what_was_answered_is_not_asked_again(answerer: Answerer) -> None:
    told: list[tuple[int, int]] = []
    first = answerer.answers([0, 1, 0], [0, 1, 0], LIMIT, lambda *step: told.append(step))
    again = answerer.answers([1, 0], [1, 0], LIMIT, lambda *step: told.append(step))
    assert told == [(0, 2)]
    assert (first[0], again) == (first[2], [first[1], first[0]])


def test_a_prompt_that_leaves_no_room_for_an_answer_cannot_be_asked(answerer: Answerer) -> None:
    assert [answerer.can_ask(sample, LIMIT) for sample in range(4)] == [True, True, True, False]
    assert not answerer.can_ask(0, 40)
