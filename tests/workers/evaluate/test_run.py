"""The evaluate run with a real object store, and adapters and datasets as other runs leave them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter, AdapterHeader
from ibllm_core.bases.formats import open_source
from ibllm_core.contract import layout
from ibllm_core.contract.adapter_config import AdapterConfig, ValueGateConfig
from ibllm_core.contract.history import entries_of
from ibllm_core.contract.job_spec import Resources, TrainingStage
from ibllm_core.contract.run_spec import EvaluateSpec, Outcome, Progress
from ibllm_core.data.shards import QuarantineWriter, write_features, write_samples
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.storage import ObjectStore
from tests.conftest import FEATURE_DIM, tiny_llama, word_tokenizer
from tests.ibllm_core.formats.object_store import running_store
from tests.workers.evaluate.bench import NUM_WORDS, features, mixed
from workers.evaluate import run as evaluate_run
from workers.import_base import upload
from workers.settings import WorkerSettings


class Listener:
    def __init__(self) -> None:
        self.phases: list[str] = []

    def progress(self, progress: Progress) -> None:
        self.phases.append(progress.phase)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A store with a base, an adapter of each stage, and a dataset with something of every task."""
    folder = tmp_path_factory.mktemp("store")
    with running_store(folder) as running:
        store = ObjectStore(running.settings)
        tiny_llama(vocab_size=NUM_WORDS, max_position_embeddings=64).save_pretrained(folder / "base")
        word_tokenizer().save_pretrained(folder / "base")
        upload(store, "tiny", open_source(folder / "base"))
        for stage in ("stage1", "stage2"):
            store.upload_folder(f"adapters/{stage}", _adapter(folder / stage, stage))
        store.upload_folder(layout.dataset("ds-1"), _dataset(folder / "dataset"))
        yield store


def _adapter(folder: Path, stage: TrainingStage) -> Path:
    torch.manual_seed(1)
    config = AdapterConfig(fusion=ValueGateConfig())
    model = ImageBindLLM(tiny_llama(vocab_size=NUM_WORDS, max_position_embeddings=64), FEATURE_DIM, config, stage)
    with torch.no_grad():
        model.fusion.gates.copy_(torch.arange(8).reshape(2, 4) / 4)
    header = AdapterHeader(
        stage=stage,
        config=model.config,
        feature_dim=FEATURE_DIM,
        vocab_size=NUM_WORDS,
        template="short",
        base="tiny",
        base_sha256=None,
        encoder="none",
    )
    files.write(folder, Adapter(header=header, tensors=files.adapted_tensors(model, header)))
    return folder


def _dataset(folder: Path) -> Path:
    folder.mkdir()
    write_samples(folder / "shard-00000.parquet", mixed())
    write_features(folder / "features-00000.parquet", ["image/0", "image/1", "image/2"], features(3)[:, None])
    with QuarantineWriter(folder / "quarantine.parquet"):
        pass
    return folder


def evaluate(store: ObjectStore, cache: Path, listener: Listener | None = None, **fields: Any) -> Outcome:
    settings = WorkerSettings(ibllm_cache=cache)
    return evaluate_run.run(spec(**fields), store, settings, listener or Listener())  # type: ignore[arg-type]


def spec(**fields: Any) -> EvaluateSpec:
    common: dict[str, Any] = {
        "job_id": "ftjob-1",
        "run_id": "ftjob-1-evaluate",
        "attempt_id": "ftjob-1-evaluate-1",
        "attempt_number": 1,
        "service_url": "http://none",
        "token": "none",
        "base": "tiny",
        "encoder": "none",
        "adapter": {},
        "seed": 0,
        "resources": Resources(workers=1, precision="fp32"),
        "caption_template": "short",
        "question_template": "short",
    }
    return EvaluateSpec(**{**common, **fields})


BOTH = {
    "stage1_adapter": "adapters/stage1",
    "stage2_adapter": "adapters/stage2",
    "caption_dataset": "ds-1",
    "question_dataset": "ds-1",
}


