"""A process group for a benchmark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch.distributed as dist

from workers.train.engine.build import init_distributed

VARIABLES = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


@contextmanager
def alone() -> Iterator[None]:
    """Be the only rank, as the trainer is without torchrun."""
    with mock.patch.dict(os.environ, VARIABLES):
        init_distributed()
        try:
            yield
        finally:
            dist.destroy_process_group()
