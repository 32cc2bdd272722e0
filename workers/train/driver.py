"""The driver of a training run: a Ray Train gang of DeepSpeed ranks, started together or not at all."""

from __future__ import annotations

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ibllm_core.contract.run_spec import Outcome, TrainSpec
from workers.settings import WorkerSettings


def run(spec: TrainSpec, settings: WorkerSettings) -> Outcome:
    """Train one stage; what rank 0 returns is the outcome. Raises what a rank raised."""
    ray.init(log_to_driver=True)
    resources = spec.resources
    bundle = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        bundle["GPU"] = resources.gpus_per_worker
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"spec": spec.model_dump_json()},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=bundle,
        ),
        run_config=RunConfig(name=spec.attempt_id, storage_path=str(settings.ibllm_cache / "ray-train")),
    )
    result = trainer.fit()
    return Outcome.model_validate_json(result.return_value)


def _train_worker(config: dict[str, str]) -> str:
    """Import the model's packages in the workers alone: the driver would spend seconds on what it never uses."""
    from workers.train.worker import train_worker

    return train_worker(config)
