"""The compile run: uploaded files become datasets of features and tokens, once for each distinct input."""

from __future__ import annotations

import hashlib
import tempfile
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
from ibllm_core.data.prompts import Prompter, Tokenizer
from ibllm_core.encoders.base import load_encoder
from ibllm_core.errors import InvalidDataError, InvalidPromptError
from ibllm_core.storage import ObjectStore
from workers.model_loading import fetch_base
from workers.reporting import Reporter
from workers.settings import WorkerSettings

BATCH = 16
BLOCK = 64  # pictures of a Ray Data block: small enough to keep all actors busy to the end
BAD_SHARE_LIMIT = 0.01
# Half a core each: Ray Data's own short tasks need the rest of what the run was admitted with.
ENCODER_CPUS = 0.5


def run(spec: CompileSpec, store: ObjectStore, settings: WorkerSettings, reporter: Reporter) -> Outcome:
    """Compile every input that no earlier job compiled; the outcome maps file ids to dataset ids."""
    reporter.progress(Progress(phase="loading"))
    base = fetch_base(store, spec.base, settings.ibllm_cache)
    tokenizer, encoder = base.tokenizer(), load_encoder(spec.encoder)
    datasets = {
        item.file_id: dataset.dataset_id(
            file_sha256=item.sha256,
            encoder_sha256=encoder.sha256,
            tokenizer_sha256=base.tokenizer_sha256,
            template=item.template,
            row_tokens=min(item.row_tokens, base.context),
            media_tokens=spec.adapter.media_tokens,
            grey_for_text=spec.adapter.preset == "released",
        )
        for item in spec.inputs
    }
    missing = [
        item for item in spec.inputs if not store.exists(layout.manifest(layout.dataset(datasets[item.file_id])))
    ]
    if len(missing) < len(spec.inputs):
        reporter.event(f"{len(spec.inputs) - len(missing)} of {len(spec.inputs)} files were compiled before")
    sources = [_read(item, store) for item in missing]
    pictures = {sha256: image for source in sources for sha256, image in source.pictures.items()}
    encoded = _encode(spec, pictures, reporter)
    grey = encoder.encode([encoder.grey()]).numpy()[0] if spec.adapter.preset == "released" else None
    for source in sources:
        compiled = _assemble(
            source,
            encoded,
            tokenizer,
            media_tokens=spec.adapter.media_tokens,
            context=base.context,
            feature_dim=encoder.feature_dim,
            grey=grey,
        )
        _publish(store, datasets[source.item.file_id], compiled, spec, source.item)
        counts = {
            "samples": len(compiled.data.samples),
            "pictures": len(compiled.data.features),
            "quarantined": len(compiled.quarantined),
        }
        reporter.event(f"compiled {source.item.file_id}: {counts['samples']} samples", data=counts)
    return Outcome(reason=TerminationReason.SUCCEEDED, outputs={"datasets": datasets})


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A file as it was read: its good rows with the hash of each one's picture, and the bad ones."""

    item: CompileInput
    rows: list[tuple[int, ChatSample, str | None]]
    pictures: dict[str, bytes]
    quarantined: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    """Vectors of the pictures that could be read, reasons of the others; both by hash."""

    vectors: dict[str, np.ndarray]
    bad: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Compiled:
    data: dataset.Dataset
    quarantined: list[dict[str, Any]]


def _read(item: CompileInput, store: ObjectStore) -> _Source:
    source = _Source(item=item, rows=[], pictures={}, quarantined=[])
    for row, line in enumerate(store.lines(layout.file(item.file_id)), start=1):
        try:
            sample = parse_row(line, row)
        except InvalidDataError as error:
            source.quarantined.append({"row": row, "reason": error.message})
            continue
        sha256 = hashlib.sha256(sample.image).hexdigest() if sample.image else None
        if sha256 and sample.image:
            source.pictures.setdefault(sha256, sample.image)
        source.rows.append((row, sample, sha256))
    return source


