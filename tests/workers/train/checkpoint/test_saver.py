"""Saving beside the training: steps do not wait for a store, and a store that is away costs none of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from ibllm_core.contract.job_spec import CheckpointPolicy
from ibllm_core.errors import StorageError
from ibllm_core.local_store import LocalStore
from tests.workers.train import engines, gang
from workers.train.checkpoint import persistence
from workers.train.checkpoint.listing import Checkpoints
from workers.train.checkpoint.saver import Saver
from workers.train.control import Control, Stop


@pytest.mark.parametrize("ranks", [1, 2])
def test_steps_go_on_while_an_upload_hangs_and_further_saves_are_left_out(tmp_path: Path, ranks: int) -> None:
    for orders, complete in gang.run(train_beside_a_slow_store, tmp_path, ranks=ranks):
        assert orders == [True, False, False, False, True, True]
        assert complete == [6, 5, 1]


def test_a_checkpoint_is_of_its_step_although_training_went_on(tmp_path: Path) -> None:
    assert gang.run(save_then_train, tmp_path) == [True]


def test_a_save_waits_for_the_one_before_it(tmp_path: Path) -> None:
    assert gang.run(save_twice, tmp_path) == [[2, 1]]


def test_a_store_that_is_away_is_asked_again(tmp_path: Path) -> None:
    tries, complete = gang.run(save_through_an_outage, tmp_path)[0]
    assert tries == 4 + 3  # of the first file until the store is back, then one for each other file
    assert complete == [1]


def test_a_store_that_stays_away_fails_the_save_with_its_own_words(tmp_path: Path) -> None:
    (error,) = gang.run(save_into_nothing, tmp_path)
    assert type(error) is StorageError and error.message == "the store is away"


class Gate(LocalStore):
    """A store whose uploads wait until it is opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.entered, self.opened = threading.Event(), threading.Event()

    def upload(self, key: str, source: BinaryIO) -> None:
        self.entered.set()
        self.opened.wait()
        super().upload(key, source)


class Away(LocalStore):
    """A store whose first uploads fail."""

    def __init__(self, root: Path, failures: int) -> None:
        super().__init__(root)
        self.tries, self._failures = 0, failures

    def upload(self, key: str, source: BinaryIO) -> None:
        self.tries += 1
        if self.tries <= self._failures:
            source.read(100)
            raise StorageError("the store is away")
        super().upload(key, source)


def saver_of(rig: engines.Rig, store: LocalStore) -> Saver:
    policy = CheckpointPolicy(keep_last=100)
    return Saver(rig.engine, Checkpoints(store, "j", "stage1"), policy, store.root / f"scratch-{rig.engine.rank}")


def train_beside_a_slow_store(root: Path) -> tuple[list[bool], list[int]]:
    rig, store = engines.rig(), Gate(root)
    saver = saver_of(rig, store)
    control, orders = Control(CheckpointPolicy(every_steps=1), saver, Stop()), []
    for step in range(1, 7):
        control.begin(step)
        rig.train(step, step)
        orders.append(control.orders().save)
        if orders[-1]:
            saver.save(engines.state(rig, step), b"history")
        if step >= 4:
            store.opened.set()
            saver.wait()
    dist.barrier()
    return orders, engines.checkpoints(root).complete()


def save_then_train(root: Path) -> bool:
    rig, store = engines.rig(), Gate(root)
    saver = saver_of(rig, store)
    rig.train(1, 1)
    expected = {fragment.name: fragment.weight.clone() for fragment in rig.engine.fragments()}
    saver.save(engines.state(rig, 1), b"history")
    rig.train(2, 3)
    assert not any(torch.equal(f.weight, expected[f.name]) for f in rig.engine.fragments())
    store.opened.set()
    saver.wait()
    written = load_file(root / engines.checkpoints(root).prefix(1) / "trainable.safetensors")
    return all(torch.equal(written[name].view(-1), weight) for name, weight in expected.items())


def save_twice(root: Path) -> list[int]:
    rig, store = engines.rig(), Gate(root)
    saver = saver_of(rig, store)
    saver.save(engines.state(rig, 1), b"history")
    store.entered.wait()
    second = threading.Thread(target=saver.save, args=(engines.state(rig, 2), b"history"))
    second.start()
    second.join(0.2)
    assert second.is_alive() and saver.is_busy
    store.opened.set()
    second.join()
    saver.wait()
    return engines.checkpoints(root).complete()


def save_through_an_outage(root: Path) -> tuple[int, list[int]]:
    persistence.RETRY_SECONDS = (0.0,)
    rig, store = engines.rig(), Away(root, failures=3)
    saver = saver_of(rig, store)
    saver.save(engines.state(rig, 1), b"history")
    saver.wait()
    return store.tries, engines.checkpoints(root).complete()


def save_into_nothing(root: Path) -> Exception:
    persistence.PATIENCE_SECONDS = 0.0
    rig = engines.rig()
    saver = saver_of(rig, Away(root, failures=1))
    saver.save(engines.state(rig, 1), b"history")
    with pytest.raises(StorageError) as caught:
        saver.wait()
    return caught.value
