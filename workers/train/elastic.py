"""Gangs that change their size with the cluster: Ray Train's own policy, with a view of the nodes that is not stale."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy

ASK_SECONDS = 1.0
ANSWER_SECONDS = 5.0
log = logging.getLogger(__name__)


class FreshElasticPolicy(ElasticScalingPolicy):  # type: ignore[misc]
    """Counts nodes anew before it decides.

    Ray Train 2.60 reads what its coordinator found up to 20 s ago, and so waits a minute for a node that died.
    """

    _asked = float("-inf")
    _reserved: Any = None

    def _get_reserved_resources(self) -> Any:
        if time.monotonic() - self._asked < ASK_SECONDS:
            return self._reserved
        ask = self._autoscaling_coordinator.get_reserved_resources.remote
        try:
            self._reserved = ray.get(ask(self._requester_id, recompute=True), timeout=ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            log.warning("Ray's autoscaling coordinator does not answer: %s", error)
            self._reserved = None
        self._asked = time.monotonic()
        return self._reserved


class ElasticTorchTrainer(TorchTrainer):  # type: ignore[misc]
    """A ``TorchTrainer`` with that policy."""

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        parts["scaling_policy"] = FreshElasticPolicy(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)
