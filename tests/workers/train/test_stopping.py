"""SIGTERM to torchrun: the very step is saved, and the run goes on from it as if nothing had been."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from tests.workers.train import runs, tiny

SECONDS = 20.0  # of a grace period that is 30 s under torchrun and Kubernetes; a fraction on a machine of its own


def test_a_run_that_is_asked_to_stop_saves_its_step_and_goes_on_from_it(tmp_path: Path) -> None:
    spec = tiny.small(hyperparameters={"n_epochs": 25}, checkpoints={"every_seconds": 1e6}, validation_dataset=None)
    (tmp_path / "stopped").mkdir()
    root = tmp_path / "stopped"
    tiny.furnish(tiny.local(root), tmp_path)
    whole = runs.twin(root, "whole")
    runs.finish(whole, spec.model_copy(update={"resources": spec.resources.model_copy(update={"workers": 2})}), ranks=2)

    process = tiny.start(root, spec, ranks=2)
    assert process.stdout is not None
    output = ""
    while "step 12 of" not in output:
        line = process.stdout.readline()
        assert line, output
        output += line
    asked = time.monotonic()
    process.terminate()
    rest, _ = process.communicate(timeout=120)
    assert time.monotonic() - asked < SECONDS
    outcome = json.loads(
        next(line for line in rest.splitlines() if line.startswith("OUTCOME ")).removeprefix("OUTCOME ")
    )
    assert outcome["reason"] == "preempted"
    (step,) = tiny.checkpoints(root)
    assert 12 <= step < 125
    assert outcome["message"] == f"stopped after step {step} of 125, which is saved"
    assert outcome["steps"] == step and outcome["trained_tokens"] > 0

    runs.finish(root, runs.attempt(spec, 2), ranks=2)
    assert runs.steps(root) == list(range(step + 1, 126))
    ours, theirs = tiny.weights(root), tiny.weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert tiny.losses(root) == tiny.losses(whole)
