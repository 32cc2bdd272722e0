"""Attention within samples is attention under the dense mask: outputs and every gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.data.blocks import lay_out
from ibllm_core.data.collate import collate
from ibllm_core.errors import InvalidSpecError
from ibllm_core.model import buckets
from ibllm_core.model.attention import NAME, to_prompts, within_samples
from ibllm_core.model.batch import Blocks
from ibllm_core.model.fusion.base import NO_SEGMENT
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for, trained_parameters
from tests.conftest import FEATURE_DIM, tiny_llama
from tests.ibllm_core.model.exact import FUSIONS, as_batch, as_dataset, exact_model, random_samples

DIM = 8
SCALE = 0.3
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
packings = st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(0, 5))
heads = st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3), (6, 2)])
Attend = Callable[..., Tensor]


def blocks_of(lengths: list[int], padding: int, segments: list[int] | None = None) -> Blocks:
    own = np.arange(len(lengths)) if segments is None else np.array(segments)
    return lay_out(np.array(lengths), own, sum(lengths) + padding)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcome(attend: Attend, dtype: torch.dtype, states: list[Tensor], device: str = "cpu") -> list[Tensor]:
    """The output and the gradients of all inputs, for a gradient that is the same at every dtype."""
    leaves = [x.to(device, dtype).requires_grad_() for x in states]
    found = attend(*leaves)
    gradient = drawn(*found.shape, seed=9).to(device, dtype)
    return [x.detach().double().cpu() for x in (found, *torch.autograd.grad(found, leaves, gradient))]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) <= tolerance * max(1, float(theirs.abs().max()))


def dense(blocks: Blocks) -> Attend:
    """Attention of each sample to itself under one mask over all tokens; zeros at padding."""

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        tokens = len(queries)
        bounds = torch.cat([blocks.bounds_S1.long(), torch.tensor([tokens])])
        sample_of = torch.bucketize(torch.arange(tokens), bounds, right=True)
        mask = (sample_of[:, None] == sample_of).tril() | torch.eye(tokens, dtype=torch.bool)
        group = queries.shape[1] // keys.shape[1]
        q, k, v = (x.transpose(0, 1) for x in (queries, *(x.repeat_interleave(group, 1) for x in (keys, values))))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=SCALE).transpose(0, 1)
        return found * (torch.arange(tokens) < blocks.num_tokens)[:, None, None]

    return attend


def prompt_by_prompt(segments: list[int], lengths: list[int], padding: int) -> Attend:
    """Each token alone with the prompts of its segment."""
    of_tokens = torch.tensor(segments).repeat_interleave(torch.tensor(lengths)).tolist()

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        group = queries.shape[1] // keys.shape[2]
        rows = [
            torch.stack(
                [
                    (SCALE * keys[segment, :, head // group] @ query).softmax(0) @ values[segment, :, head // group]
                    for head, query in enumerate(queries[token])
                ]
            )
            for token, segment in enumerate(of_tokens)
        ]
        return F.pad(torch.stack(rows), (0, 0, 0, 0, 0, padding))

    return attend


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("short", [buckets.SHORT, 4], ids=["products", "long samples through SDPA"])
@given(packings, heads, st.integers(0, 99))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_packing_is_the_dense_mask(
    short: int, dtype: torch.dtype, packing: tuple[list[int], int], heads: tuple[int, int], seed: int
) -> None:
    blocks = blocks_of(*packing)
    states = [
        drawn(sum(packing[0]) + packing[1], h, DIM, seed=seed + i) for i, h in enumerate((heads[0], *heads[1:] * 2))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "SHORT", short)
        found = outcome(lambda q, k, v: within_samples(q, k, v, blocks, SCALE), dtype, states)
    assert_close(found, outcome(dense(blocks), torch.float64, states), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@given(packings, heads, st.integers(1, 4), st.data())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_tokens_find_the_prompts_of_their_segment(
    dtype: torch.dtype, packing: tuple[list[int], int], heads: tuple[int, int], prompts: int, data: st.DataObject
) -> None:
    lengths, padding = packing
    segments = data.draw(st.lists(st.integers(NO_SEGMENT, 2), min_size=len(lengths), max_size=len(lengths)))
    blocks = blocks_of(lengths, padding, segments)
    states = [drawn(sum(lengths) + padding, heads[0], DIM, seed=1)]
    states += [drawn(4, prompts, heads[1], DIM, seed=seed) for seed in (2, 3)]
    found = outcome(lambda q, k, v: to_prompts(q, k, v, blocks, SCALE), dtype, states)
    expected = outcome(prompt_by_prompt(segments, lengths, padding), torch.float64, states)
    assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch's varlen kernel needs CUDA")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_the_kernel_of_cuda_is_the_dense_mask(dtype: torch.dtype, heads: tuple[int, int]) -> None:
    lengths, padding, segments = [1, 7, 300, 33, 1], 5, [0, NO_SEGMENT, 1, 2, 0]
    blocks = blocks_of(lengths, padding, segments)
    there = _to_cuda(blocks)
    own = [drawn(sum(lengths) + padding, h, 64, seed=h) for h in (heads[0], *heads[1:] * 2)]
    found = outcome(lambda q, k, v: within_samples(q, k, v, there, SCALE), dtype, own, "cuda")
    assert_close(found, outcome(dense(blocks), torch.float64, own), 2 * TOLERANCE[dtype])
    prompts = [own[0], *(drawn(4, 3, heads[1], 64, seed=seed) for seed in (2, 3))]
    found = outcome(lambda q, k, v: to_prompts(q, k, v, there, SCALE), dtype, prompts, "cuda")
    expected = outcome(prompt_by_prompt(segments, lengths, padding), torch.float64, prompts)
    assert_close(found, expected, 2 * TOLERANCE[dtype])


def _to_cuda(blocks: Blocks) -> Blocks:
    return Blocks(**{k: v.cuda() if isinstance(v, Tensor) else v for k, v in vars(blocks).items()})


def test_padding_is_attended_by_nobody_and_gives_zeros() -> None:
    blocks = blocks_of([3, 1], 2)
    states = [torch.cat([drawn(4, 2, DIM, seed=i), torch.full((2, 2, DIM), torch.nan)]) for i in range(3)]
    found, *gradients = outcome(lambda q, k, v: within_samples(q, k, v, blocks, SCALE), torch.float64, states)
    assert bool(found.isfinite().all()) and not bool(found[4:].any())
    for gradient in gradients:
        assert bool(gradient.isfinite().all()) and not bool(gradient[4:].any())


def trained_model(fusion: Any, stage: Any, dtype: torch.dtype) -> ImageBindLLM:
    model = exact_model(AdapterConfig.model_validate({"fusion": fusion, "lora": {"rank": 2}}), stage)
    freeze_for(stage, model)
    return model.to(dtype)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_low_precision_rounds_and_no_more(fusion: Any, stage: Any, dtype: torch.dtype, tolerance: float) -> None:
    """Against the float64 model, which is the plain implementation's (``test_packing_properties``)."""
    samples, rows = random_samples(6), [[0, 1, 2], [3, 4, 5]]
    found = []
    for kind in (torch.float64, dtype):
        model = trained_model(fusion, stage, kind)
        model(as_batch(model, samples, rows, 36)).mean().backward()
        found.append({name: p.grad.double() for name, p in trained_parameters(model) if p.grad is not None})
    for name, gradient in found[0].items():
        assert float((found[1][name] - gradient).norm()) <= tolerance * float(gradient.norm()), name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_samples_cost_the_same_in_rows_of_any_width(fusion: Any) -> None:
    model = trained_model(fusion, "stage1", torch.float64)

    def flops(copies: int, width: int) -> int:
        samples = random_samples(9) * copies
        room = 2 * sum(len(tokens) + model.fusion.media_tokens for tokens, _, _ in samples)
        rows = [list(range(len(samples)))] + [[] for _ in range(room // width - 1)]
        batch = collate(
            as_dataset(samples), rows, row_tokens=width, pad_token=0, media_tokens=model.fusion.media_tokens
        )
        with FlopCounterMode(display=False) as counter:
            model(batch).sum().backward()
        return sum(counter.get_flop_counts()["Global"][op] for op in (torch.ops.aten.bmm, torch.ops.aten.baddbmm))

    once = flops(1, 1 << 8)
    assert once > 0
    assert flops(4, 1 << 10) == flops(4, 1 << 9) == 4 * once


class NoLookFromTheHost(TorchDispatchMode):
    """Fails where an operation's result, or its size, has to be known on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        waits = (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "is_nonzero",
            "equal",
            "unique",
            "repeat_interleave",
        )
        assert name not in waits and not by_mask, f"{func} waits for the device"
        self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_nothing_in_a_step_waits_for_the_device(fusion: Any, stage: Any) -> None:
    model = trained_model(fusion, stage, torch.float64)
    batch = as_batch(model, random_samples(6), [[0, 1, 2], [3, 4, 5]], 36)
    with NoLookFromTheHost() as mode:
        model(batch).sum().backward()
    assert "_softmax_backward_data" in mode.seen  # the backward pass was watched too
    with pytest.raises(AssertionError, match="waits for the device"), NoLookFromTheHost():
        batch.tokens_T[batch.tokens_T > 0].sum()


def test_a_base_with_dropout_in_its_attention_is_refused() -> None:
    with pytest.raises(InvalidSpecError, match=r"attention_dropout is 0\.1"):
        ImageBindLLM(tiny_llama(attention_dropout=0.1), FEATURE_DIM)


def test_generation_keeps_the_mask_it_is_given() -> None:
    """A left-padded row under a 2-D mask, as transformers' own generation calls it."""
    ours, stock = ImageBindLLM(tiny_llama(), FEATURE_DIM).llama, tiny_llama()
    assert ours.config._attn_implementation == NAME
    tokens, mask = torch.tensor([[0, 0, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1, 1]])
    expected = stock(input_ids=tokens, attention_mask=mask).logits[:, 2:]
    assert torch.equal(ours(input_ids=tokens, attention_mask=mask).logits[:, 2:], expected)
