"""The trainer without the service: ``python -m workers.train.main spec.json``, or under ``torchrun`` for several GPUs.

The spec is one JSON object, ``workers.train.local.LocalTraining``; docs/training.md has an example. Everything is
written below its ``output``; the same command goes on from the newest checkpoint there, on any number of processes.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from pathlib import Path

from ibllm_core.errors import CoreError
from workers.train import local
from workers.train.console import Console

STOPPED = 2


def main(path: Path) -> int:
    """Train, and say where the adapter is; the exit status is 0 for a whole training, 2 for one that was stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    for name in ("DeepSpeed", "ray"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return _train(local.read(path))
    except CoreError as error:
        sys.stderr.write(error.message + "\n")
        return 1


def _train(training: local.LocalTraining) -> int:
    # Imported here: a spec that is wrong is refused before torch is there.
    import torch.distributed as dist

    from workers.train.control import Stop
    from workers.train.engine.build import init_distributed
    from workers.train.run import run_rank
    from workers.train.setup import Clock, decided_by_first

    _be_alone()
    stop, clock, store = Stop(), Clock(), local.open_output(training)
    stop.on_sigterm()
    init_distributed()
    with clock.part("base and data"):
        datasets = decided_by_first(lambda: local.make_ready(training, store))
    spec = local.to_spec(training, datasets, dist.get_world_size())
    outcome = run_rank(spec, store, store.root / "cache", Console(dist.get_rank()), stop, clock)
    is_first = dist.get_rank() == 0
    dist.destroy_process_group()
    if is_first:
        where = f"the adapter is {store.uri(spec.adapter_prefix)}"
        sys.stdout.write((where if outcome.reason.is_success else outcome.message) + "\n")
    return 0 if outcome.reason.is_success else STOPPED


def _be_alone() -> None:
    """Without torchrun, what torchrun would say to the only process."""
    if "RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
