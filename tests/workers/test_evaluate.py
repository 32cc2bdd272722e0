from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.formats.sample import Turn
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.prompts import Prompter
from tests.conftest import FEATURE_DIM, tiny_llama, word_tokenizer
from workers.evaluate import _accuracy, _as_metrics, _measure_answers, _measure_captions, shuffled_media


def test_no_sample_keeps_its_own_picture(dataset: Dataset) -> None:
    for seed in range(20):
        shuffled = shuffled_media(dataset, seed)
        for own, medium in zip(dataset.feature_S, shuffled, strict=True):
            if own == NO_FEATURE:
                assert medium == NO_FEATURE
            else:
                assert medium not in (own, NO_FEATURE)


def test_the_shuffle_is_the_same_every_time(dataset: Dataset) -> None:
    assert shuffled_media(dataset, 0).tolist() == shuffled_media(dataset, 0).tolist()


def test_grey_is_nobodys_picture(dataset: Dataset) -> None:
    grey = replace(dataset, grey=2)
    for seed in range(20):
        assert shuffled_media(grey, seed).tolist() == [1, 0, NO_FEATURE, 2]


@pytest.fixture
def words_model() -> ImageBindLLM:
    llama = tiny_llama(vocab_size=19, max_position_embeddings=40)
    torch.manual_seed(1)
    return ImageBindLLM(llama, FEATURE_DIM).eval()


def measured(measure: Any, model: ImageBindLLM, data: Dataset, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    spec: Any = SimpleNamespace(caption_template="short", question_template="short")
    reporter: Any = SimpleNamespace(progress=lambda progress: None)
    return measure(model, data, tokenizer, spec, reporter)


def with_samples(dataset: Dataset, *samples: CompiledSample) -> Dataset:
    return Dataset.of(samples, dataset.features, dataset.provenance.media)


def asked(question: str, feature: int) -> CompiledSample:
    turns = [Turn(instruction=question, answer="a cat")]
    tokenised = Prompter(tokenizer=word_tokenizer(), template="short").sample(turns)
    return CompiledSample(
        tokens=tokenised.tokens, labels=tokenised.labels, feature=feature, row=1, instruction=question, answer="cat"
    )


def test_files_without_pictures_are_measured_as_far_as_they_can_be(
    words_model: ImageBindLLM, dataset: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    text_only = with_samples(dataset, asked("what ?", NO_FEATURE))
    captions = measured(_measure_captions, words_model, text_only, tokenizer)
    assert captions["samples"] == []
    assert captions["eval_loss"] == captions["eval_loss_before"] > 0
    answers = measured(_measure_answers, words_model, text_only, tokenizer)
    assert answers == {"vqa_questions": 0, "vqa_left_out": 1, "samples": []}
    assert "eval/accuracy" not in _as_metrics({"stage1": captions, "stage2": answers})


def test_a_question_longer_than_the_context_is_left_out_and_counted(
    words_model: ImageBindLLM, dataset: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = with_samples(dataset, asked("what ?", 0), asked("what " * 40, 1))
    answers = measured(_measure_answers, words_model, data, tokenizer)
    assert (answers["vqa_questions"], answers["vqa_left_out"]) == (1, 1)


def test_the_loss_before_is_that_of_the_words_alone(
    words_model: ImageBindLLM, dataset: Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    with torch.no_grad():
        words_model.fusion.gates.fill_(0.5)
    data = with_samples(dataset, asked("what ?", 0), asked("what ?", 1))
    captions = measured(_measure_captions, words_model, data, tokenizer)
    blind = with_samples(dataset, asked("what ?", NO_FEATURE), asked("what ?", NO_FEATURE))
    assert captions["eval_loss_before"] == pytest.approx(
        measured(_measure_captions, words_model, blind, tokenizer)["eval_loss"]
    )
    assert captions["eval_loss_before"] != pytest.approx(captions["eval_loss"])


def test_an_answer_is_right_when_it_is_the_whole_truth() -> None:
    assert _accuracy(["Cat ", "catfish", "a cat"], ["cat", "cat", "cat"]) == pytest.approx(1 / 3)
