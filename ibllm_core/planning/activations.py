"""What one forward and backward pass keeps in memory beside weights and gradients.

Counted over transformers' ``LlamaDecoderLayer`` with the norms, the attention and the head of
``ibllm_core.model``; the tests hold it against what autograd keeps. A frozen linear keeps no input, so that a layer of
stage 1 keeps its norms' inputs, queries, keys, values, the attention's output and the three products of the MLP:
3.69 MB a token for LLaMA-7B in bf16 on a GPU. CPUs keep the shares of short samples, in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibllm_core.contract.adapter_config import AdapterConfig, AdapterPrefixConfig, ConcatConfig
from ibllm_core.contract.job_spec import TrainingStage
from ibllm_core.planning.base_size import BaseSize
from ibllm_core.planning.parameters import BIND_BLOCKS, BIND_MULTIPLE, prefix_layers

FP32 = 4
INDEX = 8
LONG_SAMPLE = 256  # tokens above which attention on CPUs goes through SDPA
CPU_PADDING = 1.2  # places that attention on CPUs takes for a token: samples are padded to others of like length
LOGIT_ROWS = {False: 128, True: 2048}  # label tokens that have logits at a time, without a GPU and with one
INPUT_OF = {
    "q_proj": "normed attention input",
    "k_proj": "normed attention input",
    "v_proj": "normed attention input",
    "o_proj": "attention output",
    "gate_proj": "normed MLP input",
    "up_proj": "normed MLP input",
    "down_proj": "MLP product",
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a worker computes: base, what trains around it, and in which numbers.

    ``element_bytes`` are those of weights and activations: 2 for bf16 and fp16, 4 for fp32.
    """

    base: BaseSize
    adapter: AdapterConfig
    stage: TrainingStage
    feature_dim: int
    element_bytes: int
    is_on_gpu: bool
    checkpoints_activations: bool = False


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward pass reads: positions, samples, label tokens; ``padding`` is places a token on CPUs."""

    tokens: int
    samples: int
    labels: int
    padding: float = CPU_PADDING

    @property
    def sample_tokens(self) -> float:
        """Mean length of a sample."""
        return self.tokens / max(1, self.samples)


def activation_bytes(training: Training, batch: MicroBatch) -> int:
    """Peak of what layers, fusion and bind network need, without the logits.

    With checkpointing each layer keeps its input alone, and one layer at a time keeps everything.
    """
    layer = layer_bytes(training, batch)
    if training.checkpoints_activations:
        kept = training.base.num_layers * batch.tokens * training.base.model_dim * training.element_bytes + layer
    else:
        kept = training.base.num_layers * layer
    return kept + around_layers_bytes(training, batch) + _working_bytes(training, batch)


def saved_bytes(training: Training, batch: MicroBatch) -> int:
    """What autograd keeps from forward to backward, without checkpointing."""
    return (
        training.base.num_layers * layer_bytes(training, batch)
        + around_layers_bytes(training, batch)
        + head_bytes(training, batch)
    )


def layer_bytes(training: Training, batch: MicroBatch) -> int:
    """What one decoder layer keeps. The first one keeps a little less, which is left out of account."""
    mlp = 3 * training.base.hidden_dim * training.element_bytes
    a_token = 2 * _norm_bytes(training) + _attention_bytes(training, batch) + mlp
    if training.stage == "stage2":
        a_token += _lora_bytes(training)
    return batch.tokens * a_token + _prefix_bytes(training, batch)


def around_layers_bytes(training: Training, batch: MicroBatch) -> int:
    """Final norm, rotary tables and segments a token; bind network and condition a sample."""
    base, size = training.base, training.element_bytes
    a_token = _norm_bytes(training) + 2 * base.head_dim * size + INDEX
    a_sample = base.model_dim * size
    if training.stage == "stage1":
        hidden = 4 * BIND_MULTIPLE * base.model_dim * size
        norm = FP32 * base.model_dim * 2 + base.model_dim * size
        a_sample += BIND_BLOCKS * (hidden + norm) + training.feature_dim * size
    return batch.tokens * a_token + batch.samples * a_sample


def head_bytes(training: Training, batch: MicroBatch) -> int:
    """What the head keeps: a slope a label token, instead of its logits."""
    return batch.labels * (training.base.model_dim * training.element_bytes + INDEX)


def logit_bytes(training: Training, batch: MicroBatch) -> int:
    """Peak of the head: slopes of all label tokens, logits of some, the same in float32 and their logarithms."""
    rows = min(batch.labels, LOGIT_ROWS[training.is_on_gpu])
    low = training.element_bytes if training.element_bytes < FP32 else 0
    return head_bytes(training, batch) + rows * training.base.vocab_size * (2 * FP32 + low)


def condition_bytes(training: Training, batch: MicroBatch) -> int:
    """What media is to the layers, one segment more for "no media"."""
    base, fusion = training.base, training.adapter.fusion
    segments = batch.samples + 1
    match fusion:
        case AdapterPrefixConfig():
            elements = prefix_layers(base, fusion) * 2 * segments * fusion.prompts * base.kv_dim
        case ConcatConfig():
            elements = segments * fusion.tokens * base.model_dim
        case _:
            elements = base.num_layers * segments * base.model_dim
    return elements * training.element_bytes


def _attention_bytes(training: Training, batch: MicroBatch) -> int:
    """Queries, keys, values, and the output with its sums or, of short samples on CPUs, all shares; a token."""
    base, size = training.base, training.element_bytes
    if _has_kernel(training):
        return 2 * (base.query_dim + base.kv_dim) * size + FP32 * base.num_heads
    if batch.sample_tokens > LONG_SAMPLE:
        a_place = 4.0 * base.query_dim * size + FP32 * base.num_heads
    else:
        a_place = size * (base.query_dim + 2 * base.kv_dim) + FP32 * base.num_heads * batch.sample_tokens
    return round(batch.padding * a_place)


def _has_kernel(training: Training) -> bool:
    """Whether attention runs in the varlen kernel, which keeps no padding."""
    return training.is_on_gpu and training.element_bytes < FP32


def _norm_bytes(training: Training) -> int:
    """A norm's input and its scale."""
    return training.base.model_dim * training.element_bytes + FP32


