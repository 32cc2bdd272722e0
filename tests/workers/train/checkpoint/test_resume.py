"""Checkpoints on a disk: complete or not there; a damaged one is said, and the one before it taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from safetensors.torch import load_file

from ibllm_core.contract.job_spec import CheckpointPolicy
from ibllm_core.errors import BaseMismatchError, InvalidSpecError
from ibllm_core.local_store import LocalStore
from tests.workers.train import engines, gang
from workers.train.checkpoint import parts
from workers.train.checkpoint.listing import Checkpoints
from workers.train.checkpoint.resume import resume
from workers.train.checkpoint.saver import Saver

MANIFEST = "MANIFEST.json"
TENSORS = [f"{stem}-0000{n}-of-00002.safetensors" for stem in ("trainable", "optimizer") for n in (1, 2)]
FILES = [*TENSORS, "state.json", "history.jsonl"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with checkpoints of steps 1 and 2, whose tensors two ranks wrote."""
    root = tmp_path_factory.mktemp("checkpoints") / "whole"
    gang.run(save_two, root, ranks=2)
    return root


@pytest.fixture(scope="module")
def found(whole: Path) -> dict[str, tuple[int | None, list[str], list[int]]]:
    """What resuming finds, says and leaves, by what was done to the newest checkpoint."""
    first: dict[str, tuple[int | None, list[str], list[int]]] = gang.run(damage_all, whole, ranks=2)[0]
    return first


def test_each_rank_writes_its_part_and_the_manifest_lists_all_files(whole: Path) -> None:
    folder = whole / engines.checkpoints(whole).prefix(2)
    assert {path.name for path in folder.iterdir()} == {*FILES, MANIFEST}
    assert json.loads((folder / MANIFEST).read_bytes())["files"].keys() == set(FILES)
    names = [load_file(folder / name).keys() for name in TENSORS]
    assert all(names) and names[0].isdisjoint(names[1]) and names[2].isdisjoint(names[3])


def test_the_newest_is_taken(found: dict[str, tuple[int | None, list[str], list[int]]]) -> None:
    assert found["nothing"] == (2, [], [2, 1])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damage_to_any_file_is_said_and_the_one_before_taken(
    found: dict[str, tuple[int | None, list[str], list[int]]], damage: str, file: str
) -> None:
    step, said, left = found[f"{damage} {file}"]
    assert (step, left) == (1, [1])
    (message,) = said
    assert "the checkpoint of step 2 is damaged and was removed" in message and file in message


def test_a_manifest_that_cannot_be_read_is_damage(
    found: dict[str, tuple[int | None, list[str], list[int]]],
) -> None:
    for content in ("no json", "null", "{}", '{"files": 7}', '{"files": {"state.json": {}}}'):
        step, said, left = found[f"manifest {content}"]
        assert (step, left) == (1, [1])
        assert "the checkpoint of step 2 is damaged" in said[0]


def test_any_byte_of_the_manifest_may_be_wrong(found: dict[str, tuple[int | None, list[str], list[int]]]) -> None:
    flipped = [result for name, result in found.items() if name.startswith("byte ")]
    assert len(flipped) > 50
    for step, said, left in flipped:
        assert (step, left) == ((1, [1]) if said else (2, [2, 1]))
    assert sum(step == 1 for step, _, _ in flipped) > len(flipped) // 2


def test_without_its_manifest_a_checkpoint_does_not_exist(
    found: dict[str, tuple[int | None, list[str], list[int]]],
) -> None:
    assert found["missing MANIFEST.json"] == (1, [], [1])


def test_where_all_are_damaged_nothing_is_left_to_go_on_from(
    found: dict[str, tuple[int | None, list[str], list[int]]],
) -> None:
    step, said, left = found["all"]
    assert (step, len(said), left) == (None, 2, [])


def test_other_settings_and_another_base_are_refused_with_both_named(whole: Path) -> None:
    recipe, base = gang.run(refusals, whole)[0]
    assert type(recipe) is InvalidSpecError and "(recipe recipe, now other)" in recipe.message
    assert type(base) is BaseMismatchError and "weights base, but this one's are another" in base.message


