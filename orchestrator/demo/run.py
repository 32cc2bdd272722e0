"""``ibllm demo``: data, upload, one job, live progress, report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ibllm_core.contract.adapter_config import FusionKind
from ibllm_core.contract.api.jobs import FineTuningJob
from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.contract.states import JobStatus, TerminationReason
from orchestrator.cli.watching import display_on, follow
from orchestrator.client import Client, ClientError
from orchestrator.demo import data, packages, report
from orchestrator.local.parts import service_environment
from orchestrator.local.stack import Stack
from orchestrator.local.weights import import_base

BASE = "smollm2-135m-instruct"
ENCODER = "efficientnet-lite0"
ROW_TOKENS = 128
SMALL = data.Size(
    stamps=60, held_out_captions=12, shape_pictures=20, questions=80, held_out_pictures=10, held_out_questions=24
)


@dataclass
class _Clock:
    """Seconds of each part of the demo, and of all of it."""

    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": time.monotonic() - self.began}


def run_demo(stack: Stack, console: Console, *, small: bool, fusion: FusionKind) -> int:
    """Run it all; 0 when the job succeeded. A failure or an interrupt leaves no process that was not there before."""
    clock = _Clock()
    stack.home.prepare()
    with clock.measure("packages"):
        sources = packages.fetch(stack.home.root / "packages")
    was_up = stack.is_up
    try:
        with clock.measure("stack"):
            stack.up(console.print)
        succeeded = _run_job(stack, sources, console, clock, small=small, fusion=fusion)
    except BaseException:
        if not was_up:
            console.print("stopping what was started ...")
            stack.down()
        raise
    if not succeeded and not was_up:
        stack.down()
    if succeeded and not was_up:
        console.print("the stack is still up, so that you can look around; `ibllm down` stops it")
    return 0 if succeeded else 1


def _run_job(
    stack: Stack,
    sources: packages.Sources,
    console: Console,
    clock: _Clock,
    *,
    small: bool,
    fusion: FusionKind,
) -> bool:
    environment = service_environment(stack.home)
    name = "demo" if fusion == "token_add" else f"demo-{fusion}"
    folder = stack.home.root / name
    folder.mkdir(exist_ok=True)
    with Client(environment["IBLLM_SERVICE_URL"], environment["IBLLM_API_KEY"]) as client:
        with clock.measure("data"), console.status("preparing pictures, captions and questions ..."):
            chosen = data.choose(sources, SMALL if small else data.FULL)
            files = _upload(client, chosen, folder)
        with clock.measure("base"), console.status(f"bringing {BASE} into the object store ..."):
            import_base(BASE, sources.base_gguf, environment)
        job = client.jobs.submit(_job_request(files, name, fusion))
        console.print(f"job {job.id} was submitted")
        try:
            with display_on(console) as display:
                job = follow(client, job.id, display)
        except BaseException:
            client.jobs.cancel(job.id)
            raise
        if job.status != JobStatus.SUCCEEDED:
            _explain(client, job, stack, console)
            return False
        evidence = _gather(client, job, chosen, clock, environment)
    content = report.write(folder, evidence)
    _show(content, folder, console)
    return True


def _upload(client: Client, chosen: data.DemoData, folder: Path) -> dict[str, str]:
    files = {}
    for name, rows in vars(chosen).items():
        path = folder / f"{name}.jsonl"
        data.write_jsonl(path, rows)
        files[name] = client.files.wait_for_processing(client.files.upload(path).id).id
    return files


def _job_request(files: dict[str, str], name: str, fusion: FusionKind) -> dict[str, Any]:
    """One job, two stages; docs/performance.md says how the settings were chosen, and what was seen in choosing."""
    common = {"row_tokens": ROW_TOKENS, "rows_per_step": 2, "learning_rate": 5e-4}
    first = Hyperparameters(n_epochs=3, gate_learning_rate=3e-2, **common)
    second = Hyperparameters(n_epochs=1, gate_learning_rate=2e-3, **common)
    return {
        "model": BASE,
        "encoder": ENCODER,
        "suffix": name,
        "adapter": {"fusion": fusion},
        "stages": [
            {
                "stage": "stage1",
                "training_file": files["captions"],
                "validation_file": files["held_out_captions"],
                "template": "short",
                "hyperparameters": first.model_dump(),
            },
            {
                "stage": "stage2",
                "training_file": files["questions"],
                "validation_file": files["held_out_questions"],
                "template": "short",
                "hyperparameters": second.model_dump(),
            },
        ],
        "resources": {"workers": 2, "cpus_per_worker": 1, "zero_stage": 2},
    }


def _explain(client: Client, job: FineTuningJob, stack: Stack, console: Console) -> None:
    """Which run failed, why, and where its log is; the log is copied out, since the stack may go down now."""
    message = job.error.message if job.error else f"the job is {job.status}"
    console.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
    fine = (TerminationReason.SUCCEEDED, None)
    failed = next((run for run in job.runs if run.reason not in fine and run.log), None)
    if failed is None:
        return
    path = stack.home.logs / f"{failed.id}.log"
    try:
        path.write_bytes(b"".join(client.jobs.read_log(job.id, failed.kind)))
        console.print(f"the log of {failed.kind} is in {path}", soft_wrap=True)
    except ClientError as error:
        console.print(f"its log could not be read: {escape(error.message)}", soft_wrap=True)


def _gather(
    client: Client, job: FineTuningJob, chosen: data.DemoData, clock: _Clock, environment: dict[str, str]
) -> report.Evidence:
    described = [client.files.retrieve(file_id) for file_id in job.result_files]
    contents = {file.filename: client.files.content(file.id) for file in described}
    return report.Evidence(
        job=job.model_dump(mode="json"),
        stage1_metrics=report.read_metrics(contents["stage1_metrics.csv"].decode()),
        stage2_metrics=report.read_metrics(contents["stage2_metrics.csv"].decode()),
        evaluation=json.loads(contents["evaluation.json"]),
        held_out_captions=chosen.held_out_captions,
        seconds=clock.total(),
        addresses={
            "MLflow": environment["IBLLM_MLFLOW_URL"],
            "s3": f"s3://{environment['IBLLM_S3_BUCKET']}/{job.s3_prefix}",
            "API object": f"{environment['IBLLM_SERVICE_URL']}/v1/fine_tuning/jobs/{job.id}",
        },
    )


def _show(content: dict[str, Any], folder: Path, console: Console) -> None:
    first, second, gates = content["stage1"], content["stage2"], content["gates"]
    table = Table(box=None, pad_edge=False, show_header=False)
    right, shuffled = f"{first['eval_loss']:.2f}", f"{first['eval_loss_shuffled']:.2f}"
    table.add_row(
        "held-out captions, loss",
        f"{first['eval_loss_before']:.2f} before, [bold]{right}[/bold] with the right picture, {shuffled} shuffled",
    )
    table.add_row(
        "held-out questions, accuracy",
        f"[bold]{second['vqa_accuracy']:.1%}[/bold] with the right picture, {second['vqa_accuracy_shuffled']:.1%} "
        f"shuffled ({second['vqa_questions']} questions)",
    )
    if gates:
        first_last = (gates["abs_mean_first"], gates["abs_mean_last"])
        table.add_row("mean gate", "{:.3f} at the start, {:.3f} at the end".format(*first_last))
    table.add_row("frozen weights", "unchanged" if content["frozen"]["unchanged"] else "[red]CHANGED[/red]")
    table.add_row("model", content["model"])
    table.add_row("seconds", f"{content['seconds']['total']:.0f}")
    table.add_row("report", str(folder / "report.html"))
    console.print(table)
