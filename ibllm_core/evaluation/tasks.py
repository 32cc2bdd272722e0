"""What each sample of a dataset can be measured by."""

from __future__ import annotations

from dataclasses import dataclass, field

from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.contract.marking import MultipleChoice, PeoplesAnswers
from ibllm_core.contract.templates import CAPTION_INSTRUCTION
from ibllm_core.data.dataset import Dataset


@dataclass(kw_only=True)
class Tasks:
    """Numbers of samples by task. ``captions`` has those of each medium, whose answers are its references.

    ``others`` are text alone, which only the loss is measured of.
    """

    captions: dict[int, list[int]] = field(default_factory=dict)
    questions: list[int] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)


def tasks_of(data: Dataset, stage: TrainingStage) -> Tasks:
    """Sort samples: multiple choice, captions, other questions about media.

    Stage 1 learns captions, whatever its samples ask; elsewhere a caption answers the instruction of captions. A
    question with several people's answers is never one.
    """
    tasks = Tasks()
    for sample, text in enumerate(data.provenance.texts):
        if isinstance(text.marking, MultipleChoice):
            tasks.choices.append(sample)
        elif not data.has_media_S[sample]:
            tasks.others.append(sample)
        elif not isinstance(text.marking, PeoplesAnswers) and (
            stage == "stage1" or text.instruction == CAPTION_INSTRUCTION
        ):
            tasks.captions.setdefault(int(data.feature_S[sample]), []).append(sample)
        else:
            tasks.questions.append(sample)
    return tasks
