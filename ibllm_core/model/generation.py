"""Greedy generation, batched and KV-cached, with a vector per layer and sample.

Shape suffixes: B samples, T prompt tokens with padding on the left, L layers, S segments (= B here), C model dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ibllm_core.model.imagebind_llm import ImageBindLLM


@torch.inference_mode()
def generate(
    model: ImageBindLLM,
    prompts: Sequence[Sequence[int]],
    features_SF: Tensor,
    *,
    max_new_tokens: int,
    eos_token: int,
) -> list[list[int]]:
    """Continue each prompt with its own media vector until ``eos_token``, which is not returned.

    The table of layer vectors is computed once; a step costs one token a sample.
    """
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[eos_token] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    answers: list[list[int]] = [[] for _ in prompts]
    open_samples = torch.ones(len(prompts), dtype=torch.bool)
    cache = None
    with model.injector.use(model.layer_vectors(features_SF), torch.arange(len(prompts))[:, None]):
        for _ in range(max_new_tokens):
            output = model.llama.model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            chosen = model.llama.lm_head(output.last_hidden_state[:, -1]).argmax(dim=-1)
            open_samples &= chosen != eos_token
            for index in open_samples.nonzero()[:, 0].tolist():
                answers[index].append(int(chosen[index]))
            if not bool(open_samples.any()):
                break
            tokens = chosen[:, None]
            mask = torch.cat([mask, torch.ones(len(prompts), 1, dtype=mask.dtype)], dim=1)
            positions = positions[:, -1:] + 1
    return answers
