"""What an answer is marked by where the one that is learnt is not all of it; travels with a sample, is never learnt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from ibllm_core.contract.base import Contract


class PeoplesAnswers(Contract):
    """What several people answered, as in VQA; one of their answers is learnt."""

    kind: Literal["people"] = "people"
    answers: tuple[str, ...] = Field(min_length=2)


class MultipleChoice(Contract):
    """A question of an examination, as in ScienceQA; what is not known of it is None."""

    kind: Literal["choice"] = "choice"
    choices: tuple[str, ...] = Field(min_length=2, max_length=26)
    correct: int = Field(ge=0, description="index into choices")
    subject: str | None = None
    grade: int | None = Field(None, ge=1, le=12)
    has_context: bool = Field(description="whether it comes with a text beside the question")


Marking = PeoplesAnswers | MultipleChoice
_READER: TypeAdapter[Marking] = TypeAdapter(Annotated[Marking, Field(discriminator="kind")])


def read_marking(text: str) -> Marking:
    """A marking from its JSON."""
    return _READER.validate_json(text)
