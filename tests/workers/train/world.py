"""A folder as an object store, with a base, compiled data and a stage-1 adapter that belong together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ibllm_core.adapter.header import AdapterHeader
from ibllm_core.contract import layout
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.run_spec import TrainSpec
from ibllm_core.data.shards import write_features
from ibllm_core.errors import ObjectMissingError
from ibllm_core.local_store import LocalStore
from ibllm_core.storage import manifest_sha256
from tests.conftest import FEATURE_DIM, TINY
from workers.base_manifest import WEIGHTS_HASH
from workers.compile.identity import Recipe
from workers.train.checkpoint.state import CheckpointState

BASE, DATA, HELD_OUT, PARENT = "tiny", "ds-train", "ds-valid", "jobs/j/stage1/adapter"
BASE_FILES = {"config.json": {"sha256": "c", "bytes": 1}, "tokenizer.json": {"sha256": "t", "bytes": 1}}


class FurnishedStore(LocalStore):
    """A folder as a store, that things can be put into by what they are; it misses things in a bucket's words."""

    def get(self, key: str) -> bytes:
        if not self.exists(key):
            raise ObjectMissingError(f"the object store has no {key}", key=key)
        return super().get(key)

    def add_base(self, name: str = BASE, *, sha256: str = "b" * 64, **changes: Any) -> None:
        files = {**BASE_FILES, "model.safetensors": {"sha256": "w", "bytes": 1}}
        self.put_json(f"{layout.base(name)}/config.json", {**TINY, **changes})
        self.put_json(layout.manifest(layout.base(name)), {WEIGHTS_HASH: sha256, "files": files})

    def add_dataset(self, dataset: str, *, feature_dim: int = FEATURE_DIM, **changes: Any) -> None:
        """A dataset of 100 samples and 2,000 tokens; changes go to counts, recipe or encoder, whichever has the key."""
        recipe = Recipe(
            encoder_sha256="e",
            tokenizer_sha256=manifest_sha256({"files": BASE_FILES}),
            template="alpaca",
            row_tokens=64,
            context=256,
            media_tokens=0,
            grey_for_text=False,
            views=1,
        )
        about = {
            "counts": {"samples": 100, "tokens": 2000, "text_only": 10},
            "encoder": {"name": "imagebind"},
            "recipe": asdict(recipe),
        }
        for part in about.values():
            part.update({key: changes.pop(key) for key in list(changes) if key in part})
        assert not changes
        prefix = layout.dataset(dataset)
        (self.root / prefix).mkdir(parents=True, exist_ok=True)
        write_features(self.root / prefix / "features-00000.parquet", [], np.empty((0, 1, feature_dim)))
        self.put_json(layout.manifest(prefix), about)

    def add_parent(self, prefix: str = PARENT, **changes: Any) -> None:
        self.put_json(layout.manifest(prefix), {"header": header(**changes).model_dump()})

    def add_checkpoint(self, header: AdapterHeader | None) -> str:
        """One without tensors, that says what it is or, as those of older versions, does not."""
        state = CheckpointState(
            step=7,
            updates=7,
            tokens=0,
            loss_scale=1.0,
            recipe="r",
            base_sha256="b" * 64,
            header=header,
            dtype="float32",
            world_size=1,
            zero_stage=0,
        )
        prefix = layout.checkpoint("j", "stage2", 7)
        self.put(f"{prefix}/state.json", state.model_dump_json().encode())
        self.put_json(layout.manifest(prefix), {"files": {"state.json": {}}})
        return prefix


def header(**changes: Any) -> AdapterHeader:
    """That of an adapter of stage 1 on ``BASE``."""
    whole: dict[str, Any] = {
        "stage": "stage1",
        "config": AdapterConfig(),
        "feature_dim": FEATURE_DIM,
        "vocab_size": TINY["vocab_size"],
        "template": "caption",
        "base": BASE,
        "base_sha256": "b" * 64,
        "encoder": "imagebind",
    }
    return AdapterHeader(**{**whole, **changes})


def spec(stage: str = "stage1", **changes: Any) -> TrainSpec:
    """A run that can work; ``resources`` and ``hyperparameters`` are merged into its own."""
    whole: dict[str, Any] = {
        "job_id": "j",
        "run_id": "r",
        "attempt_id": "a",
        "attempt_number": 1,
        "service_url": "http://service",
        "token": "t",
        "base": BASE,
        "encoder": "imagebind",
        "adapter": {},
        "seed": 0,
        "stage": stage,
        "datasets": [{"dataset": DATA, "weight": 1.0}],
        "validation_dataset": HELD_OUT,
        "template": "alpaca",
        "parent_adapter": PARENT if stage == "stage2" else None,
        "adapter_prefix": "models/x",
    }
    merged = {
        "resources": {"workers": 2, "precision": "fp32", **changes.pop("resources", {})},
        "hyperparameters": {"row_tokens": 64, "rows_per_step": 4, **changes.pop("hyperparameters", {})},
    }
    return TrainSpec.model_validate({**whole, **merged, **changes})
