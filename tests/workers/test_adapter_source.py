"""Adapters from where runs left them: what a checkpoint becomes is what its run would have published then."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ibllm_core.adapter import files
from ibllm_core.contract import layout
from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.errors import InvalidWeightsError, ObjectMissingError
from ibllm_core.local_store import LocalStore
from ibllm_core.storage import sha256_of
from tests.workers.train import runs, tiny, world
from workers.adapter_source import fetch_adapter, read_header

EARLY, LAST = 10, 20
PUBLISHED = "models/x"


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.furnish(tmp_path_factory.mktemp("sources") / "world")


@pytest.fixture(scope="module")
def trained(furnished: Path) -> Path:
    """A store with a whole stage 2 in bf16, which rounds what the run keeps frozen."""
    root = runs.twin(furnished, "trained")
    runs.finish(root, second())
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """The same to change."""
    return Path(shutil.copytree(trained, tmp_path / "root"))


def second(preset: str = "paper", **changes: Any) -> TrainSpec:
    return tiny.small(
        "stage2",
        adapter={"lora": {"rank": 4}, "preset": preset},
        resources={"precision": "bf16"},
        checkpoints={"every_steps": EARLY},
        validation_dataset=None,
        **changes,
    )


def checkpoint(step: int, run: str = "stage2", job: str = "j") -> str:
    return layout.checkpoint(job, run, step)


def content(store: LocalStore, prefix: str, cache: Path) -> bytes:
    return (fetch_adapter(store, prefix, cache) / files.FILENAME).read_bytes()


def test_the_last_checkpoint_becomes_the_adapter_that_the_run_published(trained: Path, tmp_path: Path) -> None:
    store = LocalStore(trained)
    assert content(store, checkpoint(LAST), tmp_path) == content(store, PUBLISHED, tmp_path)
    rounded = files.read(fetch_adapter(store, checkpoint(LAST), tmp_path)).tensors["bind_network.project.weight"]
    exact = files.read(fetch_adapter(store, world.PARENT, tmp_path)).tensors["bind_network.project.weight"]
    assert torch.equal(rounded, exact.bfloat16().float()) and not torch.equal(rounded, exact)


def test_gates_that_a_preset_keeps_frozen_come_from_the_parent_too(furnished: Path, tmp_path: Path) -> None:
    root = runs.twin(furnished, "released")
    for dataset in (world.DATA, world.HELD_OUT):
        path = root / layout.manifest(layout.dataset(dataset))
        manifest = json.loads(path.read_bytes())
        manifest["counts"]["text_only"] = 0  # else the preset wants grey pictures for them
        path.write_text(json.dumps(manifest))
    runs.finish(root, second("released", hyperparameters={"max_steps": 2}))
    store = LocalStore(root)
    assert content(store, checkpoint(2), tmp_path) == content(store, PUBLISHED, tmp_path)
    assert "fusion.gates" not in load_file(root / checkpoint(2) / "trainable.safetensors")


def test_an_earlier_checkpoint_has_its_own_weights_and_the_same_frozen_ones(trained: Path, tmp_path: Path) -> None:
    store = LocalStore(trained)
    early, late = (files.read(fetch_adapter(store, checkpoint(step), tmp_path)) for step in (EARLY, LAST))
    weights = load_file(trained / checkpoint(EARLY) / "trainable.safetensors")
    assert early.header == late.header == read_header(store, checkpoint(EARLY)) == read_header(store, PUBLISHED)
    assert all(torch.equal(early.tensors[name], tensor) for name, tensor in weights.items())
    frozen = early.tensors.keys() - weights.keys()
    assert {name.split(".")[0] for name in frozen} == {"bind_network"}
    assert all(torch.equal(early.tensors[name], late.tensors[name]) for name in frozen)


def test_runs_begin_from_checkpoints_and_checkpoints_of_these_become_adapters(furnished: Path, tmp_path: Path) -> None:
    """Stage 1 goes on as stage 1 and becomes stage 2, which goes on as stage 2."""
    root = runs.twin(furnished, "chain")
    store, short = LocalStore(root), {"max_steps": 2}
    more = tiny.small(parent_adapter=world.PARENT, adapter_prefix="models/1", hyperparameters=short)
    runs.finish(root, more)
    first = checkpoint(2, "stage1")
    runs.finish(root, second(parent_adapter=first, adapter_prefix="models/2", hyperparameters=short))
    parent = files.read(fetch_adapter(store, checkpoint(2), tmp_path)).tensors
    proof = runs.finish(
        root, second(parent_adapter=checkpoint(2), adapter_prefix="models/3", job_id="k", hyperparameters=short)
    )["proof"]
    for prefix, published in (
        (first, "models/1"),
        (checkpoint(2), "models/2"),
        (checkpoint(2, job="k"), "models/3"),
    ):
        assert content(store, prefix, tmp_path) == content(store, published, tmp_path)
    elsewhere = LocalStore(tmp_path / "out", {"parent": root / first})  # as without a service
    assert content(elsewhere, "parent", tmp_path / "out/cache") == content(store, "models/1", tmp_path)
    for group, found in (("lora", ".lora_"), ("gates", "fusion.gates")):
        mine = torch.cat([tensor.flatten() for name, tensor in parent.items() if found in name])
        assert proof["trained"][group]["norm_before"] == pytest.approx(float(mine.bfloat16().float().norm()), rel=1e-5)
    assert proof["frozen"]["bind_network"]["sha256_before"] == proof["frozen"]["bind_network"]["sha256_after"]
    assert read_header(store, checkpoint(2, job="k")).parent == checkpoint(2)


def test_tensors_may_lie_in_several_files(root: Path, tmp_path: Path) -> None:
    whole = root / checkpoint(LAST) / "trainable.safetensors"
    tensors = sorted(load_file(whole).items())
    whole.unlink()
    for number, part in enumerate((tensors[::2], tensors[1::2]), start=1):
        save_file(dict(part), whole.with_name(f"trainable-0000{number}-of-00002.safetensors"))
    write_manifest(root / checkpoint(LAST))
    assert content(LocalStore(root), checkpoint(LAST), tmp_path) == content(LocalStore(root), PUBLISHED, tmp_path)


class CountingStore(LocalStore):
    """Remembers what was read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: list[str] = []

    def stream(self, key: str) -> Iterator[bytes]:
        self.read.append(key)
        return super().stream(key)


