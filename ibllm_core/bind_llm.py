"""ImageBind-LLM in a notebook, without the service.

llm = BindLLM.from_pretrained("llama-7b/", "adapter/")
print(llm.generate(["What is this?"], features))      # features: what the adapter's encoder gave, [prompts, F]
loss = llm.loss(llm.batch([("What is this?", "A cat.")], features))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ibllm_core.adapter import files
from ibllm_core.adapter.header import AdapterHeader
from ibllm_core.adapter.reading import read_adapter
from ibllm_core.bases.load import load_base
from ibllm_core.contract.sampling import Sampling
from ibllm_core.contract.templates import TEMPLATE_NAMES
from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import NO_FEATURE, CompiledSample, Dataset
from ibllm_core.data.text_stream import FinishReason, TextStream
from ibllm_core.errors import InvalidPromptError, InvalidSpecError
from ibllm_core.formats.sample import Turn
from ibllm_core.model.batch import Batch
from ibllm_core.model.generation import Decoder, Request, check_requests
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for
from ibllm_core.prompts import Prompter, TokenisedSample

Features = Tensor | np.ndarray | Sequence[Tensor | np.ndarray | None] | None
GREEDY = Sampling()


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of one answer; ``finish`` is set on its last."""

    index: int
    text: str
    finish: FinishReason | None


class BindLLM:
    """A base with an adapter: text and feature vectors in, text out."""

    def __init__(self, model: ImageBindLLM, prompter: Prompter, header: AdapterHeader) -> None:
        self.model = model.eval()
        self.prompter = prompter
        self.header = header

    @classmethod
    def from_pretrained(
        cls,
        base: Path | str,
        adapter: Path | str,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        template: str | None = None,
    ) -> BindLLM:
        """Load a base and an adapter.

        The base is a safetensors folder, a GGUF file or Meta's folder; the adapter our folder or a released ``.pth``.
        ``template`` None takes the one that the adapter was trained with. What requires gradients is what the adapter's
        stage trains. Raises ``BaseMismatchError`` for another base than the adapter's, ``InvalidWeightsError`` for
        files that cannot be used, ``InvalidSpecError`` for an unknown template.
        """
        path = Path(adapter)
        if template not in (None, *TEMPLATE_NAMES):
            raise InvalidSpecError(f"there is no template {template!r}; choose one of {', '.join(TEMPLATE_NAMES)}")
        loaded = read_adapter(path)
        header = loaded.header
        frozen = load_base(Path(base), dtype)
        model = files.build_model(frozen.llama, loaded, base_sha256=frozen.sha256, source=str(path))
        freeze_for(header.stage, model, header.config.preset)
        prompter = Prompter(tokenizer=frozen.tokenizer, template=template or header.template)
        return cls(model.to(device), prompter, header)

    def generate(
        self,
        prompts: str | Sequence[str],
        features: Features = None,
        *,
        sampling: Sampling = GREEDY,
        seeds: Sequence[int] | None = None,
        contexts: Sequence[str] | None = None,
    ) -> list[str]:
        """Answer instructions, each with its own feature vector or none.

        Every prompt draws from ``sampling.seed`` alone, so that its answer does not depend on the others; ``seeds``
        gives each its own, ``contexts`` the input that Alpaca's second form has a place for. A prompt without a vector
        sees no media at all; released checkpoints saw a grey picture there in training: give them its feature.
        Raises ``InvalidPromptError``.
        """
        answers = [""] * (1 if isinstance(prompts, str) else len(prompts))
        for delta in self.stream(prompts, features, sampling=sampling, seeds=seeds, contexts=contexts):
            answers[delta.index] += delta.text
        return [answer.rstrip() for answer in answers]

    def stream(
        self,
        prompts: str | Sequence[str],
        features: Features = None,
        *,
        sampling: Sampling = GREEDY,
        seeds: Sequence[int] | None = None,
        contexts: Sequence[str] | None = None,
    ) -> Iterator[Delta]:
        """The same piece by piece, as soon as the text is certain."""
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        vectors = self._vectors(features, len(texts))
        own_seeds = [sampling.seed] * len(texts) if seeds is None else list(seeds)
        _check_count("seeds", len(own_seeds), len(texts))
        inputs = [""] * len(texts) if contexts is None else list(contexts)
        _check_count("contexts", len(inputs), len(texts))
        requests = [
            Request(prompt=self.prompter.prompt(text, context), feature=vector, seed=seed)
            for text, context, vector, seed in zip(texts, inputs, vectors, own_seeds, strict=True)
        ]
        check_requests(self.model, requests, sampling.max_new_tokens)
        return self._stream(requests, sampling)

    def batch(self, samples: Sequence[tuple[str, str]], features: Features = None) -> Batch:
        """Pairs of instruction and answer, packed into one row, as ``loss`` takes them."""
        vectors = self._vectors(features, len(samples))
        with_media = [vector for vector in vectors if vector is not None]
        numbers = iter(range(len(with_media)))
        compiled = [
            CompiledSample(
                tokens=tokenised.tokens,
                labels=tokenised.labels,
                feature=NO_FEATURE if vector is None else next(numbers),
                row=row,
                instruction=instruction,
                answer=answer,
            )
            for row, ((instruction, answer), tokenised, vector) in enumerate(
                zip(samples, map(self._tokenise, samples), vectors, strict=True), start=1
            )
        ]
        check_requests(
            self.model, [Request(prompt=s.tokens, feature=v) for s, v in zip(compiled, vectors, strict=True)]
        )
        width = self.header.feature_dim
        stacked = np.stack([v.numpy() for v in with_media]) if with_media else np.zeros((0, width), dtype=np.float32)
        dataset = Dataset.of(compiled, stacked, [""] * len(with_media))
        lead = self.model.fusion.media_tokens
        return collate(
            dataset,
            [range(len(compiled))],
            row_tokens=int(dataset.lengths(lead).sum()),
            pad_token=self.prompter.tokenizer.eos_token_id,
            media_tokens=lead,
        ).to(self.model.llama.device)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy of the batch's label tokens, a scalar with gradients."""
        losses_N: Tensor = self.model(batch)
        return losses_N.mean()

    def _stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Delta]:
        decoder = Decoder(self.model, requests, sampling)
        streams = {
            index: TextStream(self.prompter.tokenizer, self.prompter.end_tokens, sampling.stop, sampling.max_new_tokens)
            for index in range(len(requests))
        }
        while streams:
            tokens = decoder.step()
            for index, stream in list(streams.items()):
                text = stream.add(tokens[index])
                if text or stream.finish:
                    yield Delta(index=index, text=text, finish=stream.finish)
                if stream.finish:
                    del streams[index]

    def _tokenise(self, sample: tuple[str, str]) -> TokenisedSample:
        instruction, answer = sample
        return self.prompter.sample([Turn(instruction=instruction, answer=answer)])

    def _vectors(self, features: Features, count: int) -> list[Tensor | None]:
        if features is None:
            return [None] * count
        rows = torch.as_tensor(features) if isinstance(features, np.ndarray) else features
        vectors = [rows] if isinstance(rows, Tensor) and rows.ndim == 1 else list(rows)
        _check_count("features", len(vectors), count)
        return [None if v is None else torch.as_tensor(v).detach().cpu().float() for v in vectors]


def _check_count(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise InvalidPromptError(
            f"there are {found} {what} for {expected} prompts: give one for each, None for text alone"
        )
