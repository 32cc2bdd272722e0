"""The compile run: uploaded files become datasets of features and tokens, once for each distinct input."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from ibllm_core.contract import layout
from ibllm_core.contract.chat_row import ChatSample, parse_row
from ibllm_core.contract.run_spec import CompileInput, CompileSpec, Outcome, Progress
from ibllm_core.contract.states import TerminationReason
from ibllm_core.data import dataset
from ibllm_core.data.prompts import Tokenizer, tokenise
from ibllm_core.encoders.base import load_encoder
from ibllm_core.errors import InvalidDataError
from ibllm_core.storage import ObjectStore, manifest_sha256
from workers.model_loading import fetch_base
from workers.reporting import Reporter
from workers.settings import WorkerSettings

BATCH = 16
BAD_SHARE_LIMIT = 0.01
# Half a core each: Ray Data's own short tasks need the rest of what the run was admitted with.
ENCODER_CPUS = 0.5
log = logging.getLogger(__name__)


def run(spec: CompileSpec, store: ObjectStore, settings: WorkerSettings, reporter: Reporter) -> Outcome:
    """Compile every input that no earlier job compiled; the outcome maps file ids to dataset ids."""
    reporter.progress(Progress(phase="loading"))
    ray.init(log_to_driver=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    base = fetch_base(store, spec.base, settings.ibllm_cache)
    tokenizer = base.tokenizer()
    encoder = load_encoder(spec.encoder)
    datasets: dict[str, str] = {}
    for number, item in enumerate(spec.inputs, start=1):
        identity = dataset.dataset_id(
            file_sha256=item.sha256,
            encoder_sha256=encoder.sha256,
            tokenizer_sha256=manifest_sha256(store.manifest(layout.base(spec.base))),
            template=item.template,
            row_tokens=item.row_tokens,
        )
        datasets[item.file_id] = identity
        if store.exists(layout.manifest(layout.dataset(identity))):
            reporter.event(f"file {item.file_id} was compiled before: {identity} is used again")
            continue
        phase = f"file {number} of {len(spec.inputs)}"
        compiled = _compile(spec, item, store, tokenizer, phase, reporter)
        _publish(store, identity, compiled, spec, item)
        counts = {"samples": len(compiled.data.samples), "pictures": len(compiled.data.features)}
        reporter.event(f"compiled {item.file_id}: {counts['samples']} samples", data=counts)
    return Outcome(reason=TerminationReason.SUCCEEDED, outputs={"datasets": datasets})


@dataclass(frozen=True, kw_only=True)
class _Compiled:
    data: dataset.Dataset
    quarantined: list[dict[str, Any]]


class _EncoderActor:
    """A Ray Data actor that holds one encoder and turns pictures into vectors; a bad picture yields a reason."""

    def __init__(self, encoder: str) -> None:
        self._encoder = load_encoder(encoder)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        inputs, reasons = [], []
        for image in batch["image"]:
            try:
                inputs.append(self._encoder.preprocess(image))
                reasons.append("")
            except InvalidDataError as error:
                reasons.append(error.message)
        vectors = np.zeros((len(reasons), self._encoder.feature_dim), dtype=np.float32)
        if inputs:
            vectors[[not reason for reason in reasons]] = self._encoder.encode(inputs).numpy()
        return {"sha256": batch["sha256"], "vector": vectors, "reason": np.array(reasons, dtype=object)}


def _compile(
    spec: CompileSpec, item: CompileInput, store: ObjectStore, tokenizer: Tokenizer, phase: str, reporter: Reporter
) -> _Compiled:
    rows: list[tuple[int, ChatSample, str | None]] = []
    pictures: dict[str, bytes] = {}
    quarantined: list[dict[str, Any]] = []
    for row, line in enumerate(store.lines(layout.file(item.file_id)), start=1):
        try:
            sample = parse_row(line, row)
        except InvalidDataError as error:
            quarantined.append({"row": row, "reason": error.message})
            continue
        sha256 = hashlib.sha256(sample.image).hexdigest() if sample.image else None
        if sha256 and sample.image:
            pictures.setdefault(sha256, sample.image)
        rows.append((row, sample, sha256))

    vectors: dict[str, np.ndarray] = {}
    bad: dict[str, str] = {}
    for encoded in _encode(spec, pictures):
        if encoded["reason"]:
            bad[encoded["sha256"]] = encoded["reason"]
        else:
            vectors[encoded["sha256"]] = encoded["vector"]
        reporter.progress(
            Progress(phase=f"encoding {phase}", step=len(vectors) + len(bad), total_steps=len(pictures))
        )

    hashes = sorted(vectors)
    feature_of = {sha256: index for index, sha256 in enumerate(hashes)}
    samples = []
    for row, sample, sha256 in rows:
        tokenised = tokenise(tokenizer, item.template, sample.instruction, sample.answer)
        if sha256 in bad:
            quarantined.append({"row": row, "reason": f"row {row}: {bad[sha256 or '']}"})
        elif len(tokenised.tokens) > item.row_tokens:
            quarantined.append(
                {
                    "row": row,
                    "reason": f"row {row} has {len(tokenised.tokens)} tokens, a packed row {item.row_tokens}: "
                    "shorten it or raise hyperparameters.row_tokens",
                }
            )
        else:
            feature = feature_of[sha256] if sha256 else dataset.NO_FEATURE
            samples.append(
                dataset.CompiledSample.of(
                    tokenised, feature=feature, row=row, instruction=sample.instruction, answer=sample.answer
                )
            )
    _refuse_if_too_bad(item.file_id, len(samples), quarantined)
    width = len(next(iter(vectors.values()))) if vectors else load_encoder(spec.encoder).feature_dim
    features = np.stack([vectors[h] for h in hashes]) if hashes else np.zeros((0, width), dtype=np.float32)
    data = dataset.Dataset(samples=samples, features=features, feature_hashes=hashes)
    return _Compiled(data=data, quarantined=quarantined)


def _encode(spec: CompileSpec, pictures: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    if not pictures:
        return
    source = ray.data.from_items([{"sha256": key, "image": image} for key, image in pictures.items()])
    encoded = source.repartition(max(spec.resources.workers * 4, 1)).map_batches(
        _EncoderActor,
        fn_constructor_args=(spec.encoder,),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=spec.resources.workers),
        num_cpus=ENCODER_CPUS,
        num_gpus=spec.resources.gpus_per_worker or None,
    )
    yield from encoded.iter_rows()


def _refuse_if_too_bad(file_id: str, good: int, quarantined: list[dict[str, Any]]) -> None:
    total = good + len(quarantined)
    if good == 0 or len(quarantined) > BAD_SHARE_LIMIT * total:
        reasons = "; ".join(entry["reason"] for entry in quarantined[:3]) or "it has no rows"
        raise InvalidDataError(
            f"{len(quarantined)} of {total} rows of {file_id} cannot be used (limit {BAD_SHARE_LIMIT:.0%}): {reasons}",
        )


def _publish(store: ObjectStore, identity: str, compiled: _Compiled, spec: CompileSpec, item: CompileInput) -> None:
    extra = {
        "file_id": item.file_id,
        "file_sha256": item.sha256,
        "encoder": spec.encoder,
        "template": item.template,
        "samples": len(compiled.data.samples),
        "pictures": len(compiled.data.features),
        "tokens": sum(compiled.data.lengths),
        "quarantined": compiled.quarantined,
    }
    with tempfile.TemporaryDirectory() as folder:
        dataset.write(Path(folder), compiled.data)
        store.upload_folder(layout.dataset(identity), Path(folder), extra)