def test_all_of_a_node_share_what_is_made_once_without_the_optimizers_state(trained: Path, tmp_path: Path) -> None:
    store, found = CountingStore(trained), list[Path]()
    threads = [
        threading.Thread(target=lambda: found.append(fetch_adapter(store, checkpoint(LAST), tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    weights = [key for key in store.read if key.endswith(".safetensors")]
    assert sorted(weights) == sorted(
        [f"{world.PARENT}/adapter.safetensors", f"{checkpoint(LAST)}/trainable.safetensors"]
    )
    assert {path.name for path in found[0].iterdir()} == {files.FILENAME}


def test_what_a_crash_left_half_made_is_made_again(trained: Path, tmp_path: Path) -> None:
    store = LocalStore(trained)
    folder = fetch_adapter(store, checkpoint(LAST), tmp_path)
    whole = (folder / files.FILENAME).read_bytes()
    (folder / files.FILENAME).write_bytes(whole[:1000])
    folder.rename(folder.with_suffix(".part"))
    assert content(store, checkpoint(LAST), tmp_path) == whole


def test_a_checkpoint_of_an_older_version_is_refused_with_the_remedy(root: Path, tmp_path: Path) -> None:
    rewrite(root / checkpoint(LAST), header=None)
    assert_refused(LocalStore(root), checkpoint(LAST), tmp_path, "older version.*take the run's finished adapter")


def test_a_checkpoint_whose_parent_is_gone_is_refused_with_both_named(root: Path, tmp_path: Path) -> None:
    (root / layout.manifest(world.PARENT)).unlink()
    assert_refused(LocalStore(root), checkpoint(LAST), tmp_path, f"{checkpoint(LAST)} has only.*{world.PARENT}, is not")


def test_without_a_service_a_checkpoint_is_not_taken_for_its_own_parent(root: Path, tmp_path: Path) -> None:
    header = read_header(LocalStore(root), checkpoint(LAST))
    rewrite(root / checkpoint(LAST), header={**header.model_dump(mode="json"), "parent": "parent"})
    store = LocalStore(tmp_path / "out", {"parent": root / checkpoint(LAST)})
    assert_refused(store, "parent", tmp_path, "take the run's finished adapter")


def test_where_nothing_is_nothing_is_found(trained: Path, tmp_path: Path) -> None:
    for act in (
        lambda: read_header(LocalStore(trained), "x"),
        lambda: fetch_adapter(LocalStore(trained), "x", tmp_path),
    ):
        with pytest.raises(ObjectMissingError):
            act()


def assert_refused(store: LocalStore, prefix: str, cache: Path, message: str) -> None:
    for act in (lambda: read_header(store, prefix), lambda: fetch_adapter(store, prefix, cache)):
        with pytest.raises(InvalidWeightsError, match=message):
            act()


def rewrite(folder: Path, **changes: Any) -> None:
    """Make a checkpoint say something else of itself."""
    state = json.loads((folder / "state.json").read_bytes())
    (folder / "state.json").write_text(json.dumps({**state, **changes}))
    write_manifest(folder)


def write_manifest(folder: Path) -> None:
    manifest = folder / "MANIFEST.json"
    listed = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in folder.iterdir()
        if path != manifest
    }
    manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), "files": listed}))
