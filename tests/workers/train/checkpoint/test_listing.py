from pathlib import Path

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import CheckpointPolicy
from ibllm_core.local_store import LocalStore
from workers.train.checkpoint.listing import Checkpoints


def test_a_checkpoint_that_a_job_starts_from_stays_beyond_the_policy(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    checkpoints = Checkpoints(store, "ftjob-1", "stage1")
    for step in (10, 20, 30):
        store.put_json(layout.manifest(checkpoints.prefix(step)), {"files": {}, "validation_loss": None})
    store.put(layout.pin(checkpoints.prefix(10)), b"")
    assert checkpoints.tidy(CheckpointPolicy(keep_last=1, keep_best=0))
    assert checkpoints.complete() == [30, 10]
