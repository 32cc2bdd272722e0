"""The driver of a training run: a Ray Train gang of DeepSpeed ranks, started together or not at all."""

from __future__ import annotations

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ibllm_core.contract.run_spec import Outcome, TrainSpec
from workers.train.worker import train_worker


def run(spec: TrainSpec) -> Outcome:
    """Train one stage; the last report of rank 0 is the outcome. Raises what a rank raised."""
    ray.init(log_to_driver=True)
    resources = spec.resources
    bundle = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        bundle["GPU"] = resources.gpus_per_worker
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"spec": spec.model_dump_json()},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=bundle,
        ),
        run_config=RunConfig(name=spec.attempt_id, storage_path=f"/tmp/ray-train-{spec.job_id}"),
    )
    result = trainer.fit()
    assert result.metrics is not None  # rank 0 reports before it returns
    return Outcome.model_validate(result.metrics["outcome"])
