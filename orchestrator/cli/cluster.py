"""``ibllm cluster``."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from ibllm_core.contract.api.cluster import Cluster
from orchestrator.cli.options import JsonOption
from orchestrator.cli.screen import Column, age, out, print_json, print_table, say
from orchestrator.cli.service import ServiceCommand, connect

app = typer.Typer()
NODE_DIGITS = 12  # of 56; enough to tell nodes apart
NODES = (Column("node", is_whole=True), Column("CPU", is_number=True), Column("GPU", is_number=True))
RUNNING = (Column("job", is_whole=True), Column("run"), Column("state"), Column("holds"), Column("on"))
WAITING = (Column("job", is_whole=True), Column("run"), Column("needs"), Column("why"))


@app.command(cls=ServiceCommand)
def cluster(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the nodes, what runs on them, and what waits and why."""
    with connect(context) as client:
        view = client.cluster()
    if as_json:
        print_json(view)
        return
    nodes = ((node.node_id[:NODE_DIGITS], f"{node.cpus:g}", f"{node.gpus:g}") for node in view.nodes)
    print_table(NODES, nodes, title=_nodes_title(view))
    running = [(run.job_id, run.run, run.state, run.needs, _short(run.nodes)) for run in view.running]
    _print("running", view.others_running, RUNNING, running)
    waiting = [(run.job_id, run.run, run.needs, run.why or "") for run in view.waiting]
    _print("waiting", view.others_waiting, WAITING, waiting)
    if view.updated_at is not None:
        say(f"as the scheduler saw it {age(view.updated_at)} ago")


def _nodes_title(view: Cluster) -> str:
    return "nodes" if view.reachable else "nodes (as last seen: Ray does not answer)"


def _print(what: str, others: int, columns: Sequence[Column], runs: Sequence[Sequence[str]]) -> None:
    title = f"\n{what}{f' (and {others} of other projects)' if others else ''}"
    if runs:
        print_table(columns, runs, title=title)
    else:
        out().print(f"{title}: none", highlight=False)


def _short(nodes: list[str]) -> str:
    return ", ".join(sorted({node[:NODE_DIGITS] for node in nodes}))
