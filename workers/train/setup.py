"""What a rank makes before its first step: data, model, engine, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.dataset import Dataset
from ibllm_core.data.mapped import open_compiled
from ibllm_core.data.packing import Sampler
from ibllm_core.errors import CoreError
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.layers import checkpoint_activations, compile_layers
from ibllm_core.model.stage_proof import Snapshot, snapshot
from ibllm_core.model.stages import freeze_for
from ibllm_core.planning.choice import Plan
from ibllm_core.storage import Store
from workers.adapter_source import fetch_adapter
from workers.errors import chain_of
from workers.model_loading import Base, choose_dtype, fetch_base, load_model
from workers.train.engine.base import Engine
from workers.train.engine.build import build_engine
from workers.train.feed import Feed
from workers.train.preflight import preflight
from workers.train.room import room_of
from workers.train.telemetry import Machine, product_rate

Decision = TypeVar("Decision")


@dataclass
class Clock:
    """How long each part of the start took, in seconds."""

    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part."""
        started = time.monotonic()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.monotonic() - started

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.parts.items())
        return f"{sum(self.parts.values()):.1f} s to the first step: {listed}"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """All that a rank trains with; ``before`` is on the first rank alone."""

    plan: Plan
    dtype: torch.dtype
    base: Base
    corpus: Corpus
    validation: Dataset | None
    model: ImageBindLLM
    before: Snapshot | None
    engine: Engine
    feed: Feed
    machine: Machine
    device: torch.device


def prepare(spec: TrainSpec, store: Store, cache: Path, device: torch.device, clock: Clock) -> Ready:
    """Check, fetch, load and put together; raises ``InvalidSpecError`` with all problems before any weight is read."""
    rank, dtype = dist.get_rank(), choose_dtype(spec.resources.precision)
    with clock.part("checks"):
        plan = decided_by_first(lambda: _plan(spec, store, dtype))
    with clock.part("data"):
        corpus = Corpus(
            [open_compiled(store, share.dataset, cache) for share in spec.datasets],
            [share.weight for share in spec.datasets],
        )
        validation = open_compiled(store, spec.validation_dataset, cache) if spec.validation_dataset else None
    with clock.part("base"):
        base = fetch_base(store, spec.base, cache)
        parent = fetch_adapter(store, spec.parent_adapter, cache) if spec.parent_adapter else None
        torch.manual_seed(spec.seed)
        model = load_model(
            base,
            feature_dim=corpus.feature_dim,
            config=spec.adapter,
            stage=spec.stage,
            dtype=dtype,
            parent=parent,
        )
    freeze_for(spec.stage, model, spec.adapter.preset)
    with clock.part("hashes"):
        before = snapshot(model) if rank == 0 else None
    with clock.part("product rate"):
        machine = _machine(model, device, dtype, plan.micro_batch_tokens)
    with clock.part("engine"):
        if spec.resources.compile:
            compile_layers(model)
        if spec.resources.activation_checkpointing:
            checkpoint_activations(model)
        engine = build_engine(
            model,
            spec.hyperparameters,
            zero_stage=plan.zero_stage,
            offload=plan.offload,
            dtype=dtype,
            device=device,
        )
    return Ready(
        plan=plan,
        dtype=dtype,
        base=base,
        corpus=corpus,
        validation=validation,
        model=model,
        before=before,
        engine=engine,
        feed=_feed(spec, corpus, model, base, plan.rows),
        machine=machine,
        device=device,
    )


def decided_by_first(decide: Callable[[], Decision]) -> Decision:
    """What the first rank finds, on all ranks; what it raises is raised on all."""
    found: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            found = [decide(), None]
        except Exception as error:
            known = next((cause for cause in chain_of(error) if isinstance(cause, CoreError)), None)
            if known is None:
                raise
            found = [None, known]
    dist.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise found[1]
    decision: Decision = found[0]
    return decision


def _plan(spec: TrainSpec, store: Store, dtype: torch.dtype) -> Plan:
    # Workers of a node share its memory. How many a node holds is Ray's choice; all on one is the worst that can be.
    room = room_of(spec.resources, workers_on_node=dist.get_world_size())
    world = spec.resources.model_copy(update={"workers": dist.get_world_size()})
    return preflight(spec.model_copy(update={"resources": world}), store, room, dtype.itemsize)


def _feed(spec: TrainSpec, corpus: Corpus, model: ImageBindLLM, base: Base, rows: int) -> Feed:
    settings = spec.hyperparameters
    sampler = Sampler(
        sizes=corpus.sizes,
        weights=corpus.weights,
        seed=spec.seed,
        epochs=settings.n_epochs,
        row_tokens=settings.row_tokens,
        rows_per_step=settings.rows_per_step,
    )
    return Feed(
        corpus=corpus,
        sampler=sampler,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        micro_rows=rows,
        media_tokens=model.fusion.media_tokens,
        pad_token=base.tokenizer().eos_token_id,
    )


def _machine(model: ImageBindLLM, device: torch.device, dtype: torch.dtype, tokens: int) -> Machine:
    products = (
        m for m in model.llama.model.layers.modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad
    )
    shape = model.shape
    return Machine(
        flops_per_token=4 * sum(linear.weight.numel() for linear in products),
        product_rate=product_rate(device, dtype, tokens=tokens, model_dim=shape.model_dim, hidden_dim=shape.hidden_dim),
    )
