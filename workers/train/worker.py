"""One rank of a training run: load, train, save, and say what came of it."""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from torch import distributed as dist

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter, AdapterHeader
from ibllm_core.contract import layout
from ibllm_core.contract import metrics as names
from ibllm_core.contract.run_spec import Outcome, Progress, ResultFile, TrainSpec
from ibllm_core.contract.states import TerminationReason
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.mapped import open_compiled
from ibllm_core.model.stage_proof import prove, snapshot
from ibllm_core.model.stages import freeze_for
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import ObjectStore
from workers.model_loading import choose_dtype, fetch_base, load_model
from workers.reporting import Reporter
from workers.settings import WorkerSettings
from workers.tracking import MetricSpool
from workers.train import checkpoint
from workers.train.engine import build_engine, init_distributed
from workers.train.loop import LoggedStep, train


def train_worker(config: dict[str, str]) -> str:
    """Ray Train's loop function; returns the rank's outcome as JSON."""
    spec = TrainSpec.model_validate_json(config["spec"])
    init_distributed()
    with Reporter(spec) as reporter:
        outcome = _train(spec, WorkerSettings(), ObjectStore(StorageSettings()), reporter)
    return outcome.model_dump_json()


def _train(spec: TrainSpec, settings: WorkerSettings, store: ObjectStore, reporter: Reporter) -> Outcome:
    is_first = dist.get_rank() == 0
    node = ray.get_runtime_context().get_node_id()
    if is_first:
        reporter.progress(Progress(phase="loading", nodes=(node,)))
    torch.manual_seed(spec.seed)
    base = fetch_base(store, spec.base, settings.ibllm_cache)
    corpus = Corpus(
        [open_compiled(store, share.dataset, settings.ibllm_cache) for share in spec.datasets],
        [share.weight for share in spec.datasets],
    )
    parent = store.download_folder(spec.parent_adapter, settings.ibllm_cache) if spec.parent_adapter else None
    dtype = choose_dtype(spec.resources.precision)
    feature_dim = corpus.feature_dim
    model = load_model(base, feature_dim=feature_dim, config=spec.adapter, stage=spec.stage, dtype=dtype, parent=parent)
    freeze_for(spec.stage, model, spec.adapter.preset)
    before = snapshot(model) if is_first else None
    engine = build_engine(model, spec.hyperparameters, zero_stage=spec.resources.zero_stage, dtype=dtype)

    history = _History(spec, reporter, node)
    with contextlib.ExitStack() as stack:
        if is_first:
            history.spool = stack.enter_context(
                MetricSpool(settings.mlflow_tracking_uri, spec.mlflow_run_id, settings.ibllm_cache / "spool")
            )
        trained = train(
            engine,
            model,
            corpus,
            spec.hyperparameters,
            seed=spec.seed,
            pad_token=base.tokenizer().eos_token_id,
            on_log=history.add,
        )
    steps = trained.steps
    weights, moments = checkpoint.gather_trained(engine)
    if before is None:
        return Outcome(reason=TerminationReason.SUCCEEDED)

    reporter.progress(Progress(phase="saving", step=steps, total_steps=steps, nodes=(node,)))
    proof = prove(model, before, weights)
    lineage = " + ".join(f"{share.weight:g} {share.dataset}" for share in spec.datasets).removeprefix("1 ")
    state = {"step": steps, "seed": spec.seed, "base_sha256": base.sha256, "dataset": lineage}
    checkpoint.save(
        store,
        layout.checkpoint(spec.job_id, spec.stage, steps),
        weights=weights,
        moments=moments,
        state=state,
    )
    header = AdapterHeader(
        stage=spec.stage,
        config=spec.adapter,
        feature_dim=feature_dim,
        vocab_size=model.shape.vocab_size,
        template=spec.template,
        base=spec.base,
        base_sha256=base.sha256,
        encoder=spec.encoder,
        dataset=lineage,
        parent=spec.parent_adapter,
        job_id=spec.job_id,
    )
    with tempfile.TemporaryDirectory() as folder:
        tensors = {**files.adapted_tensors(model, header), **weights}
        files.write(Path(folder), Adapter(header=header, tensors=tensors))
        manifest = store.upload_folder(spec.adapter_prefix, Path(folder), {"header": header.model_dump()})
    outputs = {
        "adapter": spec.adapter_prefix,
        "adapter_sha256": manifest["files"][files.FILENAME]["sha256"],
        "proof": proof.model_dump(),
        "steps": steps,
        "world_size": engine.world_size,
        "zero_stage": spec.resources.zero_stage,
        "dtype": str(dtype).removeprefix("torch."),
        "trained_parameters": sum(group.parameters for group in proof.trained.values()),
        "trained_tokens": trained.tokens,
    }
    result = history.publish(store)
    return Outcome(reason=TerminationReason.SUCCEEDED, outputs=outputs, result_files=(result,))


class _History:
    """Every logged step: as progress and in MLflow while training, as the stage's metrics file at its end."""

    spool: MetricSpool | None = None

    def __init__(self, spec: TrainSpec, reporter: Reporter, node: str) -> None:
        self._spec = spec
        self._reporter = reporter
        self._node = node
        self._rows: list[dict[str, Any]] = []

    def add(self, logged: LoggedStep) -> None:
        values = logged.metrics
        self._rows.append({"step": logged.step, **values})
        if self.spool:
            self.spool.log(logged.step, values)
        self._reporter.progress(
            Progress(
                phase="training",
                step=logged.step,
                total_steps=logged.total_steps,
                seconds_left=None if logged.step == 0 else logged.seconds_left,
                loss=values.get(names.TRAIN_LOSS),
                tokens_per_second=values.get(names.TRAIN_TOKENS_PER_SECOND),
                gate_abs_mean=values.get(names.GATE_ABS_MEAN),
                nodes=(self._node,),
            )
        )

    def publish(self, store: ObjectStore) -> ResultFile:
        """Write OpenAI's result file, a CSV with a row a logged step; empty cells were not measured."""
        columns = list(dict.fromkeys(name for row in reversed(self._rows) for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=columns)
        writer.writeheader()
        writer.writerows(self._rows)
        body = text.getvalue().encode()
        filename = f"{self._spec.stage}_metrics.csv"
        key = layout.report(self._spec.job_id, self._spec.stage, filename)
        store.put(key, body)
        return ResultFile(key=key, filename=filename, bytes=len(body))
