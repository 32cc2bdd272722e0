"""The proof of a stage: that what must stay frozen did not move, and how far each trained group did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ibllm_core.contract.base import Contract
from ibllm_core.errors import FrozenWeightsMovedError
from ibllm_core.model.stages import group_of, trained_parameters

Whole = Callable[[list[nn.Parameter]], AbstractContextManager[None]]


class FrozenGroup(Contract):
    """A group that did not train: SHA-256 before and after, over names, shapes, dtypes and bytes."""

    parameters: int
    sha256_before: str
    sha256_after: str


class TrainedGroup(Contract):
    """A group that trained: L2 norm of its weights before, L2 norm and largest magnitude of what changed."""

    parameters: int
    norm_before: float
    drift: float
    drift_max: float


class StageProof(Contract):
    """What a job's report shows of a stage."""

    frozen: dict[str, FrozenGroup]
    trained: dict[str, TrainedGroup]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A model before a stage: hashes and sizes of the frozen groups, copies of the trained weights on the CPU."""

    hashes: dict[str, str]
    sizes: dict[str, int]
    weights: dict[str, Tensor]


def snapshot(model: nn.Module) -> Snapshot:
    """Take note of a model whose stage is set; holds one float32 copy of what trains."""
    weights = {name: p.detach().to("cpu", torch.float32, copy=True) for name, p in trained_parameters(model)}
    return Snapshot(hashes=hash_frozen_groups(model), sizes=_count(model), weights=weights)


def prove(before: Snapshot, after: Mapping[str, str], trained: Mapping[str, Tensor]) -> StageProof:
    """Compare a model after its stage with its snapshot.

    ``after`` are the frozen groups' hashes now, ``trained`` the float32 weights by name. Raises
    ``FrozenWeightsMovedError``, which names the groups, where something frozen moved.
    """
    moved = sorted(group for group in before.hashes.keys() | after if before.hashes.get(group) != after.get(group))
    if moved:
        raise FrozenWeightsMovedError(f"frozen weights moved in training: {', '.join(moved)}; nothing was saved")
    frozen = {
        group: FrozenGroup(parameters=before.sizes[group], sha256_before=digest, sha256_after=after[group])
        for group, digest in before.hashes.items()
    }
    return StageProof(frozen=frozen, trained=_drifts(before.weights, trained))


def hash_frozen_groups(model: nn.Module, whole: Whole = lambda parameters: nullcontext()) -> dict[str, str]:
    """SHA-256 of every frozen group, over names, shapes, dtypes and bytes in the order of the names.

    ``whole`` makes a parameter readable whose parts lie on several ranks.
    """
    digests: dict[str, hashlib._Hash] = {}
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            continue
        digest = digests.setdefault(group_of(name), hashlib.sha256())
        with whole([parameter]):
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            raw = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
    return {group: digest.hexdigest() for group, digest in digests.items()}


def _count(model: nn.Module) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            sizes[group_of(name)] = sizes.get(group_of(name), 0) + parameter.numel()
    return sizes


def _drifts(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, TrainedGroup]:
    names: dict[str, list[str]] = {}
    for name in before:
        names.setdefault(group_of(name), []).append(name)
    return {
        group: _drift([(before[name], after[name].float()) for name in members]) for group, members in names.items()
    }


def _drift(pairs: list[tuple[Tensor, Tensor]]) -> TrainedGroup:
    changes = [(new - old).flatten() for old, new in pairs]
    return TrainedGroup(
        parameters=sum(old.numel() for old, _ in pairs),
        norm_before=sum(float(old.norm()) ** 2 for old, _ in pairs) ** 0.5,
        drift=sum(float(change.norm()) ** 2 for change in changes) ** 0.5,
        drift_max=max(float(change.abs().max()) for change in changes),
    )
