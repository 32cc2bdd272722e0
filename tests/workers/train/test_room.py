from pathlib import Path

import psutil
import pytest

from ibllm_core.contract.job_spec import Resources
from ibllm_core.errors import InvalidSpecError
from ibllm_core.planning.memory import BUCKET_ELEMENTS
from workers.train.engine import zero
from workers.train.room import PROCESS_BYTES, memory_limit, room_of

GB = 10**9


def machine(root: Path, cgroup: str, **limits: str) -> Path:
    """A root with a process in a cgroup, and limits by the folder under /sys/fs/cgroup."""
    for path, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{p}": t for p, t in limits.items()}}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return root


def test_a_container_of_version_2_has_its_own_limit(tmp_path: Path) -> None:
    assert memory_limit(machine(tmp_path, "0::/", **{"memory.max": str(GB)})) == GB


def test_the_tightest_of_nested_cgroups_counts(tmp_path: Path) -> None:
    limits = {"pods/memory.max": str(2 * GB), "pods/one/memory.max": "max", "memory.max": str(3 * GB)}
    assert memory_limit(machine(tmp_path, "0::/pods/one", **limits)) == 2 * GB


def test_a_container_of_version_1_has_its_own_limit(tmp_path: Path) -> None:
    groups = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a"
    limits = {"memory/docker/a/memory.limit_in_bytes": str(GB), "cpu/docker/a/cpu.shares": "1024"}
    assert memory_limit(machine(tmp_path, groups, **limits)) == GB


@pytest.mark.parametrize("text", ["max", str(2**63 - 4096)])
def test_without_a_limit_there_is_the_machines_memory(tmp_path: Path, text: str) -> None:
    assert memory_limit(machine(tmp_path, "0::/", **{"memory.max": text})) == psutil.virtual_memory().total
    assert memory_limit(tmp_path / "no proc") == psutil.virtual_memory().total


def test_workers_of_a_node_share_its_memory() -> None:
    alone, shared = (room_of(Resources(), workers_on_node=count) for count in (1, 4))
    assert alone.device == memory_limit() - PROCESS_BYTES and alone.host == 0 and not alone.is_gpu
    assert shared.device == max(0, memory_limit() // 4 - PROCESS_BYTES)


def test_gpus_that_are_not_there_are_named() -> None:
    with pytest.raises(InvalidSpecError, match=r"resources.gpus_per_worker is 1, but torch finds no GPU"):
        room_of(Resources(gpus_per_worker=1), workers_on_node=1)


def test_the_plan_counts_the_buckets_that_the_engine_sets() -> None:
    assert zero.BUCKET_ELEMENTS == BUCKET_ELEMENTS
