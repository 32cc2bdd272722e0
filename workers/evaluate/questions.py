"""Open questions about media: VQA's accuracy, and equality with the answer that is learnt."""

from __future__ import annotations

from collections.abc import Sequence

from ibllm_core.contract import metrics as names
from ibllm_core.contract.marking import PeoplesAnswers
from ibllm_core.data.dataset import SampleText
from ibllm_core.evaluation.vqa import equals, vqa_accuracy
from workers.evaluate.bench import Bench
from workers.evaluate.measured import Measured

ANSWER_TOKENS = 8
SHOWN = 100


def measure_questions(bench: Bench, measured: Measured) -> None:
    """A question that several people answered is marked as VQA's are, another one by equality with its answer."""
    questions = bench.tasks.questions[: bench.max_samples]
    asked = bench.askable(questions, ANSWER_TOKENS)
    if bench.stage == "stage2" or asked:
        measured.figures["vqa_questions"] = len(asked)
        measured.figures["vqa_questions_of"] = len(bench.tasks.questions)
        measured.figures["vqa_left_out"] = len(questions) - len(asked) + len(bench.tasks.others)
    if not asked:
        return
    right, shuffled = bench.answers(asked, ANSWER_TOKENS, "answering questions")
    texts = [bench.texts[sample] for sample in asked]
    people = [_people(text) for text in texts]
    metric_of = {"exact_match": names.EVAL_ACCURACY}
    if any(people):
        metric_of["vqa_accuracy"] = names.EVAL_VQA_ACCURACY
    measured.add(_scores(right, texts), _scores(shuffled, texts), metric_of)
    rows = [
        {"question": text.instruction, "true": text.answer, "right": mine, "shuffled": other}
        for text, mine, other in zip(texts, right, shuffled, strict=True)
    ]
    measured.answers += [
        {"task": "question", "row": text.row, **row, "people": own}
        for text, row, own in zip(texts, rows, people, strict=True)
    ]
    if bench.stage == "stage2":
        measured.samples += rows[:SHOWN]


def _scores(answers: Sequence[str], texts: Sequence[SampleText]) -> dict[str, float]:
    marked = list(zip(answers, texts, strict=True))
    return {
        "vqa_accuracy": sum(_mark(answer, text) for answer, text in marked) / len(marked),
        "exact_match": sum(equals(answer, text.answer) for answer, text in marked) / len(marked),
    }


def _mark(answer: str, text: SampleText) -> float:
    people = _people(text)
    return vqa_accuracy(answer, people) if people else float(equals(answer, text.answer))


def _people(text: SampleText) -> list[str]:
    return list(text.marking.answers) if isinstance(text.marking, PeoplesAnswers) else []
