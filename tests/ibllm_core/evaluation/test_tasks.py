from dataclasses import replace

import numpy as np

from ibllm_core.contract.marking import Marking, MultipleChoice, PeoplesAnswers
from ibllm_core.contract.templates import CAPTION_INSTRUCTION
from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.evaluation.tasks import Tasks, tasks_of

CHOICE = MultipleChoice(choices=("a", "b"), correct=0, has_context=False)
PEOPLE = PeoplesAnswers(answers=("a", "b"))


def data(*samples: tuple[str, int, Marking | None]) -> Dataset:
    made = [
        CompiledSample(
            tokens=[3, 4], labels=[(1, 2)], feature=feature, row=1, instruction=asked, answer="a", marking=marking
        )
        for asked, feature, marking in samples
    ]
    return Dataset.of(made, np.ones((3, 4), np.float32), ["a", "b", "grey"])


MIXED = data(
    ("what?", 0, None),
    (CAPTION_INSTRUCTION, 1, None),
    (CAPTION_INSTRUCTION, 1, None),
    ("what?", 0, PEOPLE),
    ("which?", NO_FEATURE, CHOICE),
    ("what?", NO_FEATURE, None),
    ("what?", 2, None),
)


def test_in_stage_1_whatever_is_asked_of_a_medium_is_a_caption() -> None:
    assert tasks_of(MIXED, "stage1") == Tasks(captions={0: [0], 1: [1, 2]}, questions=[3], choices=[4], others=[5, 6])


def test_in_stage_2_a_caption_is_what_asks_for_one() -> None:
    assert tasks_of(MIXED, "stage2") == Tasks(captions={1: [1, 2]}, questions=[0, 3], choices=[4], others=[5, 6])


def test_a_grey_picture_is_none_to_ask_about() -> None:
    assert tasks_of(replace(MIXED, grey=None), "stage2").others == [5]
