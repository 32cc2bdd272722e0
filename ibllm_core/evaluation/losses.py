"""The loss of held-out samples with their own media, with other samples' and without any.

Cheap enough for a training to ask every few hundred steps. The rows are shared between ranks, each of which makes as
many forward passes as the others, on batches of one shape: under ZeRO 3 every rank takes part in every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ibllm_core.contract import metrics as names
from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import NO_FEATURE, Dataset
from ibllm_core.data.packing import pack
from ibllm_core.errors import InvalidDataError
from ibllm_core.evaluation.shuffling import shuffled_media
from ibllm_core.model.batch import Batch

Variant = Literal["right", "shuffled", "words"]
VARIANTS: tuple[Variant, ...] = ("right", "shuffled", "words")
METRICS: dict[Variant, str] = {
    "right": names.EVAL_LOSS,
    "shuffled": names.EVAL_LOSS_SHUFFLED,
    "words": names.EVAL_LOSS_BEFORE,
}
ROWS_PER_BATCH = 4
SHUFFLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class LossSums:
    """One rank's part: ``sums`` has the summed loss of each variant and then the label tokens, float64 on the device.

    Reduced over the ranks (``dist.all_reduce(found.sums)``), ``metrics`` are those of all samples.
    """

    variants: tuple[Variant, ...]
    sums: Tensor

    def metrics(self) -> dict[str, float]:
        """Mean loss a label token in nats, by the name of its metric; none where there are no label tokens."""
        *losses, labels = self.sums.tolist()
        if not labels:
            return {}
        return {METRICS[variant]: loss / labels for variant, loss in zip(self.variants, losses, strict=True)}


def evaluation_losses(
    forward: Callable[[Batch], Tensor],
    data: Dataset,
    *,
    module: nn.Module,
    media_tokens: int,
    row_tokens: int,
    pad_token: int,
    limit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    rows_per_batch: int = ROWS_PER_BATCH,
    variants: Sequence[Variant] = VARIANTS,
    tell: Callable[[int, int], None] | None = None,
) -> LossSums:
    """Sums over this rank's share of the first ``limit`` samples; the same for every call, and for any world size.

    ``forward`` gives the losses of a batch's label tokens ``[N]``: an ``ImageBindLLM``, or an engine around one.
    ``module`` is that model, which is in evaluation mode meanwhile and afterwards as before; ``media_tokens`` are its
    fusion's. No gradient is kept and no random number is drawn. ``tell`` hears passes done and passes in all.
    ``InvalidDataError`` for a sample longer than a row.
    """
    chosen = np.arange(len(data) if limit is None else min(limit, len(data)))
    rows = _share(_rows(data, chosen, media_tokens, row_tokens), rank, world_size, rows_per_batch)
    media = {"right": np.asarray(data.feature_S), "shuffled": shuffled_media(data, SHUFFLE_SEED)}
    media["words"] = np.full_like(media["right"], NO_FEATURE)
    device = next(module.parameters()).device
    sums = torch.zeros(len(variants) + 1, dtype=torch.float64, device=device)
    batches = [rows[start : start + rows_per_batch] for start in range(0, len(rows), rows_per_batch)]
    with torch.no_grad(), _evaluating(module):
        for number, variant in enumerate(variants):
            for done, part in enumerate(batches):
                if tell:
                    tell(number * len(batches) + done, len(variants) * len(batches))
                batch = collate(
                    data,
                    part,
                    row_tokens=row_tokens,
                    pad_token=pad_token,
                    media_tokens=media_tokens,
                    feature_of=media[variant],
                )
                sums[number] += forward(batch.to(device)).double().sum()
    sums[-1] = sum(int(data.num_labels_S[list(row)].sum()) for row in rows)
    return LossSums(variants=tuple(variants), sums=sums)


def _rows(data: Dataset, chosen: np.ndarray, media_tokens: int, row_tokens: int) -> list[tuple[int, ...]]:
    lengths = data.lengths(media_tokens)
    longest = int(lengths[chosen].max(initial=0))
    if longest > row_tokens:
        raise InvalidDataError(
            f"the held-out data has a sample of {longest} tokens, a packed row only {row_tokens}: raise "
            "hyperparameters.row_tokens to that of the job that compiled it"
        )
    return pack(chosen, lengths, row_tokens)


def _share(rows: Sequence[tuple[int, ...]], rank: int, world_size: int, rows_per_batch: int) -> list[tuple[int, ...]]:
    """Every ``world_size``-th row, filled up with empty ones to whole batches, as many on each rank."""
    batches = -(-len(rows) // (world_size * rows_per_batch))
    mine = list(rows[rank::world_size])
    return mine + [()] * (batches * rows_per_batch - len(mine))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
