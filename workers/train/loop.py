"""The training loop: global batches in their fixed order, one step each, and what is seen every few steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from ibllm_core.contract import metrics as names
from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.data.collate import collate, count_labels
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.packing import Sampler
from ibllm_core.errors import InvalidSpecError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from workers.train.engine import Engine, schedule, train_step

LOGS_PER_TRAINING = 40


@dataclass(frozen=True, kw_only=True)
class LoggedStep:
    """What is known at a logged step; steps count from 0, the state before training."""

    step: int
    total_steps: int
    metrics: dict[str, float]
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a whole training was; tokens are real ones, each as often as it was seen."""

    steps: int
    tokens: int


@dataclass
class _Window:
    """Sums since the last logged step."""

    started: float = field(default_factory=time.monotonic)
    loss: Tensor | None = None
    steps: int = 0
    tokens: int = 0
    positions: int = 0


def train(
    engine: Engine,
    model: ImageBindLLM,
    corpus: Corpus,
    settings: Hyperparameters,
    *,
    seed: int,
    pad_token: int,
    on_log: Callable[[LoggedStep], None],
) -> Trained:
    """Train to the end; ``on_log`` is called on rank 0 only.

    A rank takes every ``world_size``-th row of a global batch. Where an epoch's last batch has fewer rows than ranks,
    the others pass one row of padding, which adds nothing to the gradient.
    """
    sampler = Sampler(
        sizes=corpus.sizes,
        weights=corpus.weights,
        seed=seed,
        epochs=settings.n_epochs,
        row_tokens=settings.row_tokens,
        rows_per_step=settings.rows_per_step,
    )
    lengths, tokens = corpus.lengths(model.fusion.media_tokens), corpus.lengths()
    total = sampler.count_steps(lengths)
    log_every = max(1, total // LOGS_PER_TRAINING)
    if engine.rank == 0:
        on_log(LoggedStep(step=0, total_steps=total, metrics=gate_metrics(model), seconds_left=float("nan")))
    window, device, trained_tokens = _Window(), next(model.parameters()).device, 0
    for step, global_batch in enumerate(sampler.batches(lengths), start=1):
        engine.set_learning_rates(schedule(step - 1, total, settings.warmup_share))
        rows = global_batch.rows[engine.rank :: engine.world_size] or ((),)
        batch = collate(
            corpus,
            rows,
            row_tokens=settings.row_tokens,
            pad_token=pad_token,
            media_tokens=model.fusion.media_tokens,
            epoch=global_batch.epoch,
        ).to(device)
        share = train_step(engine, batch, count_labels(corpus, global_batch.rows))
        window.loss = share if window.loss is None else window.loss + share
        window.steps += 1
        step_tokens = sum(int(tokens[list(row)].sum()) for row in global_batch.rows)
        window.tokens += step_tokens
        trained_tokens += step_tokens
        window.positions += max(len(global_batch.rows), engine.world_size) * settings.row_tokens
        if step % log_every == 0 or step == total:
            logged = _close(window, engine, model, step, total)
            if engine.rank == 0:
                on_log(logged)
            window = _Window()
    return Trained(steps=total, tokens=trained_tokens)


def gate_metrics(model: ImageBindLLM) -> dict[str, float]:
    """The gates as metrics, one copy to the host for all layers; none for a fusion without gates."""
    magnitudes = model.gate_magnitudes()
    if magnitudes is None:
        return {}
    magnitudes = magnitudes.cpu()
    per_layer: Iterator[tuple[str, float]] = (
        (names.gate_layer(layer), float(value)) for layer, value in enumerate(magnitudes.mean(dim=1))
    )
    return {
        names.GATE_ABS_MEAN: float(magnitudes.mean()),
        names.GATE_ABS_MAX: float(magnitudes.max()),
        names.GATE_OPEN_SHARE: float((magnitudes > names.GATE_OPEN_THRESHOLD).float().mean()),
        **dict(per_layer),
    }


def _close(window: _Window, engine: Engine, model: ImageBindLLM, step: int, total: int) -> LoggedStep:
    assert window.loss is not None
    loss = window.loss.float()
    dist.all_reduce(loss)  # the ranks' shares add up to the global mean
    seconds = time.monotonic() - window.started
    rates = [group["lr"] for group in engine.deepspeed.optimizer.param_groups]
    metrics = {
        names.TRAIN_LOSS: loss.item() / window.steps,
        names.TRAIN_LEARNING_RATE: rates[0],
        names.TRAIN_GRAD_NORM: engine.grad_norm(),
        names.TRAIN_TOKENS_PER_SECOND: window.tokens / seconds,
        names.TRAIN_USEFUL_TOKEN_SHARE: window.tokens / window.positions,
        **gate_metrics(model),
    }
    if not torch.isfinite(loss):
        raise InvalidSpecError(f"the loss is not finite at step {step}: lower learning_rate, or use fp32")
    left = (total - step) * seconds / window.steps
    return LoggedStep(step=step, total_steps=total, metrics=metrics, seconds_left=left)
