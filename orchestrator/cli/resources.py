"""The service's resources as tables for a terminal."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.table import Table

from orchestrator.cli.client import Client


def jobs_table(client: Client) -> Table:
    """Jobs, newest first, each with the run that it is at."""
    table = _table("job", "status", "base", "created", "now")
    for job in client.get("/fine_tuning/jobs", limit=100)["data"]:
        table.add_row(job["id"], job["status"], job["model"], _time(job["created_at"]), _where(job))
    return table


def events_table(client: Client, job_id: str) -> Table:
    """A job's events, oldest first."""
    table = _table("time", "level", "event")
    for event in reversed(client.get(f"/fine_tuning/jobs/{job_id}/events", limit=100)["data"]):
        table.add_row(_time(event["created_at"]), event["level"], event["message"])
    return table


def models_table(client: Client) -> Table:
    """Finished models with their origin."""
    table = _table("model", "base", "job", "weights", "sha256")
    for model in client.get("/models")["data"]:
        table.add_row(model["id"], model["base"], model["job_id"], model["uri"], model["sha256"][:12])
    return table


def cluster_tables(client: Client) -> list[Table]:
    """Nodes; runs on them; runs that wait, and why."""
    view = client.get("/cluster")
    title = "nodes" if view["reachable"] else "nodes (as last seen: Ray does not answer)"
    nodes = _table("node", "CPU", "GPU", title=title)
    for node in view["nodes"]:
        nodes.add_row(node["node_id"][:16], f"{node['cpus']:g}", f"{node['gpus']:g}")
    running = _table("job", "run", "state", "holds", "on", title="running")
    for run in view["running"]:
        places = ", ".join(sorted({node[:16] for node in run["nodes"]})) or "-"
        running.add_row(run["job_id"], run["run"], run["state"], run["needs"], places)
    waiting = _table("job", "run", "needs", "why", title="waiting")
    for run in view["waiting"]:
        waiting.add_row(run["job_id"], run["run"], run["needs"], run["why"] or "-")
    return [nodes, running, waiting]


def _where(job: dict[str, Any]) -> str:
    """The run that a job is at, or why it waits."""
    for run in job["runs"]:
        if run["state"] != "done":
            waiting = run["waiting"]
            return f"{run['kind']} waits: {waiting['message']}" if waiting else f"{run['kind']} {run['state']}"
    return str(job["fine_tuned_model"] or (job["error"] or {}).get("message", ""))


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in columns:
        # An identifier is there to be copied: it is never broken, other columns give way.
        table.add_column(column, overflow="fold", no_wrap=column in ("job", "model"))
    return table


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
