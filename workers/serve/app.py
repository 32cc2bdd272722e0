"""The model server as an application of Ray Serve: ``workers.serve.app:build``."""

from __future__ import annotations

from typing import Any

from ray import serve

from ibllm_core.contract.serving import ServerArgs
from workers.serve.replica import ANSWERS_AT_ONCE, ChatReplica

MAX_ONGOING = 16  # of a replica: those that are answered, and those that wait or fetch their media
MAX_QUEUED = 64  # at the proxy, while a replica starts or all are busy; beyond it stands 503
LOOK_BACK_SECONDS = 30.0  # over which Serve averages, Serve's own default
REPORT_SECONDS = 1.0  # between two reports of who waits; Serve's own 10 would come on top of every cold start


def build(args: dict[str, Any]) -> Any:
    """The application for arguments of ``ServerArgs``; without requests it has no replica, and no model in memory."""
    server = ServerArgs.model_validate(args)
    deployment = serve.deployment(
        ChatReplica,
        name="chat",
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
        ray_actor_options={"num_cpus": server.cpus, "num_gpus": server.gpus},
        autoscaling_config={
            "min_replicas": 0,
            "initial_replicas": 0,
            "max_replicas": server.max_replicas,
            "target_ongoing_requests": ANSWERS_AT_ONCE,
            "downscale_delay_s": server.idle_seconds,
            "look_back_period_s": max(2 * REPORT_SECONDS, min(LOOK_BACK_SECONDS, server.idle_seconds)),
            "metrics_interval_s": REPORT_SECONDS,
        },
    )
    return deployment.bind(args)
