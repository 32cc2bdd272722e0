"""The cluster as the API shows it."""

from __future__ import annotations

from typing import Literal

from ibllm_core.contract.base import Contract


class ShownNode(Contract):
    """A live node and what it offers."""

    node_id: str
    cpus: float
    gpus: float


class ClusterRun(Contract):
    """A run of the caller's project on the cluster, or in its queue with the reason."""

    job_id: str
    run: str
    state: str
    needs: str
    nodes: list[str]
    why: str | None


class Cluster(Contract):
    """As the scheduler last saw it: ``updated_at`` tells its age, ``reachable`` whether Ray answered then.

    Of other projects' runs only their numbers are told.
    """

    object: Literal["cluster"] = "cluster"
    updated_at: int | None
    reachable: bool
    nodes: list[ShownNode]
    running: list[ClusterRun]
    waiting: list[ClusterRun]
    others_running: int
    others_waiting: int