def _encode(spec: CompileSpec, pictures: dict[str, bytes], reporter: Reporter) -> _Encoded:
    """Encode distinct pictures once, in one Ray Data pipeline with a pool of encoder actors."""
    encoded = _Encoded(vectors={}, bad={})
    if not pictures:
        return encoded
    ray.init(log_to_driver=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    source = ray.data.from_items([{"sha256": key, "image": image} for key, image in pictures.items()])
    pipeline = source.repartition(max(1, len(pictures) // BLOCK)).map_batches(
        _EncoderActor,
        fn_constructor_args=(spec.encoder,),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=spec.resources.workers),
        num_cpus=ENCODER_CPUS,
        num_gpus=spec.resources.gpus_per_worker or None,
    )
    for row in pipeline.iter_rows():
        if row["reason"]:
            encoded.bad[row["sha256"]] = row["reason"]
        else:
            encoded.vectors[row["sha256"]] = row["vector"]
        done = len(encoded.vectors) + len(encoded.bad)
        reporter.progress(Progress(phase="encoding pictures", step=done, total_steps=len(pictures)))
    return encoded


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


def _assemble(
    source: _Source,
    encoded: _Encoded,
    tokenizer: Tokenizer,
    *,
    media_tokens: int,
    context: int,
    feature_dim: int,
    grey: np.ndarray | None,
) -> _Compiled:
    """Join tokens and vectors into a dataset; what cannot be used goes to quarantine with its reason.

    ``grey`` is the vector that text-only samples get, None where they have none.
    """
    item, prompter = source.item, Prompter(tokenizer=tokenizer, template=source.item.template)
    hashes = sorted(source.pictures.keys() & encoded.vectors.keys())
    feature_of = {sha256: index for index, sha256 in enumerate(hashes)}
    without_media = dataset.NO_FEATURE if grey is None else len(hashes)
    quarantined = list(source.quarantined)
    samples = []
    for row, sample, sha256 in source.rows:
        try:
            tokenised = prompter.sample(sample.instruction, sample.answer)
            num_positions = len(tokenised.tokens) + (media_tokens if sha256 or grey is not None else 0)
            problem = _problem_of(sha256, encoded, num_positions, item.row_tokens, context)
        except InvalidPromptError as error:
            problem = error.message
        if problem:
            quarantined.append({"row": row, "reason": f"row {row}: {problem}"})
            continue
        feature = feature_of[sha256] if sha256 else without_media
        samples.append(
            dataset.CompiledSample.of(
                tokenised, feature=feature, row=row, instruction=sample.instruction, answer=sample.answer
            )
        )
    _refuse_if_too_bad(item.file_id, len(samples), quarantined)
    vectors = [encoded.vectors[sha256] for sha256 in hashes] + ([] if grey is None else [grey])
    hashes += [] if grey is None else [dataset.GREY]
    features = np.array(vectors, dtype=np.float32).reshape(len(hashes), feature_dim)
    data = dataset.Dataset(samples=samples, features=features, feature_hashes=hashes)
    return _Compiled(data=data, quarantined=quarantined)


def _problem_of(sha256: str | None, encoded: _Encoded, num_positions: int, row_tokens: int, context: int) -> str:
    if sha256 in encoded.bad:
        return encoded.bad[sha256]
    if num_positions > context:
        return f"it has {num_positions} tokens, the base's context only {context}: shorten it"
    if num_positions > row_tokens:
        return (
            f"it has {num_positions} tokens, a packed row only {row_tokens}: shorten it or raise "
            "hyperparameters.row_tokens"
        )
    return ""


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
        "tokens": sum(compiled.data.lengths()),
        "quarantined": compiled.quarantined,
    }
    with tempfile.TemporaryDirectory() as folder:
        dataset.write(Path(folder), compiled.data)
        store.upload_folder(layout.dataset(identity), Path(folder), extra)
