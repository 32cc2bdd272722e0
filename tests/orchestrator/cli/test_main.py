"""The command as a whole: help, exit statuses, and users who mistype, pipe, or have no service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperCommand

from orchestrator.cli.lazy import load
from orchestrator.cli.main import Contents
from tests.orchestrator.api.service import Live
from tests.orchestrator.api.tenants import new_project
from tests.orchestrator.cli.conftest import Ibllm, command, in_process
from tests.orchestrator.client.scripted import ScriptedServer, refusal
from tests.orchestrator.client.work import Work

SLOW_TO_LOAD = ("torch", "ray", "mlflow", "sqlalchemy", "pydantic", "httpx", "ibllm_core")
NOT_FOR_CLIENTS = ("torch", "ray", "mlflow", "transformers", "sqlalchemy", "fastapi", "boto3")
COMMANDS = sorted(Contents.stubs)


def loaded_by(code: str, names: tuple[str, ...]) -> str:
    script = f"import sys\n{code}\nprint([name for name in {names!r} if name in sys.modules], file=sys.stderr)"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr


def test_help_loads_nothing_that_is_slow() -> None:
    code = "from orchestrator.cli.main import run; assert run(['--help']) == 0"
    assert loaded_by(code, SLOW_TO_LOAD) == "[]\n"


def test_a_command_on_the_service_loads_no_part_of_it() -> None:
    code = "from orchestrator.cli.main import run; assert run(['ls', '--url', 'http://127.0.0.1:1', '--key', 'k']) == 3"
    assert loaded_by(code, NOT_FOR_CLIENTS).splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_of_itself_what_the_contents_say_of_it(name: str) -> None:
    stub = Contents.stubs[name]
    assert str(load(stub).help).split("\n")[0] == stub.help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(ibllm: Ibllm, name: str) -> None:
    assert ibllm(name, "--help").code == 0
    for inner in getattr(load(Contents.stubs[name]), "commands", {}):
        assert ibllm(name, inner, "--help").code == 0


def test_commands_that_read_speak_json() -> None:
    reading = ("ls", "show", "watch", "events", "checkpoints", "models", "me", "cluster", "audit")
    groups = ("data", "projects", "members", "keys", "webhooks")
    commands: list[TyperCommand] = [load(Contents.stubs[name]) for name in reading]
    for name in groups:
        commands += [found for one, found in load(Contents.stubs[name]).commands.items() if one in reading]
    assert len(commands) == len(reading) + len(groups) + 1
    for one in commands:
        assert "--json" in [word for param in one.params for word in param.opts], one.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shwo", "x"), "Did you mean"),
        (("show",), "JOB"),
        (("ls", "--limit", "0"), "--limit"),
        (("ls", "--colour"), "--colour"),
        (("ls", "--metadata", "x"), "write key=value"),
        (("keys", "create", "x", "--scope", "everything"), "--scope"),
        (("projects", "quota"), "name a quota"),
        (("projects", "quota", "--max-gpus", "many"), "neither a number nor 'none'"),
        (("data", "upload", "none.jsonl"), "none.jsonl"),
        (("chat", "m", "--image", "none.png"), "none.png"),
    ],
)
def test_a_mistyped_command_is_a_usage_error(ibllm: Ibllm, at: Live, words: tuple[str, ...], said: str) -> None:
    ended = ibllm(*words)
    assert ended.code == 2 and said in " ".join(ended.err.split()) and ended.out == ""


def test_exit_statuses_tell_what_went_wrong(live: Live, database: str) -> None:
    """In processes of their own, as scripts see them."""
    reader = new_project(database, "reader")
    good = {"IBLLM_URL": live.base_url, "IBLLM_API_KEY": reader.key}
    assert in_process("ls", **good).code == 0
    refused = in_process("keys", "create", "x", **good)
    assert refused.code == 4 and "project:write" in refused.err
    assert in_process("ls", **{**good, "IBLLM_API_KEY": "wrong"}).code == 4
    assert in_process("show", "ftjob-none", **good).code == 5
    away = in_process("ls", "--url", "http://127.0.0.1:1", "--key", "k")
    assert away.code == 3 and "nothing answers at http://127.0.0.1:1/v1" in away.err
    nobody = in_process("ls")
    assert nobody.code == 3
    assert all(remedy in nobody.err for remedy in ("ibllm login", "IBLLM_URL", "ibllm up"))
    for ended in (refused, away, nobody):
        assert ended.out == "" and ended.err.startswith("error: ") and "Traceback" not in ended.err


def test_a_failing_service_is_named_with_the_request(ibllm: Ibllm, scripted: ScriptedServer) -> None:
    scripted.will_answer(refusal(500, "the service met a defect", **{"retry-after-ms": "0"}))
    ended = ibllm("ls")
    assert ended.code == 1 and "the service met a defect (request req-1)" in ended.err


def test_who_reads_only_the_beginning_hears_no_complaint(at: Live, work: Work) -> None:
    for _ in range(100):
        work.put_job(labels={"why": "x" * 500})
    for words in (("ls", "--all"), ("ls", "--all", "--json")):
        with subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""


def test_a_terminal_is_never_wider_than_it_is_and_a_pipe_is_never_cut(
    at: Live, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = work.put_job(labels={"wide": "yes"})
    work.wait(job_id, "stage1", "because " * 40)
    words = ("ls", "--metadata", "wide=yes")
    narrow = in_process(*words, COLUMNS="80")
    assert max(map(len, narrow.out.splitlines())) <= 80 and job_id in narrow.out
    monkeypatch.delenv("COLUMNS")
    assert ("because " * 40).strip() in in_process(*words).out


def test_a_disk_that_cannot_be_written_is_one_sentence(at: Live, ibllm: Ibllm, service: object, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    ended = ibllm("download", service.file(), "--to", tmp_path / "taken/folder")  # type: ignore[attr-defined]
    assert ended.code == 1 and "Not a directory" in ended.err


def test_job_ids_are_completed_by_the_service(at: Live, work: Work) -> None:
    job_id = work.put_job()
    completed = in_process(
        **{"_IBLLM_COMPLETE": "complete_bash", "COMP_WORDS": f"ibllm show {job_id[:12]}", "COMP_CWORD": "2"}
    )
    assert job_id in completed.out.split()
    commands = in_process(**{"_IBLLM_COMPLETE": "complete_bash", "COMP_WORDS": "ibllm ch", "COMP_CWORD": "1"})
    assert set(commands.out.split()) == {"chat", "checkpoints"}
    away = {"IBLLM_URL": "http://127.0.0.1:1", "_IBLLM_COMPLETE": "complete_bash", "COMP_WORDS": "ibllm show f"}
    nothing = in_process(**away, COMP_CWORD="2")
    assert (nothing.out.strip(), nothing.err) == ("", "")
