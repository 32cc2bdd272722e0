"""Checkpoints that know no world size and no ZeRO stage: whole tensors by name, manifest last, no pickle."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ibllm_core.model.stages import trained_parameters
from ibllm_core.storage import ObjectStore
from workers.train.engine import Engine


def gather_trained(engine: Engine) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """fp32 weights and Adam moments of every trained parameter, whole; every rank must call it.

    Moments are named ``<parameter>/exp_avg`` and ``<parameter>/exp_avg_sq``.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    _link_moments(engine.deepspeed.optimizer)
    weights: dict[str, torch.Tensor] = {}
    moments: dict[str, torch.Tensor] = {}
    for name, parameter in trained_parameters(engine.deepspeed.module):
        weights[name] = safe_get_full_fp32_param(parameter).cpu()
        for moment in ("exp_avg", "exp_avg_sq"):
            moments[f"{name}/{moment}"] = safe_get_full_optimizer_state(parameter, moment).cpu()
    return weights, moments


def _link_moments(optimizer: Any) -> None:
    """Link every group's moments to its parameters.

    DeepSpeed 0.19.8 links once, inside the step of the first parameter group, when the later groups (our gates) have no
    moments yet; asking for theirs then fails.
    """
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def save(
    store: ObjectStore,
    prefix: str,
    *,
    weights: dict[str, torch.Tensor],
    moments: dict[str, torch.Tensor],
    state: dict[str, Any],
) -> None:
    """Write a checkpoint below ``prefix``; it exists once its manifest does."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_file({name: t.contiguous() for name, t in weights.items()}, folder / "trainable.safetensors")
        save_file({name: t.contiguous() for name, t in moments.items()}, folder / "optimizer.safetensors")
        (folder / "state.json").write_text(json.dumps(state, indent=1))
        store.upload_folder(prefix, folder)
