"""What is measured of which data."""

from __future__ import annotations

import pytest
import torch

from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.data.dataset import NO_FEATURE
from tests.workers.evaluate.bench import PEOPLE, SCIENCE, bench, data_of, mixed, sample, words_model
from workers.evaluate.measured import Measured
from workers.evaluate.stage import measure


def test_everything_that_a_mixed_file_allows_is_measured() -> None:
    told: list[tuple[str, int, int]] = []
    measured = measure(bench(data_of(*mixed()), "stage1", told))
    assert measured.figures["captions"] == 3
    assert measured.figures["vqa_questions"] == measured.figures["science_qa_questions"] == 1
    assert set(measured.figures["science_qa"]) == {"NAT", "IMG", "G1-6", "Avg"}
    names = {"loss", "bleu_1", "bleu_4", "cider", "accuracy", "vqa_accuracy", "science_qa/NAT", "science_qa/Avg"}
    assert measured.metrics.keys() >= {f"eval/{name}" for name in names}
    assert measured.metrics.keys() >= {f"eval/{name}_shuffled" for name in names}
    assert [answer["task"] for answer in measured.answers] == ["caption", "caption", "question", "choice"]
    assert [sample["references"] for sample in measured.samples] == [
        ["a cat on the mat", "the cat is on a mat"],
        ["a red dog"],
    ]
    assert {phase for phase, *_ in told} >= {"losses", "writing captions with right media"}
    assert all(step < total for _, step, total in told)


def test_another_ones_picture_gives_another_caption() -> None:
    first, second = measure(bench(data_of(*mixed()[:3], media=2), "stage1")).samples
    assert (first["shuffled"], second["shuffled"]) == (second["generated"], first["generated"])
    assert first["generated"] != second["generated"]


def test_what_people_wrote_is_worth_all_there_is_with_the_right_picture_and_nothing_with_another() -> None:
    model = words_model()

    def measured(stage: TrainingStage, *truths: str) -> Measured:
        data = data_of(*(sample("what ?", truth, number) for number, truth in enumerate(truths)), media=2)
        return measure(bench(data, stage, model=model))

    written = [row["generated"] for row in measured("stage1", "cat", "cat").samples]
    captions = measured("stage1", *written).metrics
    assert (captions["eval/bleu_4"], captions["eval/cider"]) == (pytest.approx(1.0), pytest.approx(10.0))
    assert (captions["eval/bleu_4_shuffled"], captions["eval/cider_shuffled"]) == (0.0, 0.0)
    answers = [row["right"] for row in measured("stage2", "cat", "cat").samples]
    questions = measured("stage2", *answers).metrics
    assert (questions["eval/accuracy"], questions["eval/accuracy_shuffled"]) == (1.0, 0.0)


def test_data_without_media_is_measured_as_far_as_it_can_be() -> None:
    data = data_of(sample("what ?", "a cat", NO_FEATURE))
    captions, questions = measure(bench(data, "stage1")), measure(bench(data, "stage2"))
    assert captions.figures["eval_loss"] == captions.figures["eval_loss_before"] > 0
    assert (captions.figures["captions"], captions.samples) == (0, [])
    assert (questions.figures["vqa_questions"], questions.figures["vqa_left_out"]) == (0, 1)
    assert not {"eval/accuracy", "eval/cider"} & (questions.metrics.keys() | captions.metrics.keys())


def test_a_question_longer_than_the_context_is_left_out_and_counted() -> None:
    data = data_of(sample("what ?", "a cat", 0), sample("what " * 60, "a cat", 1))
    assert measure(bench(data, "stage2")).figures.items() >= {"vqa_questions": 1, "vqa_left_out": 1}.items()


def test_one_persons_answer_has_no_vqa_metric_and_counts_in_the_figure() -> None:
    single = measure(bench(data_of(sample("what ?", "cat", 0)), "stage2"))
    assert single.figures["vqa_accuracy"] == single.figures["exact_match"]
    assert "eval/vqa_accuracy" not in single.metrics
    several = measure(bench(data_of(sample("what ?", "cat", 0, marking=PEOPLE)), "stage2"))
    assert "eval/vqa_accuracy" in several.metrics


def test_choices_without_a_picture_are_asked_once() -> None:
    told: list[tuple[str, int, int]] = []
    data = data_of(sample("what ?", "dog", NO_FEATURE, marking=SCIENCE))
    measured = measure(bench(data, "stage2", told))
    assert measured.figures["science_qa"] == measured.figures["science_qa_shuffled"]
    assert set(measured.figures["science_qa"]) == {"NAT", "NO", "G1-6", "Avg"}
    assert not [phase for phase, *_ in told if phase == "choosing with shuffled media"]


def test_closed_gates_see_no_difference_between_pictures() -> None:
    model = words_model()
    with torch.no_grad():
        model.fusion.gates.zero_()
    metrics = measure(bench(data_of(*mixed()), "stage1", model=model)).metrics
    assert metrics["eval/loss"] == pytest.approx(metrics["eval/loss_shuffled"])
    assert metrics["eval/cider"] == pytest.approx(metrics["eval/cider_shuffled"])


def test_of_much_data_the_first_of_each_task_are_measured_and_counted() -> None:
    told: list[tuple[str, int, int]] = []
    data = data_of(*mixed(), *mixed())
    measured = measure(bench(data, "stage1", told, max_samples=1))
    counts = {
        "loss_samples": 1,
        "loss_samples_of": 10,
        "captioned_media": 1,
        "captioned_media_of": 2,
        "captions": 4,
        "captions_left_out": 0,
        "vqa_questions": 1,
        "vqa_questions_of": 2,
        "science_qa_questions": 1,
        "science_qa_questions_of": 2,
    }
    assert measured.figures.items() >= counts.items()
    assert [answer["task"] for answer in measured.answers] == ["caption", "question", "choice"]
    first = measure(bench(data_of(mixed()[0]), "stage1"))
    assert measured.figures["eval_loss"] == pytest.approx(first.figures["eval_loss"])
