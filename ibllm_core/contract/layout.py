"""The object store's layout: every key comes from here."""

from __future__ import annotations

MANIFEST = "MANIFEST.json"
PIN = "PINNED"


def file(file_id: str) -> str:
    """An uploaded file's bytes."""
    return f"files/{file_id}/content"


def upload_parts(upload_id: str) -> str:
    """Prefix of the parts of an upload, until it is complete."""
    return f"uploads/{upload_id}"


def upload_part(upload_id: str, part_id: str) -> str:
    """One part of an upload."""
    return f"{upload_parts(upload_id)}/{part_id}"


def base(name: str) -> str:
    """Prefix of a base model's folder; its ``MANIFEST.json`` is written last."""
    return f"bases/{name}"


def encoder(name: str) -> str:
    """Prefix of an encoder's weights; its ``MANIFEST.json`` is written last."""
    return f"encoders/{name}"


def dataset(dataset_id: str) -> str:
    """Prefix of a compiled dataset."""
    return f"datasets/{dataset_id}"


def dataset_of(recipe: str) -> str:
    """Where the id stands of the dataset that a file became, by the hash of the file and of all settings."""
    return f"datasets/by-recipe/{recipe}.json"


def features(feature_set: str) -> str:
    """Prefix of the features that one encoder gave, shared by all datasets."""
    return f"features/{feature_set}"


def staging(job_id: str, recipe: str) -> str:
    """Prefix of the rows that a compile run has finished, for its next attempt."""
    return f"jobs/{job_id}/compile/staging/{recipe}"


def run(job_id: str, run: str) -> str:
    """Prefix of everything one run of a job writes."""
    return f"jobs/{job_id}/{run}"


def spec(job_id: str, run_name: str, attempt_number: int) -> str:
    """The spec that an attempt reads."""
    return f"{run(job_id, run_name)}/attempts/{attempt_number}/spec.json"


def attempt_log(job_id: str, run_name: str, attempt_number: int) -> str:
    """An attempt's driver log, kept when the cluster is gone."""
    return f"{run(job_id, run_name)}/attempts/{attempt_number}/logs/driver.log"


def checkpoints(job_id: str, run_name: str) -> str:
    """Prefix of a run's checkpoints."""
    return f"{run(job_id, run_name)}/checkpoints"


def checkpoint(job_id: str, run_name: str, step: int) -> str:
    """Prefix of a checkpoint."""
    return f"{checkpoints(job_id, run_name)}/step-{step:08d}"


def pin(checkpoint_prefix: str) -> str:
    """What keeps a checkpoint, whatever its run's policy says: another job starts from it."""
    return f"{checkpoint_prefix}/{PIN}"


def is_checkpoint(prefix: str) -> bool:
    """Whether a prefix is a checkpoint's, and not a finished adapter's."""
    return "/checkpoints/step-" in prefix


def history(job_id: str, run_name: str, part: int) -> str:
    """A part of what a run logged: parts have no gaps, each is written once, and MLflow has nothing that is in none."""
    return f"{run(job_id, run_name)}/history/{part:08d}.jsonl"


def report(job_id: str, run_name: str, filename: str) -> str:
    """A report file of a run."""
    return f"{run(job_id, run_name)}/report/{filename}"


def model(model_id: str) -> str:
    """Prefix of a finished adapter."""
    return f"models/{model_id}"


def manifest(prefix: str) -> str:
    """The manifest of a prefix: written last, and what is without it does not exist."""
    return f"{prefix}/{MANIFEST}"
