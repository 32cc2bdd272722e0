"""What is over is removed, whoever died before; what a job still uses is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ibllm_core.contract import layout
from ibllm_core.contract.states import JobStatus
from ibllm_core.storage import ObjectStore
from orchestrator.db.models import Job, UploadPart
from orchestrator.files import rows
from orchestrator.files.sweeper import Sweeper
from tests.ibllm_core.formats.object_store import RunningStore
from tests.orchestrator.files.conftest import World

PAST, SOON = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def sweeper(world: World) -> Sweeper:
    return Sweeper(world.sessions, world.store)


def test_a_file_goes_at_the_end_of_its_time_with_its_bytes(world: World, sweeper: Sweeper) -> None:
    over, going_on, for_good = world.add_file(expires_at=PAST), world.add_file(expires_at=SOON), world.add_file()
    sweeper.sweep()
    assert [world.has_file(file) for file in (over, going_on, for_good)] == [False, True, True]
    assert [world.store.exists(layout.file(file)) for file in (over, going_on, for_good)] == [False, True, True]


def test_a_file_outlives_its_time_while_a_job_uses_it(world: World, sweeper: Sweeper) -> None:
    file = world.add_file(expires_at=PAST)
    with world.sessions() as session:
        request = {"stages": [{"training_file": "x", "mix": [{"file": file}]}]}
        job = Job(id=f"ftjob-{file}", project_id=world.project_id, request=request, status=JobStatus.RUNNING)
        session.add(job)
        session.commit()
        sweeper.sweep()
        assert world.has_file(file)
        job.status = JobStatus.FAILED
        session.commit()
    sweeper.sweep()
    assert not world.has_file(file)


def add_part(world: World, upload_id: str, part_id: str) -> str:
    world.store.put(layout.upload_part(upload_id, part_id), b"part")
    with world.sessions() as session:
        session.add(UploadPart(id=part_id, upload_id=upload_id, bytes=4))
        session.commit()
    return layout.upload_part(upload_id, part_id)


def num_parts(world: World, upload_id: str) -> int:
    with world.sessions() as session:
        return session.query(UploadPart).filter(UploadPart.upload_id == upload_id).count()


def test_an_upload_that_nobody_completed_expires_with_its_parts(world: World, sweeper: Sweeper) -> None:
    over, going_on = world.add_upload(expires_at=PAST), world.add_upload(expires_at=SOON)
    kept = add_part(world, going_on, f"part-{going_on}")
    add_part(world, over, f"part-{over}")
    world.store.put(layout.upload_part(over, "part-without-a-row"), b"left by a kill")
    sweeper.sweep()
    assert (world.upload(over).status, world.upload(going_on).status) == ("expired", "pending")
    assert world.store.list(f"{layout.upload_parts(over)}/") == []
    assert world.store.exists(kept)
    assert (num_parts(world, over), num_parts(world, going_on)) == (0, 1)


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_an_upload_that_is_over_keeps_no_parts(world: World, sweeper: Sweeper, status: str) -> None:
    upload = world.add_upload(status=status)
    part = add_part(world, upload, f"part-{upload}")
    whole = layout.file(rows.id_of(upload))
    world.store.put(whole, b"whole")
    sweeper.sweep()
    assert not world.store.exists(part)
    assert world.store.exists(whole) is (status == "completed")
    assert world.upload(upload).cleared_at is not None


def test_what_a_kill_left_of_a_file_under_way_is_found_by_its_upload(
    world: World, sweeper: Sweeper, running: RunningStore
) -> None:
    stored, joining = world.add_upload(expires_at=PAST), world.add_upload(expires_at=PAST)
    world.store.put(layout.file(rows.id_of(stored)), b"stored, and then the API was killed")
    key, bucket = layout.file(rows.id_of(joining)), running.settings.bucket
    running.client.create_multipart_upload(Bucket=bucket, Key=key)
    sweeper.sweep()
    assert not world.store.exists(layout.file(rows.id_of(stored)))
    assert running.client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", []) == []


def test_objects_that_no_row_names_are_left_alone(world: World, sweeper: Sweeper) -> None:
    world.store.put("files/file-of-a-restored-database/content", b"somebody's")
    sweeper.sweep()
    assert world.store.get("files/file-of-a-restored-database/content") == b"somebody's"


def test_a_sweep_that_was_cut_off_is_done_again(world: World, running: RunningStore) -> None:
    class Cut(ObjectStore):
        def delete(self, key: str) -> None:
            super().delete(key)
            raise KeyboardInterrupt

    file, upload = world.add_file(expires_at=PAST), world.add_upload(status="cancelled")
    part = add_part(world, upload, f"part-{upload}")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Sweeper(world.sessions, Cut(running.settings)).sweep()
    Sweeper(world.sessions, world.store).sweep()
    assert not world.has_file(file)
    assert not world.store.exists(part)


def test_two_sweepers_share_the_work(world: World) -> None:
    from concurrent.futures import ThreadPoolExecutor

    files = [world.add_file(expires_at=PAST) for _ in range(10)]
    sweepers = [Sweeper(world.sessions, world.store) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(Sweeper.sweep, sweepers))
    assert not any(map(world.has_file, files))
