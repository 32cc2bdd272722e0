"""Names of fine-tuned models and of checkpoints, in OpenAI's form ``ft:<base>:<organisation>:<suffix>:<id>``."""

from __future__ import annotations

from orchestrator.db.models import Job


def model_name(job: Job, organization_id: str) -> str:
    """The name of what a job makes."""
    suffix = job.request.get("suffix") or ""
    organization = organization_id.removeprefix("org-")
    return f"ft:{job.request['model']}:{organization}:{suffix}:{job.id.removeprefix('ftjob-')}"


def checkpoint_name(job: Job, stage: str, step: int, organization_id: str) -> str:
    """The name under which a checkpoint can be used; both stages of a job have steps of the same number."""
    return f"{model_name(job, organization_id)}:ckpt-{stage}-step-{step}"
