"""How much memory a worker has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from ibllm_core.contract.job_spec import Resources
from ibllm_core.errors import InvalidSpecError
from ibllm_core.planning.choice import Room

# A process with torch, transformers, DeepSpeed, Ray and MLflow imported takes 580 MB; the rest is its data.
PROCESS_BYTES = 800_000_000


def room_of(resources: Resources, *, workers_on_node: int) -> Room:
    """The memory that this worker may use: what its GPU has free, or its share of the node's.

    ``InvalidSpecError`` where GPUs were asked for and this node shows none.
    """
    host = max(0, memory_limit() // workers_on_node - PROCESS_BYTES)
    if not resources.gpus_per_worker:
        return Room(device=host, host=0, is_gpu=False)
    if not torch.cuda.is_available():
        raise InvalidSpecError(
            f"resources.gpus_per_worker is {resources.gpus_per_worker:g}, but torch finds no GPU here: set it to 0, or "
            "give the node's image a CUDA build of torch and its driver"
        )
    free, total = torch.cuda.mem_get_info()
    return Room(device=min(free, int(total * min(1.0, resources.gpus_per_worker))), host=host, is_gpu=True)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that the processes of this node, or of this container, may use; ``root`` is where /proc and /sys lie."""
    limits = [file.read_text().strip() for file in _limit_files(root)]
    return min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit != "max")])


def _limit_files(root: Path) -> Iterator[Path]:
    """The limits of this process's cgroups and of all above them, which hold too; a cgroup of version 1 or 2."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top) and (folder / name).exists():
                yield folder / name