def test_the_manifest_comes_after_all_files(tmp_path: Path) -> None:
    first, second = gang.run(save_recorded, tmp_path, ranks=2)
    assert first[-1] == MANIFEST and MANIFEST not in [*first[:-1], *second]
    assert {*first[:-1], *second} == set(FILES)


def test_old_checkpoints_go_and_one_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    assert gang.run(save_many, tmp_path)[0] == [[1], [2, 1], [3, 2], [4, 3], [5, 4]]


def save_two(root: Path) -> None:
    parts.BYTES_A_WRITER = 1
    rig = engines.rig(zero_stage=1)
    for step in (1, 2):
        rig.train(step, step)
        engines.save(rig, root, step)
    shutil.rmtree(root / "scratch", ignore_errors=True)


def damage_all(whole: Path) -> dict[str, tuple[int | None, list[str], list[int]]]:
    rig = engines.rig(zero_stage=1)
    folder = Path(engines.checkpoints(whole).prefix(2))
    manifest = (whole / folder / MANIFEST).read_bytes()
    cases: dict[str, Callable[[Path], Any]] = {"nothing": lambda root: None}
    for file in (*FILES, MANIFEST):
        cases[f"missing {file}"] = lambda root, file=file: (root / folder / file).unlink()
        cases[f"flipped {file}"] = lambda root, file=file: flip(root / folder / file)
    for content in ("no json", "null", "{}", '{"files": 7}', '{"files": {"state.json": {}}}'):
        cases[f"manifest {content}"] = lambda root, text=content: (root / folder / MANIFEST).write_text(text)
    for place in range(0, len(manifest), len(manifest) // 60):
        cases[f"byte {place}"] = lambda root, place=place: flip(root / folder / MANIFEST, place)
    cases["all"] = lambda root: [flip(path) for path in root.rglob("state.json")]
    return {name: resumed(rig, whole, case) for name, case in cases.items()}


def resumed(rig: engines.Rig, whole: Path, damage: Callable[[Path], Any]) -> tuple[int | None, list[str], list[int]]:
    root, said = whole.parent / "damaged", list[str]()
    if rig.engine.rank == 0:
        shutil.copytree(whole, root)
        damage(root)
    dist.barrier()
    opened = engines.load(rig, root, said)
    left = engines.checkpoints(root).complete()
    assert opened is None or rig.engine.updates == opened.state.step
    dist.barrier()
    if rig.engine.rank == 0:
        shutil.rmtree(root)
    return opened.state.step if opened else None, said, left


def flip(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 0x04
    path.write_bytes(content)


def refusals(root: Path) -> list[Exception]:
    rig, caught = engines.rig(), []
    for changes in ({"recipe": "other", "base_sha256": "base"}, {"recipe": "recipe", "base_sha256": "another"}):
        with pytest.raises((InvalidSpecError, BaseMismatchError)) as refused:
            resume(rig.engine, engines.checkpoints(root), root / "cache", **changes)
        caught.append(refused.value)
    return caught


class RecordingStore(LocalStore):
    """Remembers what was written, in its order."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.written: list[str] = []

    def put(self, key: str, body: bytes, *, only_new: bool = False) -> None:
        if key.endswith(MANIFEST):
            assert {path.name for path in (self.root / key).parent.iterdir()} == set(FILES)
        super().put(key, body, only_new=only_new)
        self.written.append(Path(key).name)

    def upload(self, key: str, source: Any) -> None:
        super().upload(key, source)
        self.written.append(Path(key).name)


def save_recorded(root: Path) -> list[str]:
    parts.BYTES_A_WRITER = 1
    rig, store = engines.rig(), RecordingStore(root)
    saver = Saver(rig.engine, Checkpoints(store, "j", "stage1"), CheckpointPolicy(), root / "scratch")
    saver.save(engines.state(rig, 1), b"history")
    saver.wait()
    return store.written


def save_many(root: Path) -> list[list[int]]:
    rig, left = engines.rig(), []
    for step in range(1, 6):
        engines.save(rig, root, step, CheckpointPolicy(keep_last=2, keep_best=0))
        left.append(engines.checkpoints(root).complete())
        (root / engines.checkpoints(root).prefix(step) / MANIFEST).write_text("no json")
    return left
