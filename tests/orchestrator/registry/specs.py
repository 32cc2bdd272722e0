"""Specs of attempts that are about nothing but tracking."""

from __future__ import annotations

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import Resources
from ibllm_core.contract.run_spec import AttemptSpec


def attempt_spec(*, job_id: str = "job", number: int = 1) -> AttemptSpec:
    return AttemptSpec(
        job_id=job_id,
        run_id=f"{job_id}-stage1",
        attempt_id=f"{job_id}-stage1-{number}",
        attempt_number=number,
        service_url="http://none",
        token="secret",
        base="b",
        encoder="e",
        adapter=AdapterConfig(),
        seed=0,
        resources=Resources(),
    )
