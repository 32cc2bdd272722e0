from __future__ import annotations

import pickle

import pytest
import ray
from ray.train import ControllerError

from ibllm_core.errors import InvalidSpecError, OutOfMemoryError, StorageError
from tests.workers.train import world
from workers.errors import WorkerLostError, cause_of, chain_of
from workers.train.restarts import RESTARTS, changed, reason_of

GLOO = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4711")
LOST = ray.exceptions.ActorDiedError()


def test_what_a_rank_raised_comes_before_what_its_peers_noticed() -> None:
    wrong = InvalidSpecError("rows_per_step is 1")
    assert cause_of({0: GLOO, 1: wrong, 2: LOST}) is wrong
    broken = ValueError("a shape is wrong")
    assert cause_of({0: GLOO, 1: broken}) is broken
    assert cause_of({0: GLOO}) is GLOO


def test_a_lost_worker_comes_before_the_peers_that_noticed_it() -> None:
    cause = cause_of({0: GLOO, 1: LOST})
    assert isinstance(cause, WorkerLostError)
    assert str(cause).startswith("worker 1 was lost: ")


def test_the_controllers_error_shows_its_cause_after_pickling() -> None:
    error = pickle.loads(pickle.dumps(ControllerError(InvalidSpecError("rows_per_step is 1"))))
    assert [type(link) for link in chain_of(error)] == [ControllerError, InvalidSpecError]
    assert reason_of(error) == "rows_per_step is 1"


def test_out_of_memory_goes_on_with_what_the_error_says_and_ends_where_nothing_is_smaller() -> None:
    spec = world.spec()
    assert changed(spec, OutOfMemoryError("!", micro_batch_tokens=512), 9).resources.micro_batch_tokens == 512
    with pytest.raises(OutOfMemoryError):
        changed(spec, OutOfMemoryError("!", micro_batch_tokens=None), 1)


def test_a_users_error_is_final_and_any_other_after_some_tries() -> None:
    spec = world.spec()
    with pytest.raises(InvalidSpecError):
        changed(spec, InvalidSpecError("!"), 1)
    for error in (StorageError("away"), WorkerLostError("worker 0 was lost")):
        assert changed(spec, error, RESTARTS) == spec
        with pytest.raises(type(error)):
            changed(spec, error, RESTARTS + 1)
