"""Multiple-choice questions: ScienceQA's table."""

from __future__ import annotations

from collections.abc import Sequence

from ibllm_core.contract import metrics as names
from ibllm_core.contract.marking import MultipleChoice
from ibllm_core.evaluation.science_qa import Answered, accuracies, chosen
from workers.evaluate.bench import Bench
from workers.evaluate.measured import Measured

CHOICE_TOKENS = 16


def measure_choices(bench: Bench, measured: Measured) -> None:
    """The share of right choices, by ScienceQA's columns; questions without a picture are part of it."""
    questions = bench.tasks.choices[: bench.max_samples]
    asked = bench.askable(questions, CHOICE_TOKENS)
    if not questions:
        return
    measured.figures["science_qa_questions"] = len(asked)
    measured.figures["science_qa_questions_of"] = len(bench.tasks.choices)
    measured.figures["science_qa_left_out"] = len(questions) - len(asked)
    right, shuffled = bench.answers(asked, CHOICE_TOKENS, "choosing")
    tables = {}
    for name, answers in (("science_qa", right), ("science_qa_shuffled", shuffled)):
        marked = _marked(bench, asked, answers)
        tables[name] = measured.figures[name] = accuracies(marked)
        measured.figures[f"{name}_without_choice"] = sum(answer.chosen is None for answer in marked)
    for column, share in tables["science_qa"].items():
        metric = names.eval_science_qa(column)
        measured.metrics[metric] = share
        measured.metrics[names.with_shuffled_media(metric)] = tables["science_qa_shuffled"][column]
    texts = [bench.texts[sample] for sample in asked]
    measured.answers += [
        {"task": "choice", "row": t.row, "question": t.instruction, "true": t.answer, "right": a, "shuffled": b}
        for t, a, b in zip(texts, right, shuffled, strict=True)
    ]


def _marked(bench: Bench, samples: Sequence[int], answers: Sequence[str]) -> list[Answered]:
    marked = []
    for sample, answer in zip(samples, answers, strict=True):
        question = bench.texts[sample].marking
        assert isinstance(question, MultipleChoice)
        has_media = bool(bench.data.has_media_S[sample])
        marked.append(Answered(question=question, has_media=has_media, chosen=chosen(answer, question.choices)))
    return marked
