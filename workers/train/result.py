"""What a finished stage leaves: the proof, the adapter, the table of its metrics."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from ibllm_core.adapter import files
from ibllm_core.adapter.header import Adapter, AdapterHeader
from ibllm_core.contract import layout
from ibllm_core.contract.run_spec import Outcome, ResultFile, TrainSpec
from ibllm_core.contract.states import TerminationReason
from ibllm_core.model.stage_proof import hash_frozen_groups, prove
from ibllm_core.model.stages import adapted_parameters
from ibllm_core.storage import Store
from workers.reporting import Voice
from workers.train.checkpoint.listing import Checkpoints, Opened
from workers.train.checkpoint.parts import gather_weights
from workers.train.checkpoint.resume import Choose, agreed, best
from workers.train.loop import Trained
from workers.train.setup import Ready


@dataclass(frozen=True, kw_only=True)
class Result:
    """The step whose weights become the stage's adapter, and its validation loss, None where it was not measured."""

    step: int
    validation_loss: float | None


def choose_result(
    spec: TrainSpec,
    checkpoints: Checkpoints,
    done: Trained,
    take_up: Callable[[Choose], Opened | None],
    voice: Voice,
) -> Result:
    """Whether the last step or the best is the result, whose weights are in the engine then; all ranks must call it.

    Where no validation loss is finite, which is said, no step is better than the last.
    """
    last = Result(step=done.step, validation_loss=done.validation_loss)
    if spec.checkpoints.result == "last" or agreed(checkpoints, best) == done.step:
        return last
    opened = take_up(best)
    if opened is not None:
        return Result(step=opened.state.step, validation_loss=opened.state.validation_loss)
    if dist.get_rank() == 0:
        voice.event(
            f"{spec.stage} has no checkpoint with a finite validation loss: its last step is taken", level="warn"
        )
    return last


def publish(
    spec: TrainSpec, ready: Ready, done: Trained, result: Result, rows: list[dict[str, float]], store: Store
) -> Outcome:
    """Prove the stage, upload adapter and metrics; all ranks must call it, the first one's outcome counts.

    The engine has the weights of ``result``. Raises ``FrozenWeightsMovedError`` before anything is uploaded.
    """
    engine, model = ready.engine, ready.model
    weights = gather_weights(engine, dist.new_group(backend="gloo"))  # NCCL sends nothing from the host's memory
    if engine.rank > 0 and engine.zero_stage < 3:
        return Outcome(reason=TerminationReason.SUCCEEDED)
    after = hash_frozen_groups(model, engine.gathered)
    header = header_of(spec, ready)
    with engine.gathered([parameter for _, parameter in adapted_parameters(model, spec.stage)]):
        tensors = files.adapted_tensors(model, header)
    if ready.before is None:
        return Outcome(reason=TerminationReason.SUCCEEDED)
    proof = prove(ready.before, after, weights)
    with tempfile.TemporaryDirectory() as folder:
        files.write(Path(folder), Adapter(header=header, tensors={**tensors, **weights}))
        about = {"header": header.model_dump(), "step": result.step}
        manifest = store.upload_folder(spec.adapter_prefix, Path(folder), about)
    outputs = {
        "adapter": spec.adapter_prefix,
        "adapter_sha256": manifest["files"][files.FILENAME]["sha256"],
        "proof": proof.model_dump(),
        "step": result.step,
        "valid_loss": result.validation_loss,
        "steps": done.step,
        "skipped_steps": done.skipped_steps,
        "world_size": engine.world_size,
        "zero_stage": engine.zero_stage,
        "plan": ready.plan.why,
        "dtype": str(ready.dtype).removeprefix("torch."),
        "trained_parameters": sum(group.parameters for group in proof.trained.values()),
        "trained_tokens": done.tokens,
    }
    return Outcome(reason=TerminationReason.SUCCEEDED, outputs=outputs, result_files=(_write_table(spec, rows, store),))


def lineage_of(spec: TrainSpec) -> str:
    """The datasets and their weights, in words."""
    return " + ".join(f"{share.weight:g} {share.dataset}" for share in spec.datasets).removeprefix("1 ")


def header_of(spec: TrainSpec, ready: Ready) -> AdapterHeader:
    """What the run's adapter and its checkpoints say of themselves."""
    return AdapterHeader(
        stage=spec.stage,
        config=spec.adapter,
        feature_dim=ready.corpus.feature_dim,
        vocab_size=ready.model.shape.vocab_size,
        template=spec.template,
        base=spec.base,
        base_sha256=ready.base.sha256,
        encoder=spec.encoder,
        dataset=lineage_of(spec),
        parent=spec.parent_adapter,
        job_id=spec.job_id,
    )


def _write_table(spec: TrainSpec, rows: list[dict[str, float]], store: Store) -> ResultFile:
    """OpenAI's result file, a CSV with a row a logged step; empty cells were not measured."""
    columns = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows(rows)
    body = text.getvalue().encode()
    filename = f"{spec.stage}_metrics.csv"
    key = layout.report(spec.job_id, spec.stage, filename)
    store.put(key, body)
    return ResultFile(key=key, filename=filename, bytes=len(body))
