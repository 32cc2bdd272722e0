"""Generation of tokens: batched and KV-cached, with different prompts and different media in one batch.

Shape suffixes: B samples, T prompt tokens with padding on the left, S segments, F feature dimension, C model dimension,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from ibllm_core.contract.sampling import Sampling
from ibllm_core.errors import InvalidPromptError
from ibllm_core.model.fusion.base import NO_SEGMENT
from ibllm_core.model.imagebind_llm import ImageBindLLM


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sample: the prompt's tokens, a unit feature vector ``[F]`` or None for text alone, and its own seed."""

    prompt: Sequence[int]
    feature: Tensor | None = None
    seed: int = 0


class Decoder:
    """A batch of requests on its way. The condition of the media is computed once; a step costs one token a sample."""

    @torch.inference_mode()
    def __init__(self, model: ImageBindLLM, requests: Sequence[Request], sampling: Sampling) -> None:
        check_requests(model, requests, sampling.max_new_tokens)
        self._model = model
        self._sampling = sampling
        device = model.llama.device
        self._generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        with_media = [request.feature is not None for request in requests]
        features = [request.feature for request in requests if request.feature is not None]
        features_SF = torch.stack(features) if features else torch.zeros(0, model.bind_network.feature_dim)
        self._condition = model.condition(features_SF.to(device))
        numbers = iter(range(len(features)))
        segments = [next(numbers) if media else NO_SEGMENT for media in with_media]
        self._segments_B1 = torch.tensor(segments, device=device)[:, None]

        lead = model.fusion.media_tokens
        lines = [[0] * lead * media + list(request.prompt) for media, request in zip(with_media, requests, strict=True)]
        width = max(map(len, lines))
        self._tokens = torch.tensor([[0] * (width - len(line)) + line for line in lines], device=device)
        self._valid = torch.tensor([[0] * (width - len(line)) + [1] * len(line) for line in lines], device=device) > 0
        self._positions = (self._valid.cumsum(dim=1) - 1).clamp(min=0)
        # A padding token sees itself: a row without anything to look at would be NaN.
        causal_TT = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        self._mask = ((self._valid[:, None] & causal_TT) | torch.eye(width, dtype=torch.bool, device=device))[:, None]
        self._cache = DynamicCache(config=model.llama.config)

    @torch.inference_mode()
    def step(self) -> list[int]:
        """The next token of every sample; those of samples that have ended mean nothing."""
        hidden_BTC = self._model.hidden(
            self._tokens, self._positions, self._mask, self._condition, self._segments_B1, cache=self._cache
        )
        logits_BV = self._model.llama.lm_head(hidden_BTC[:, -1])
        chosen = self._choose(logits_BV)
        self._tokens = chosen[:, None].to(logits_BV.device)
        self._valid = torch.cat([self._valid, self._valid.new_ones(len(chosen), 1)], dim=1)
        self._mask = self._valid[:, None, None]
        self._positions = self._positions[:, -1:] + 1
        return chosen.tolist()

    def _choose(self, logits_BV: Tensor) -> Tensor:
        if self._sampling.temperature == 0:
            return logits_BV.argmax(dim=-1)
        probabilities_BV = (logits_BV.double() / self._sampling.temperature).softmax(dim=-1).cpu()
        sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True)
        before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
        kept_BV = sorted_BV * (before_BV < self._sampling.top_p)  # the likeliest is always kept
        # One number a sample from its own generator: its answer does not depend on who shares the batch.
        draws = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in self._generators])
        totals_BV = kept_BV.cumsum(dim=-1)
        place = torch.searchsorted(totals_BV, draws * totals_BV[:, -1:], right=True).clamp(max=kept_BV.shape[1] - 1)
        return order_BV.gather(1, place)[:, 0]


def generate(
    model: ImageBindLLM, requests: Sequence[Request], sampling: Sampling, end_tokens: frozenset[int]
) -> list[list[int]]:
    """Continue each prompt until an end token, which is left out, or ``max_new_tokens``.

    Tokens alone: ``InvalidPromptError`` for stop strings, which need the text (``BindLLM.stream``).
    """
    if sampling.stop:
        raise InvalidPromptError("stop strings need the text: use BindLLM.generate or BindLLM.stream")
    decoder = Decoder(model, requests, sampling)
    answers: list[list[int]] = [[] for _ in requests]
    going = set(range(len(requests)))
    for _ in range(sampling.max_new_tokens):
        tokens = decoder.step()
        going = {index for index in going if tokens[index] not in end_tokens}
        if not going:
            break
        for index in going:
            answers[index].append(tokens[index])
    return answers


def check_requests(model: ImageBindLLM, requests: Sequence[Request], max_new_tokens: int = 0) -> None:
    """Refuse what cannot be generated from, before any work; ``InvalidPromptError`` names the request from 0."""
    context = model.llama.config.max_position_embeddings
    width = model.bind_network.feature_dim
    if not requests:
        raise InvalidPromptError("there is nothing to generate from: give at least one prompt")
    for index, request in enumerate(requests):
        if not request.prompt:
            raise InvalidPromptError(f"prompt {index} is empty: give it some text")
        media = 0 if request.feature is None else model.fusion.media_tokens
        needed = media + len(request.prompt) + max_new_tokens
        if needed > context:
            raise InvalidPromptError(
                f"prompt {index} has {media + len(request.prompt)} tokens and the answer may have "
                f"{max_new_tokens}, but the base's context is {context}: shorten the prompt or lower "
                "max_new_tokens",
                index=index,
            )
        if request.feature is not None and request.feature.shape != (width,):
            raise InvalidPromptError(
                f"the feature of prompt {index} has shape {tuple(request.feature.shape)}, but the adapter's encoder "
                f"gives ({width},): encode the media with the encoder that the adapter was trained with",
                index=index,
            )
        if request.feature is not None and not bool(request.feature.isfinite().all()):
            raise InvalidPromptError(f"the feature of prompt {index} holds NaN or infinity: encode it again")
