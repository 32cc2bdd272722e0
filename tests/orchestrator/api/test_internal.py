"""What attempts say to the service."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orchestrator.db.models import Attempt, Event, Run
from orchestrator.db.session import connect, session_factory
from tests.orchestrator.api.service import Service


@dataclass(frozen=True)
class Speaker:
    """An attempt of a job's compile run."""

    service: Service
    job_id: str

    def says(self, path: str, **body: object) -> int:
        headers = {"authorization": "Bearer t"}
        url = f"/internal/attempts/{self.job_id}-compile-1/{path}"
        return self.service.http.post(url, json=body, headers=headers).status_code

    def shown(self) -> dict[str, object]:
        run: dict[str, object] = self.service.http.get(f"/v1/fine_tuning/jobs/{self.job_id}").json()["runs"][0]
        return run


@pytest.fixture
def speaker(service: Service, database: str) -> Speaker:
    job_id = service.create_job(service.file()).json()["id"]
    with session_factory(connect(database))() as session:
        run = session.get_one(Run, f"{job_id}-compile")
        session.add(Attempt(id=f"{run.id}-1", run_id=run.id, project_id=run.job.project_id, number=1, token="t"))
        session.commit()
    return Speaker(service, job_id)


def test_each_rank_has_its_own_step_and_the_first_ones_progress_is_shown(speaker: Speaker) -> None:
    assert speaker.says("progress", phase="training", step=7) == 204
    assert speaker.says("progress", phase="training", step=5, rank=3) == 204
    assert speaker.says("progress", phase="training", step=6, rank=3) == 204
    shown = speaker.shown()
    assert {rank: said["step"] for rank, said in shown["ranks"].items()} == {"0": 7, "3": 6}  # type: ignore[attr-defined]
    assert shown["progress"]["step"] == 7  # type: ignore[index]


def test_other_ranks_do_not_keep_an_attempt_alive_whose_first_rank_is_silent(speaker: Speaker, database: str) -> None:
    speaker.says("progress", phase="training", step=5, rank=3)
    with session_factory(connect(database))() as session:
        assert session.get_one(Attempt, f"{speaker.job_id}-compile-1").heartbeat_at is None


def test_an_event_that_is_sent_again_is_told_once(speaker: Speaker, database: str) -> None:
    for _ in range(2):
        assert speaker.says("events", id="abc", message="something") == 204
    assert speaker.says("events", id="def", message="something") == 204
    with session_factory(connect(database))() as session:
        told = session.query(Event).filter(Event.job_id == speaker.job_id, Event.message == "something").count()
    assert told == 2
