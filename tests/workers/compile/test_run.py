"""The compile run on real Ray nodes, a real object store and real pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ibllm_core.contract import layout
from ibllm_core.contract.job_spec import DataSettings
from ibllm_core.contract.media import Modality
from ibllm_core.contract.run_spec import CompileInput
from ibllm_core.contract.states import TerminationReason
from ibllm_core.data.dataset import NO_FEATURE
from ibllm_core.data.mapped import open_mapped
from ibllm_core.encoders.registry import load_encoder
from ibllm_core.errors import IntegrityError, InvalidDataError
from tests.ibllm_core.encoders.imagebind.models import write_narrow
from tests.ibllm_core.encoders.preprocess import media
from tests.workers.compile.world import World, chat_row, jsonl, nodes, picture, world
from workers.compile import commit
from workers.entry import outcome_of

BROKEN = picture(99)[:200]
ROWS = 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as made, nodes(2):
        yield made


@pytest.fixture(autouse=True)
def quiet(made: World) -> None:
    made.recorder.clear()


def captions(count: int = ROWS) -> list[dict[str, object]]:
    return [chat_row("what is this ?", "a cat" if n % 2 else "a red dog .", picture(n)) for n in range(count)]


def stored_keys(made: World) -> list[str]:
    parts = [key for key in made.store.list("features/") if key.endswith(".json")]
    return [media for part in parts for media in made.store.get_json(part)["media"]]


def wipe(made: World, *prefixes: str) -> None:
    for prefix in prefixes:
        for key in made.store.list(prefix):
            made.store.delete(key)


def test_rows_become_tokens_spans_and_features(made: World) -> None:
    rows = [*captions(3), chat_row("what ?", "a cat"), chat_row("what ?", "a dog", picture(0), picture(1))]
    outcome = made.compile(made.put_upload("mixed.jsonl", jsonl(rows)), job="ftjob-mixed")
    data = made.dataset(outcome)
    encoder = load_encoder("efficientnet-lite0")
    inputs = [encoder.preprocess(Modality.IMAGE, picture(number)) for number in range(3)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the actor: convolutions add up otherwise in two
    vectors = encoder.encode(Modality.IMAGE, inputs).numpy()
    torch.set_num_threads(threads)
    assert data.feature_S.tolist() == [0, 1, 2, NO_FEATURE, 3]
    np.testing.assert_array_equal(data.features[:3], vectors.astype(np.float16))
    mean = vectors[:2].mean(axis=0)
    np.testing.assert_allclose(data.features[3], mean / np.linalg.norm(mean), atol=1e-3)
    texts = data.provenance.texts
    assert [(text.row, text.instruction, text.answer) for text in texts[2:4]] == [
        (3, "what is this ?", "a red dog ."),
        (4, "what ?", "a cat"),
    ]
    assert data.num_labels_S.tolist() == [5, 3, 5, 3, 3]
    manifest = made.manifest(outcome)
    assert manifest["format"] == "OpenAI chat (JSON Lines)"
    assert manifest["counts"]["samples"] == 5
    assert manifest["encoder"]["licence"] == "Apache-2.0"
    assert data.provenance.media[3].startswith("mix/")


def test_the_same_input_compiles_once_and_one_row_more_encodes_one_picture(made: World) -> None:
    rows = captions(30)
    first = made.compile(made.put_upload("once.jsonl", jsonl(rows)), job="ftjob-once-1")
    made.recorder.events.clear()
    assert made.compile(made.put_upload("once.jsonl", jsonl(rows)), job="ftjob-once-2").outputs == first.outputs
    assert made.recorder.events == ["1 inputs were compiled before"]
    before = stored_keys(made)
    more = made.compile(
        made.put_upload("more.jsonl", jsonl([*rows, chat_row("what ?", "a cat", picture(1000))])), job="ftjob-more"
    )
    assert len(stored_keys(made)) == len(before) + 1
    assert len(made.dataset(more)) == 31
    np.testing.assert_array_equal(made.dataset(more).features[:30], made.dataset(first).features)


def test_bad_rows_are_quarantined_with_their_reasons_and_the_rest_goes_on(made: World) -> None:
    rows = captions(120)
    rows[10] = chat_row("what ?", "a cat", BROKEN)
    lines = jsonl(rows).splitlines(keepends=True)
    lines[20] = b'{"messages": [{"role": "user"\n'
    outcome = made.compile(
        made.put_upload("bad.jsonl", b"".join(lines)), job="ftjob-bad", data=DataSettings(max_bad_share=0.02)
    )
    assert len(made.dataset(outcome)) == 118
    folder = made.cache / layout.dataset(outcome.outputs["datasets"]["a"])
    quarantine = pq.read_table(folder / "quarantine.parquet").to_pylist()
    assert [row["row"] for row in quarantine] == [11, 21]
    assert "replace it or remove its row" in quarantine[0]["reason"]
    (kept,) = outcome.result_files
    assert pq.read_table(io.BytesIO(made.store.get(kept.key))).to_pylist() == quarantine


def spoilt_media(folder: Path) -> dict[str, str]:
    """One file of each kind that cannot be used, beside a good one; what is said of each."""
    tone = np.sin(np.arange(32_000) / 9).astype(np.float32)
    files = {
        "good.png": (picture(1), ""),
        "good.wav": (media.sound(tone), ""),
        "good.mp4": (media.video(media.counting(10)), ""),
        "truncated.png": (BROKEN, "replace it"),
        "bomb.png": (media.png_of(50_000, 50_000, zlib.compress(bytes(100))), "50000"),
        "text.png": (b"this is no picture", "replace it"),
        "silent.wav": (media.sound(np.empty(0, dtype=np.float32)), "replace it"),
        "nan.wav": (media.sound(np.full(32_000, np.nan, dtype=np.float32)), "replace it"),
        "no-frames.mp4": (media.aac(tone), "replace it"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder.parent / "secret.png").write_bytes(picture(2))
    elsewhere = {
        "missing.png": "missing.png",
        "../secret.png": "../secret.png",
        "link.png": "link.png",
        "/etc/passwd": "/etc/passwd",
        "http://127.0.0.1:1/x.png": "127.0.0.1",
        "s3://ibllm/files/other/content": "the service's own bucket",
    }
    return {name: said for name, (_, said) in files.items()} | elsewhere


def test_every_kind_of_spoilt_medium_is_quarantined_with_what_is_wrong(made: World, tmp_path: Path) -> None:
    made.store.upload_folder(layout.encoder("imagebind"), write_narrow(tmp_path / "narrow"))
    folder = tmp_path / "set"
    folder.mkdir()
    said = spoilt_media(folder)
    lines = []
    for name in said:
        kind = {".wav": "audio", ".mp4": "video"}.get(Path(name).suffix, "image")
        messages = [{"role": "user", "content": f"<{kind}>what ?"}, {"role": "assistant", "content": "a cat"}]
        lines.append(json.dumps({"messages": messages, f"{kind}s": [name]}).encode() + b"\n")
    lines += [b'{"messages": [\xff\xfe]}\n', b'{"no": "messages"}\n', b"not json\n"]
    (folder / "rows.jsonl").write_bytes(b"".join(lines))
    place = CompileInput(name="a", location=str(folder / "rows.jsonl"), template="short", row_tokens=64)
    outcome = made.compile(place, job="ftjob-zoo", encoder="imagebind", data=DataSettings(max_bad_share=0.9))
    (kept,) = outcome.result_files
    bad = {row["row"]: row["reason"] for row in pq.read_table(io.BytesIO(made.store.get(kept.key))).to_pylist()}
    good = [name for name in said if name.startswith("good")]
    assert len(made.dataset(outcome)) == len(good) == 3
    assert len(bad) == len(lines) - len(good)
    for row, (name, words) in enumerate(said.items(), start=1):
        assert (row in bad) != (name in good), name
        assert words in bad.get(row, ""), (name, bad.get(row))
    data = made.dataset(outcome)
    np.testing.assert_allclose(np.linalg.norm(data.vectors(np.arange(3), None), axis=1), 1, atol=2e-3)


def sound_row() -> dict[str, Any]:
    data = base64.b64encode(media.sound(np.sin(np.arange(32_000) / 9).astype(np.float32))).decode()
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    question = [{"type": "text", "text": "what ?"}, audio]
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "a cat"}]}


def test_a_medium_that_the_encoder_cannot_read_is_the_users_to_change(made: World) -> None:
    upload = made.put_upload("sound.jsonl", jsonl([chat_row("what ?", "a cat", picture(1)), sound_row()]))
    with pytest.raises(Exception, match=r".") as caught:
        made.compile(upload, job="ftjob-sound")
    outcome = outcome_of(caught.value)
    assert outcome.reason == TerminationReason.USER_ERROR
    assert "reads images alone, but the data has media of kind audio" in outcome.message


def test_too_many_bad_rows_end_the_run_and_say_so(made: World) -> None:
    rows = [*captions(20), chat_row("what ?", "a cat", BROKEN)]
    with pytest.raises(
        InvalidDataError, match=r"1 of 21 rows of file-much.jsonl cannot be used \(limit 1.00%\): row 21"
    ):
        made.compile(made.put_upload("much.jsonl", jsonl(rows)), job="ftjob-much")


def test_views_are_random_crops_that_are_the_same_every_time(made: World) -> None:
    upload = made.put_upload("views.jsonl", jsonl(captions(4)))
    data = made.dataset(made.compile(upload, job="ftjob-views", data=DataSettings(views=3)))
    assert data.features.shape == (12, 1280)
    assert len(np.unique(data.features, axis=0)) == 12
    centre = made.dataset(made.compile(upload, job="ftjob-centre"))
    np.testing.assert_array_equal(data.features[::3], centre.features)
    seen = [data.vectors(np.array([0]), epoch)[0, :3].tolist() for epoch in range(3)]
    assert sorted(seen) == sorted(data.features[:3, :3].astype(np.float32).tolist())


def test_a_folder_with_pictures_beside_it_and_a_path_that_climbs_out(made: World, tmp_path: Path) -> None:
    folder = tmp_path / "people" / "set"
    folder.mkdir(parents=True)
    (tmp_path / "people" / "secret.png").write_bytes(picture(7))
    lines = ["url\tcaption"]
    for number in range(120):
        (folder / f"{number}.png").write_bytes(picture(number))
        lines.append(f"{number}.png\ta cat")
    lines[5] = "../secret.png\ta cat"
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    place = CompileInput(name="a", location=str(folder / "captions.tsv"), template="short", row_tokens=64)
    outcome = made.compile(place, job="ftjob-folder")
    assert len(made.dataset(outcome)) == 119
    assert made.manifest(outcome)["counts"]["external"] == 120
    (kept,) = outcome.result_files
    (bad,) = pq.read_table(io.BytesIO(made.store.get(kept.key))).to_pylist()
    assert bad["row"] == 5
    assert "../secret.png" in bad["reason"]


def test_a_shard_that_was_changed_is_refused(made: World) -> None:
    outcome = made.compile(made.put_upload("changed.jsonl", jsonl(captions(5))), job="ftjob-changed")
    folder = made.store.download_folder(layout.dataset(outcome.outputs["datasets"]["a"]), made.cache / "other")
    path = folder / "shard-00000.parquet"
    path.write_bytes(path.read_bytes()[:-8] + b"x" * 8)
    with pytest.raises(IntegrityError, match="does not have the checksum"):
        open_mapped(folder, made.manifest(outcome))


ATTEMPT = """
import sys
from pathlib import Path
import ray
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from tests.workers.compile import world
from workers.compile import commit
commit.BLOCK_ROWS = commit.PART_MEDIA = 32
ray.init(address=sys.argv[1], log_to_driver=False)
store = ObjectStore(StorageSettings())
made = world.World(None, store, Path(sys.argv[2]))
made.compile(made.put_upload("killed.jsonl", Path(sys.argv[3]).read_bytes()), job="ftjob-killed")
"""


def test_a_run_that_was_killed_goes_on_and_ends_the_same(made: World, tmp_path: Path) -> None:
    import ray

    (tmp_path / "rows.jsonl").write_bytes(jsonl(captions()))
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", ATTEMPT, address, str(made.cache), str(tmp_path / "rows.jsonl")]
    wipe(made, "features/")
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())}) as attempt:
        deadline = time.monotonic() + 120
        while not made.store.list("jobs/ftjob-killed/compile/staging/"):
            assert attempt.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two looks at the condition
        attempt.send_signal(signal.SIGKILL)
    finished = set(stored_keys(made))
    assert 0 < len(finished) < ROWS
    upload = made.put_upload("killed.jsonl", jsonl(captions()))
    outcome = made.compile(upload, job="ftjob-killed")
    assert "that are compiled already" in made.recorder.events[0]
    keys = stored_keys(made)
    assert len(keys) == len(set(keys)) == ROWS  # nothing was encoded twice
    assert made.store.list("jobs/ftjob-killed/compile/staging/") == []
    wipe(made, "features/", "datasets/")
    assert made.compile(upload, job="ftjob-whole").outputs == outcome.outputs


def test_one_node_two_and_two_of_which_one_is_lost_give_the_same_bytes(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    upload = made.put_upload("nodes.jsonl", jsonl(captions()))
    one = made.compile(upload, job="ftjob-one")
    address = ray.get_runtime_context().gcs_address
    ray.shutdown()
    try:
        with nodes(1, 1):
            wipe(made, "features/", "datasets/")
            two = made.compile(upload, job="ftjob-two", workers=2)
            assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2
        with nodes(2, 1) as cluster:
            wipe(made, "features/", "datasets/")
            monkeypatch.setattr(commit, "BLOCK_ROWS", 16)
            monkeypatch.setattr(commit, "PART_MEDIA", 16)
            with ThreadPoolExecutor(1) as threads:
                running = threads.submit(made.compile, upload, job="ftjob-lost", workers=2)
                deadline = time.monotonic() + 120
                while not made.store.list("jobs/ftjob-lost/compile/staging/"):
                    assert not running.done(), running.result()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)  # between two looks at the condition
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                lost = running.result()
            assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 1
    finally:
        ray.init(address=address)
    assert two.outputs == one.outputs
    assert lost.outputs == one.outputs
