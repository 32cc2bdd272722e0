"""Jobs listed, shown, asked to stop and to go on."""

from __future__ import annotations

import pytest

from orchestrator.client import Client
from tests.orchestrator.cli.conftest import Ibllm
from tests.orchestrator.client.work import Work

pytestmark = pytest.mark.usefixtures("at")


def test_jobs_are_listed_with_where_they_are(ibllm: Ibllm, work: Work) -> None:
    labels = {"list": "where"}
    training = work.put_job("compile", "stage1", labels=labels)
    work.start(training, "compile", phase="encoding", total_steps=0, step=1234, loss=None, gate_abs_mean=None)
    waiting = work.put_job(labels=labels)
    work.wait(waiting, "stage1", "needs 64 workers of 1 CPU")
    failed = work.put_job(labels=labels)
    work.fail(failed, "row 3 is\ntoo long")
    done = work.put_job(labels=labels)
    model = work.succeed(done)
    rows = [line.split(maxsplit=1) for line in ibllm("ls", "--metadata", "list=where").out.splitlines()[1:]]
    assert [row[0] for row in rows] == [done, failed, waiting, training]
    for (_, shown), words in zip(
        rows, (model, "row 3 is too long", "needs 64 workers", "compile: encoding · 1,234 so far"), strict=True
    ):
        assert words in shown


def test_a_list_says_that_there_is_more(ibllm: Ibllm, work: Work) -> None:
    made = [work.put_job(labels={"list": "more"}) for _ in range(3)]
    words = ("ls", "--metadata", "list=more")
    short = ibllm(*words, "--limit", "2")
    assert made[0] not in short.out and made[2] in short.out and "there are more jobs" in short.err
    whole = ibllm(*words, "--limit", "2", "--all")
    assert made[0] in whole.out and whole.err == ""
    page = ibllm(*words, "--limit", "2", "--json").json
    assert [job["id"] for job in page["data"]] == [made[2], made[1]]
    assert (page["object"], page["has_more"], page["last_id"]) == ("list", True, made[1])
    assert ibllm(*words, "--limit", "3", "--json").json["has_more"] is False
    nothing = ibllm("ls", "--metadata", "list=none")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no jobs\n")


def test_jobs_are_listed_by_status(ibllm: Ibllm, work: Work) -> None:
    labels = {"list": "status"}
    queued, failed = work.put_job(labels=labels), work.put_job(labels=labels)
    work.fail(failed, "no")
    words = ("ls", "--metadata", "list=status", "--json")
    assert [job["id"] for job in ibllm(*words, "--status", "failed").json["data"]] == [failed]
    both = ibllm(*words, "--status", "failed", "--status", "queued").json["data"]
    assert [job["id"] for job in both] == [failed, queued]
    assert ibllm(*words, "--status", "asleep").code == 2


def test_a_job_is_shown_with_its_runs(ibllm: Ibllm, work: Work, client: Client) -> None:
    job_id = work.put_job("compile", "stage1", labels={"team": "[bold]vision[/bold]\x1b[2J"})
    work.start(job_id, "stage1")
    shown = ibllm("show", job_id).out
    for words in (job_id, "team=[bold]vision[/bold]", "step 40/1,200 · loss 2.346 · gate 0.012 · 1,234 tokens/s"):
        assert words in shown
    assert "\x1b" not in shown
    assert ibllm("show", job_id, "--json").json["id"] == job_id


def test_checkpoints_are_shown_with_losses_and_gates(ibllm: Ibllm, work: Work) -> None:
    job_id = work.put_job()
    work.save(job_id, "stage1", 1200, train_loss=2.3456, gate_abs_mean=0.0123)
    [row] = ibllm("checkpoints", job_id).out.splitlines()[1:]
    assert row.split()[1:5] == ["stage1", "1,200", "2.3456", "0.0123"]
    assert ibllm("checkpoints", job_id, "--json").json["data"][0]["step_number"] == 1200


def test_a_job_is_paused_resumed_and_cancelled(ibllm: Ibllm, work: Work, client: Client) -> None:
    job_id = work.put_job()
    early = ibllm("resume", job_id)
    assert early.code == 1 and "not paused" in early.err
    assert f"ibllm resume {job_id}" in ibllm("pause", job_id).err
    assert "being paused" in ibllm("show", job_id).out
    assert ibllm("resume", job_id, "--budget", "3").code == 0
    budget = client.jobs.retrieve(job_id).budget
    assert budget is not None and budget.gpu_hours == 3
    assert "is being cancelled" in ibllm("cancel", job_id).err
    for wrong in ("0", "-1", "inf", "nan"):
        assert ibllm("resume", job_id, "--budget", wrong).code == 2


@pytest.mark.parametrize("words", [("show",), ("cancel",), ("checkpoints",), ("events",), ("watch",), ("events", "-f")])
def test_a_job_that_is_not_there_ends_with_5(ibllm: Ibllm, words: tuple[str, ...]) -> None:
    ended = ibllm(*words, "ftjob-none")
    assert ended.code == 5 and "there is no job 'ftjob-none'" in ended.err