def contents(store: ObjectStore, outcome: Outcome) -> dict[str, str]:
    found = {file.filename: store.get(file.key) for file in outcome.result_files}
    assert {file.filename: file.bytes for file in outcome.result_files} == {n: len(body) for n, body in found.items()}
    return {name: body.decode() for name, body in found.items()}


def test_both_stages_are_measured_told_of_and_kept(store: ObjectStore, tmp_path: Path) -> None:
    listener = Listener()
    outcome = evaluate(store, tmp_path, listener, **BOTH)
    kept = contents(store, outcome)
    assert kept.keys() == {"evaluation.json", "gates.json", "evaluation_answers.jsonl"}
    result = json.loads(kept["evaluation.json"])
    assert result["stage1"].keys() >= {"eval_loss", "eval_loss_before", "eval_loss_shuffled", "captions", "samples"}
    assert result["stage1"]["samples"][0].keys() >= {"row", "media", "true", "generated"}
    assert result["stage2"].keys() >= {"vqa_accuracy", "vqa_accuracy_shuffled", "vqa_questions", "vqa_left_out"}
    assert result["stage2"]["samples"][0].keys() == {"question", "true", "right", "shuffled"}
    assert outcome.outputs["stage1"]["cider"] == result["stage1"]["cider"]
    assert not outcome.outputs["stage1"].keys() & {"samples", "gates"}
    answers = [json.loads(line) for line in kept["evaluation_answers.jsonl"].splitlines()]
    assert {(answer["stage"], answer["task"]) for answer in answers} == {
        (stage, task) for stage in ("stage1", "stage2") for task in ("caption", "question", "choice")
    } - {("stage2", "caption")}
    assert listener.phases[0] == "loading" and "stage2: losses" in listener.phases


def test_gates_come_as_an_array_and_as_a_table(store: ObjectStore, tmp_path: Path) -> None:
    kept = contents(store, evaluate(store, tmp_path, **BOTH))
    assert json.loads(kept["gates.json"])["stage1"] == {"abs": [[0, 0.25, 0.5, 0.75], [1, 1.25, 1.5, 1.75]]}
    first, second = json.loads(kept["evaluation.json"])["stage1"]["gates"]
    assert (first["strongest_head"], first["open_share"], second["abs_mean"]) == (3, 0.75, 1.375)


def test_the_step_of_a_metric_is_its_stage(store: ObjectStore, tmp_path: Path) -> None:
    evaluate(store, tmp_path, job_id="ftjob-2", **BOTH)
    logged = store.list(layout.history("ftjob-2", "evaluate", 0).rpartition("/")[0])
    entries = [entry for key in sorted(logged) for entry in entries_of(store.get(key)) if entry.metrics]
    assert [entry.step for entry in entries] == [1, 2]
    assert entries[0].metrics.keys() >= {"eval/loss", "eval/cider", "gate/abs_mean", "gate/layer_01/abs_mean"}
    assert entries[1].metrics.keys() >= {"eval/loss", "eval/vqa_accuracy", "eval/science_qa/Avg"}


@pytest.mark.parametrize(("stage", "dataset"), [("stage1", "caption_dataset"), ("stage2", "question_dataset")])
def test_one_adapter_alone_is_measured(store: ObjectStore, tmp_path: Path, stage: str, dataset: str) -> None:
    outcome = evaluate(store, tmp_path, **{f"{stage}_adapter": f"adapters/{stage}", dataset: "ds-1"})
    assert outcome.outputs.keys() == {stage}
    both = evaluate(store, tmp_path, **BOTH).outputs[stage]
    assert outcome.outputs[stage] == both


def test_an_adapter_without_data_shows_its_gates(store: ObjectStore, tmp_path: Path) -> None:
    outcome = evaluate(store, tmp_path, stage1_adapter="adapters/stage1")
    assert outcome.outputs == {"stage1": {}}
    assert contents(store, outcome).keys() == {"evaluation.json", "gates.json"}


def test_something_must_be_named() -> None:
    with pytest.raises(ValidationError, match="name at least one adapter"):
        spec()
