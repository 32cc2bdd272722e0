"""What attention costs and how much of the machine a stage-1 step uses: ``python -m tests.benchmarks.attention``.

A LLaMA of SmolLM2-135M's shape with random weights, captions of 10 to 40 tokens, bf16 where the CPU has it. First, real
tokens a second through four layers, forward and backward: attention within samples, under a dense mask over each row,
and one sample a row padded to the longest, in turns. Then the whole step: 4 N FLOPs a real token (N weights of the
layers' matrices; bind network, head and attention count as waste) beside what the layers' products alone reach.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import Dataset
from ibllm_core.data.packing import Sampler
from ibllm_core.model.batch import Batch
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.layers import compile_layers
from tests.benchmarks.shapes import captions, stage1_model
from workers.model_loading import choose_dtype

TURNS = 5
TOKENS = 2048
WIDTHS = (256, 512, 1024, 2048)
STEPS = (512, 1024, 2048)


def main() -> None:
    dtype = choose_dtype("auto")
    print(f"{torch.get_num_threads()} threads, {dtype}, real tokens a second")
    model = stage1_model(dtype, num_layers=4)
    print("row tokens  within samples  dense mask  padded")
    for width in WIDTHS:
        print("{:10}  {:14.0f}  {:10.0f}  {:6.0f}".format(width, *compare(model, width)))
    whole, compiled = stage1_model(dtype), stage1_model(dtype)
    compile_layers(compiled)
    print("tokens a step  real tokens/s  utilisation  compiled  utilisation  products alone, GFLOP/s")
    for tokens in STEPS:
        eager, rate, eager_share, fused_share = utilisation(whole, compiled, tokens)
        fused = eager * fused_share / eager_share
        print(f"{tokens:13}  {eager:13.0f}  {eager_share:11.0%}  {fused:8.0f}  {fused_share:11.0%}  {rate / 1e9:23.0f}")


def compare(model: ImageBindLLM, width: int, tokens: int = TOKENS, turns: int = TURNS) -> list[float]:
    """Real tokens a second of the three ways."""
    data = captions(200)
    rows = rows_of(data, width, tokens // width)
    singles = [(index,) for row in rows for index in row]
    longest = int(data.lengths()[[index for (index,) in singles]].max())
    packed, dense = collate(data, rows, row_tokens=width, pad_token=0), dense_batch(data, rows, width)
    padded = dense_batch(data, singles, longest)
    ways: list[Callable[[], Tensor]] = [
        lambda: model.packed_hidden(packed),
        lambda: dense_hidden(model, dense),
        lambda: dense_hidden(model, padded),
    ]
    return [packed.blocks.num_tokens / seconds for seconds in in_turns([_step(way) for way in ways], turns)]


def utilisation(
    whole: ImageBindLLM, compiled: ImageBindLLM, tokens: int, turns: int = TURNS
) -> tuple[float, float, float, float]:
    """Real tokens a second, FLOP/s of the products alone, and the share of it that a step has, plain and compiled."""
    batch = collate(data := captions(200), rows_of(data, 256, tokens // 256), row_tokens=256, pad_token=0)
    products, flops_a_token = layer_products(whole, tokens)
    steps = [_step(lambda: whole(batch)), _step(lambda: compiled(batch))]
    alone, eager, fused = in_turns([products, *steps], turns)
    rate = flops_a_token * tokens / alone
    real = batch.blocks.num_tokens
    flops = flops_a_token * len(whole.llama.model.layers) * real
    return real / eager, rate, flops / eager / rate, flops / fused / rate


def layer_products(model: ImageBindLLM, tokens: int) -> tuple[Callable[[], None], int]:
    """The products of one layer over so many tokens, forward and for the inputs' gradients; its FLOPs a token, 4 N."""
    weights = [p for p in model.llama.model.layers[0].parameters() if p.ndim == 2]
    inputs = [(w.new_empty(tokens, w.shape[1]).normal_(), w.new_empty(tokens, w.shape[0]).normal_()) for w in weights]

    def products() -> None:
        for weight, (x, gradient) in zip(weights, inputs, strict=True):
            F.linear(x, weight)
            torch.mm(gradient, weight)

    return products, 4 * sum(weight.numel() for weight in weights)


def rows_of(data: Dataset, width: int, count: int) -> Sequence[tuple[int, ...]]:
    samples = len(data.lengths())
    sampler = Sampler(sizes=[samples], weights=[1.0], seed=0, epochs=1, row_tokens=width, rows_per_step=count)
    return next(sampler.batches(data.lengths())).rows


def dense_batch(data: Dataset, rows: Sequence[tuple[int, ...]], width: int) -> tuple[list[Batch], Tensor]:
    """Each row as a batch, and who may look at whom in all of them, ``[B, 1, T, T]``."""
    batches = [collate(data, [row], row_tokens=width, pad_token=0) for row in rows]
    samples_BT = (torch.stack([batch.positions_T for batch in batches]) == 0).cumsum(dim=1)
    return batches, (samples_BT[:, :, None] == samples_BT[:, None, :]).tril()[:, None]


def dense_hidden(model: ImageBindLLM, dense: tuple[list[Batch], Tensor]) -> Tensor:
    """Final hidden states under a dense mask: the way before ``within_samples``, and what a padded trainer does."""
    batches, mask = dense
    tokens, positions = (
        torch.stack([getattr(batch, name) for batch in batches]) for name in ("tokens_T", "positions_T")
    )
    firsts = torch.tensor([0] + [len(batch.features_SF) for batch in batches[:-1]]).cumsum(dim=0).tolist()
    counted = [
        torch.where(b.segments_T < 0, b.segments_T, b.segments_T + f) for b, f in zip(batches, firsts, strict=True)
    ]
    condition = model.condition(torch.cat([batch.features_SF for batch in batches]))
    return model.hidden(tokens, positions, mask, condition, torch.stack(counted))


def in_turns(ways: Sequence[Callable[[], object]], turns: int) -> list[float]:
    """Median seconds of each."""
    for way in ways:
        way()
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(turns):
        for way, taken in zip(ways, times, strict=True):
            started = time.perf_counter()
            way()
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


def _step(forward: Callable[[], Tensor]) -> Callable[[], None]:
    return lambda: forward().sum().backward()


if __name__ == "__main__":
    main()
