"""The demo's report: figures as JSON, the same with pictures as one self-contained page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from ibllm_core.contract import metrics as names
from orchestrator.demo.data import Row, data_url
from orchestrator.web import charts

Metrics = list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the report is made of, as it came from the service."""

    job: Mapping[str, Any]
    stage1_metrics: Metrics
    stage2_metrics: Metrics
    evaluation: Mapping[str, Any]
    held_out_captions: Sequence[Row]
    seconds: Mapping[str, float]
    addresses: Mapping[str, str]


def read_metrics(text: str) -> Metrics:
    """Rows of a result file; cells that were not measured are left out."""
    return [
        {name: float(value) for name, value in row.items() if value not in ("", None)}
        for row in csv.DictReader(io.StringIO(text))
    ]


def figures(evidence: Evidence) -> dict[str, Any]:
    """The content of ``report.json``."""
    runs = {run["kind"]: run for run in evidence.job["runs"]}
    outputs = {kind: runs[kind]["outputs"] for kind in ("stage1", "stage2")}
    groups = {
        stage: {
            group: {"before": found["sha256_before"], "after": found["sha256_after"]}
            for group, found in part["proof"]["frozen"].items()
        }
        for stage, part in outputs.items()
    }
    unchanged = all(pair["before"] == pair["after"] for part in groups.values() for pair in part.values())
    evaluated = {
        stage: {key: value for key, value in part.items() if key != "samples"}
        for stage, part in evidence.evaluation.items()
    }
    return {
        "job_id": evidence.job["id"],
        "model": evidence.job["fine_tuned_model"],
        **evaluated,
        "fusion": evidence.job["request"]["adapter"]["fusion"]["kind"],
        "gates": _gates(evidence),
        "frozen": {"unchanged": unchanged, "groups": groups},
        "trained": {stage: part["proof"]["trained"] for stage, part in outputs.items()},
        "seconds": {
            **evidence.seconds,
            "runs": {kind: run["seconds"] for kind, run in runs.items()},
        },
        "tokens_per_second": {
            stage: _median([row[names.TRAIN_TOKENS_PER_SECOND] for row in rows[1:]])
            for stage, rows in (("stage1", evidence.stage1_metrics), ("stage2", evidence.stage2_metrics))
        },
        "mlflow_run_ids": {kind: run["mlflow_run_id"] for kind, run in runs.items() if run["mlflow_run_id"]},
        "s3_prefix": evidence.addresses["s3"],
        "world_size": outputs["stage2"]["world_size"],
        "zero_stage": outputs["stage2"]["zero_stage"],
        "dtype": outputs["stage2"]["dtype"],
    }


def write(folder: Path, evidence: Evidence) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html`` and return the figures."""
    content = figures(evidence)
    (folder / "report.json").write_text(json.dumps(content, indent=1))
    pages = Environment(loader=PackageLoader("orchestrator.demo"), autoescape=select_autoescape())
    html = pages.get_template(
        "report.html"
    ).render(
        figures=content,
        evidence=evidence,
        charts={name: Markup(svg) for name, svg in _charts(evidence, content).items()},  # noqa: S704 (our own SVG)
        captions=[
            {**sample, "url": data_url(evidence.held_out_captions[sample["row"] - 1].picture)}
            for sample in evidence.evaluation["stage1"]["samples"]
        ],
        questions=evidence.evaluation["stage2"]["samples"][:8],
    )
    (folder / "report.html").write_text(html, encoding="utf-8")
    return content


def _charts(evidence: Evidence, content: Mapping[str, Any]) -> dict[str, str]:
    first, second = evidence.stage1_metrics, evidence.stage2_metrics
    offset = first[-1]["step"]
    moments = [row["step"] for row in first] + [offset + row["step"] for row in second[1:]]
    rows = [*first, *second[1:]]
    layers = sorted(name for name in first[0] if name.startswith("gate/layer_"))
    stage1, stage2 = content["stage1"], content["stage2"]
    drawn = {
        "loss": charts.line_chart(
            [
                charts.Series(name="stage 1: captions", points=_points(first, names.TRAIN_LOSS, 0), css_class="one"),
                charts.Series(
                    name="stage 2: questions", points=_points(second, names.TRAIN_LOSS, offset), css_class="two"
                ),
            ],
            x_label="optimizer step",
            y_label="training loss (nats a token)",
        ),
        "captions": charts.bar_chart(
            [
                ("words alone", stage1["eval_loss_before"], "base"),
                ("with a shuffled picture", stage1["eval_loss_shuffled"], "shuffled"),
                ("with the right picture", stage1["eval_loss"], "right"),
            ],
            unit="nats",
        ),
        "questions": charts.bar_chart(
            [
                ("with a shuffled picture", 100 * stage2["vqa_accuracy_shuffled"], "shuffled"),
                ("with the right picture", 100 * stage2["vqa_accuracy"], "right"),
            ],
            unit="%",
        ),
    }
    if layers:
        drawn["gates"] = charts.heat_map(
            [[row[layer] for row in rows] for layer in layers],
            columns=moments,
            x_label="optimizer step",
            y_label="layer",
        )
    return drawn


def _gates(evidence: Evidence) -> dict[str, float] | None:
    """Mean gate before stage 1 and after stage 2; None for a fusion without gates."""
    first, last = evidence.stage1_metrics[0], evidence.stage2_metrics[-1]
    if names.GATE_ABS_MEAN not in first:
        return None
    return {"abs_mean_first": first[names.GATE_ABS_MEAN], "abs_mean_last": last[names.GATE_ABS_MEAN]}


def _points(rows: Metrics, name: str, offset: float) -> list[tuple[float, float]]:
    return [(offset + row["step"], row[name]) for row in rows if name in row]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