def _lora_bytes(training: Training) -> int:
    """Inputs of the low-rank updates; some linears share theirs, unless each drops its own share of it."""
    base, lora, size = training.base, training.adapter.lora, training.element_bytes
    low = len(lora.targets) * lora.rank * size
    if lora.dropout:
        mask = 1 if training.is_on_gpu else size
        return low + sum(base.linears[name][0] for name in lora.targets) * (size + mask)
    inputs = {INPUT_OF[name]: base.linears[name][0] for name in lora.targets}
    return low + sum(inputs.values()) * size


def _prefix_bytes(training: Training, batch: MicroBatch) -> int:
    """The second attention of ``adapter_prefix``, to the prompts of each sample."""
    base, fusion, size = training.base, training.adapter.fusion, training.element_bytes
    if not isinstance(fusion, AdapterPrefixConfig):
        return 0
    if _has_kernel(training):
        a_token = 2 * base.query_dim * size + FP32 * base.num_heads
        a_prompt = 2 * base.kv_dim * size
    else:
        shares = base.query_dim * size + FP32 * base.num_heads * fusion.prompts
        a_token = base.query_dim * size + round(batch.padding * shares)
        a_prompt = 2 * base.kv_dim * size
    layer = batch.tokens * a_token + batch.samples * fusion.prompts * a_prompt
    return layer * prefix_layers(base, fusion) // base.num_layers


def _working_bytes(training: Training, batch: MicroBatch) -> int:
    """The gradients of one layer's MLP, and the condition with its own gradient."""
    base = training.base
    backward = batch.tokens * (4 * base.hidden_dim + 2 * base.model_dim) * training.element_bytes
    return backward + 2 * condition_bytes(training, batch)
