"""Data as people bring it, through the whole service: sounds and pictures in a folder, a bucket, an upload, mixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest

from ibllm_core.contract import layout
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from orchestrator.client import InvalidRequestError
from orchestrator.demo.run import BASE
from tests.end_to_end.conftest import Embedded
from tests.end_to_end.test_demo import until
from tests.ibllm_core.encoders.imagebind.models import write_narrow

pytestmark = pytest.mark.usefixtures("demo")
STAMPS = 12


@pytest.fixture(scope="module")
def store(embedded: Embedded) -> ObjectStore:
    environment = embedded.environment
    return ObjectStore(
        StorageSettings(
            endpoint=environment["IBLLM_S3_ENDPOINT"],
            access_key=environment["IBLLM_S3_ACCESS_KEY"],
            secret_key=environment["IBLLM_S3_SECRET_KEY"],
        )
    )


@pytest.fixture(scope="module")
def stamps(embedded: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stamps that have a picture, a caption and a sound, in a folder with the rows that name them."""
    source = embedded.stack.home.root / "packages/stamps/usr/share/tuxpaint/stamps"
    folder = tmp_path_factory.mktemp("stamps")
    found = [
        p for p in sorted(source.rglob("*.png")) if p.with_suffix(".ogg").exists() and p.with_suffix(".txt").exists()
    ]
    rows: list[dict[str, Any]] = []
    for picture in found[:STAMPS]:
        shutil.copy(picture, folder)
        shutil.copy(picture.with_suffix(".ogg"), folder)
        caption = picture.with_suffix(".txt").read_text(encoding="utf-8").split("\n", 1)[0]
        for key, marker, name in (
            ("images", "<image>", picture.name),
            ("audios", "<audio>", picture.with_suffix(".ogg").name),
        ):
            messages = [
                {"role": "user", "content": f"{marker}What is it?"},
                {"role": "assistant", "content": caption},
            ]
            rows.append({"messages": messages, key: [name]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def imagebind(embedded: Embedded, tmp_path_factory: pytest.TempPathFactory) -> str:
    weights = write_narrow(tmp_path_factory.mktemp("imagebind") / "narrow")
    result = embedded.command("import-encoder", "imagebind", str(weights))
    assert result.returncode == 0, result.stdout + result.stderr
    return "imagebind"


def put_llava(settings: StorageSettings, stamps: Path) -> str:
    """The pictures again as LLaVA's conversations of two turns, in a bucket of the user's own."""
    client = boto3.client(
        "s3",
        endpoint_url=settings.endpoint,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="people")
    rows = []
    for number, picture in enumerate(sorted(stamps.glob("*.png"))):
        client.put_object(Bucket="people", Key=f"llava/images/{picture.name}", Body=picture.read_bytes())
        conversations = [
            {"from": "human", "value": "What is it?\n<image>"},
            {"from": "gpt", "value": f"Stamp {number}."},
            {"from": "human", "value": "Is it a stamp?"},
            {"from": "gpt", "value": "Yes."},
        ]
        rows.append({"id": str(number), "image": f"images/{picture.name}", "conversations": conversations})
    client.put_object(Bucket="people", Key="llava/rows.json", Body=json.dumps(rows).encode())
    return "s3://people/llava/rows.json"


def test_sounds_pictures_conversations_and_words_train_one_model(
    embedded: Embedded, store: ObjectStore, stamps: Path, imagebind: str, tmp_path: Path
) -> None:
    words = tmp_path / "alpaca.json"
    words.write_text(json.dumps([{"instruction": "Name a colour.", "input": "", "output": "Blue."}] * 8))
    files, jobs = embedded.client.files, embedded.client.jobs
    alpaca = files.wait_for_processing(files.upload(words).id)
    assert alpaca.check is not None and alpaca.check.format == "Alpaca instructions (JSON array)"
    settings = {"row_tokens": 128, "rows_per_step": 2}
    job = jobs.submit(
        {
            "model": BASE,
            "encoder": imagebind,
            "stages": [
                {"stage": "stage1", "training_file": str(stamps / "rows.jsonl"), "hyperparameters": settings},
                {
                    "stage": "stage2",
                    "training_file": put_llava(store.settings, stamps),
                    "mix": [{"file": alpaca.id, "weight": 0.5}],
                    "hyperparameters": settings,
                },
            ],
            "resources": {"workers": 1},
        },
    )
    until(lambda: jobs.retrieve(job.id).status in ("succeeded", "failed"), 400)
    ended = jobs.retrieve(job.id).model_dump(mode="json")
    assert ended["status"] == "succeeded", ended["error"]
    datasets = ended["runs"][0]["outputs"]["datasets"]
    manifests = {name: store.manifest(layout.dataset(found)) for name, found in datasets.items()}
    assert manifests["stage1.training_file"]["counts"]["samples"] == 2 * STAMPS
    assert manifests["stage1.training_file"]["encoder"]["licence"] == "CC-BY-NC-SA-4.0"
    assert manifests["stage2.training_file"]["format"] == "LLaVA conversations (JSON array)"
    assert manifests["stage2.mix.0"]["counts"]["text_only"] == 8
    features = embedded.stack.home.cache / layout.dataset(datasets["stage1.training_file"]) / "features-00000.parquet"
    media = [key.partition("/")[0] for key in pq.read_table(features)["media"].to_pylist()]
    assert (media.count("image"), media.count("audio")) == (STAMPS, STAMPS)
    adapter = store.manifest(ended["runs"][2]["outputs"]["adapter"])["header"]
    assert adapter["dataset"] == f"{datasets['stage2.training_file']} + 0.5 {datasets['stage2.mix.0']}"


def test_data_is_checked_before_any_job(embedded: Embedded, stamps: Path) -> None:
    report = embedded.command("data", "check", str(stamps / "rows.jsonl"), "--base", BASE, "--json")
    assert report.returncode == 0, report.stdout + report.stderr
    found = json.loads(report.stdout)
    assert found["media"] == {"audio": STAMPS, "image": STAMPS}
    assert found["tokens"]["total"] > 20 * STAMPS
    (stamps / "broken.jsonl").write_text('{"messages": 3}\n')
    assert embedded.command("data", "check", str(stamps / "broken.jsonl")).returncode == 1


def test_a_job_on_data_that_is_not_there_is_refused(embedded: Embedded, imagebind: str) -> None:
    request = {
        "model": BASE,
        "encoder": imagebind,
        "stages": [{"stage": s, "training_file": "/no/such/rows.jsonl"} for s in ("stage1", "stage2")],
    }
    with pytest.raises(InvalidRequestError, match=r"/no/such/rows\.jsonl"):
        embedded.client.jobs.submit(request)
