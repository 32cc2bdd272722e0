"""One rank under torchrun, on a folder that is a store: ``python -m tests.workers.train.rank ROOT SPEC``."""

import json
import logging
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.errors import CoreError
from ibllm_core.local_store import LocalStore
from workers.train.console import Console
from workers.train.control import Stop
from workers.train.engine.build import init_distributed
from workers.train.run import run_rank
from workers.train.setup import Clock


def main(root: Path, spec: Path) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    torch.set_num_threads(1)
    init_distributed()
    stop = Stop()
    stop.on_sigterm()
    cache = root / f"cache-{os.environ.get('NODE', '0')}"
    store = LocalStore(root)
    read = TrainSpec.model_validate_json(spec.read_bytes())
    try:
        outcome = run_rank(read, store, cache, Console(dist.get_rank()), stop, Clock())
    except CoreError as error:
        print(f"ERROR {type(error).__name__} {error.message}", flush=True)
        return 1
    if dist.get_rank() == 0:
        print(
            "OUTCOME", json.dumps({"reason": outcome.reason, "message": outcome.message, **outcome.outputs}), flush=True
        )
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
