"""ImageBind-LLM written out plainly, one sample at a time, as the yardstick for the fast implementation.

Shapes: C model width, H query heads, d head width, T positions, K prompt tokens, L layers. Every function
computes in the dtype of the weights and is differentiable.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BIND_BLOCKS = 3
BIND_RMS_EPS = 1e-6
BIND_LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """What the weights themselves do not say."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    llama3_rope: dict | None = None  # factor, low_freq_factor, high_freq_factor, original_max_position_embeddings
    tied: bool
    fusion: str  # "token_add" | "value_gate" | "adapter_prefix" | "concat"
    prefix_layers: tuple[int, ...] = ()  # adapter_prefix only: which layers have prompts
    bind_norm: str = "rms"  # "rms" | "layer" | "legacy"
    lora_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.fusion not in ("token_add", "value_gate", "adapter_prefix", "concat"):
            raise ValueError(f"unknown fusion {self.fusion!r}")
        if self.bind_norm not in ("rms", "layer", "legacy"):
            raise ValueError(f"unknown bind_norm {self.bind_norm!r}")


def silu(x: Tensor) -> Tensor:
    """silu(x) = x * sigmoid(x)."""
    return x * torch.sigmoid(x)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """weight * x / sqrt(mean(x^2) + eps), over the last dimension."""
    return weight * x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """weight * (x - mean) / sqrt(var + eps) + bias, over the last dimension, with the biased variance."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return weight * centred / torch.sqrt((centred * centred).mean(dim=-1, keepdim=True) + eps) + bias


def base_weight(weights: Mapping[str, Tensor], name: str) -> Tensor:
    """W of a linear, whether it is plain (`X.weight`) or wrapped (`X.base.weight`)."""
    wrapped = f"{name}.base.weight"
    return weights[wrapped] if wrapped in weights else weights[f"{name}.weight"]


def linear(weights: Mapping[str, Tensor], name: str, x: Tensor, lora_scale: float = 1.0) -> Tensor:
    """y = W x + base bias + lora_scale * B A x + bias, each part only where it is present."""
    y = x @ base_weight(weights, name).T
    if f"{name}.base.bias" in weights:
        y = y + weights[f"{name}.base.bias"]
    if f"{name}.lora_down.weight" in weights:
        down, up = weights[f"{name}.lora_down.weight"], weights[f"{name}.lora_up.weight"]
        y = y + lora_scale * ((x @ down.T) @ up.T)
    if f"{name}.bias" in weights:
        y = y + weights[f"{name}.bias"]
    return y


def rope_frequencies(config: PlainConfig) -> list[float]:
    """theta^(-2i/d) for i < d/2, each rescaled by the llama3 rule where that is configured.

    llama3: with wavelength w = 2 pi / frequency, w > orig/low_freq_factor gives frequency / factor,
    w < orig/high_freq_factor leaves it, and between them s * frequency + (1 - s) * frequency / factor with
    s = (orig/w - low_freq_factor) / (high_freq_factor - low_freq_factor).
    """
    plain = [config.rope_theta ** (-2 * i / config.head_dim) for i in range(config.head_dim // 2)]
    rule = config.llama3_rope
    if rule is None:
        return plain
    factor, original = rule["factor"], rule["original_max_position_embeddings"]
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    scaled = []
    for frequency in plain:
        wavelength = 2 * math.pi / frequency
        if wavelength > original / low:
            scaled.append(frequency / factor)
        elif wavelength < original / high:
            scaled.append(frequency)
        else:
            smooth = (original / wavelength - low) / (high - low)
            scaled.append(smooth * frequency + (1 - smooth) * frequency / factor)
    return scaled


def rotate(x: Tensor, position: int, frequencies: Sequence[float]) -> Tensor:
    """Rotary embedding of one head's vector [d], half-split: the pair (x_i, x_{i + d/2}) turns by p * f_i."""
    half = len(frequencies)
    cos = x.new_tensor([math.cos(position * frequency) for frequency in frequencies])
    sin = x.new_tensor([math.sin(position * frequency) for frequency in frequencies])
    first, second = x[:half], x[half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin])


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q . K^T / sqrt(d)) V for one query [d] over keys and values [n, d]."""
    return torch.softmax(keys @ query / math.sqrt(query.shape[0]), dim=0) @ values


def media_vector(weights: Mapping[str, Tensor], config: PlainConfig, feature: Tensor) -> Tensor:
    """T_I [C]: project(f), then 3 blocks x + w3(silu(w1(n)) * w2(n)) with n = norm(x)."""
    projection = weights["bind_network.project.weight"]
    x = linear(weights, "bind_network.project", feature.to(projection.dtype))
    for block in range(BIND_BLOCKS):
        prefix = f"bind_network.blocks.{block}"
        if config.bind_norm == "rms":
            n = rms_norm(x, weights[f"{prefix}.norm.weight"], BIND_RMS_EPS)
        else:
            n = layer_norm(x, weights[f"{prefix}.norm.weight"], weights[f"{prefix}.norm.bias"], BIND_LAYER_NORM_EPS)
        for name in ("w1", "w2", "w3"):  # only the legacy network has biases here
            assert (f"{prefix}.{name}.bias" in weights) == (config.bind_norm == "legacy")
        gated = silu(linear(weights, f"{prefix}.w1", n)) * linear(weights, f"{prefix}.w2", n)
        x = x + linear(weights, f"{prefix}.w3", gated)
    return x


def attention(
    weights: Mapping[str, Tensor], config: PlainConfig, layer: int, x: Tensor, media: Tensor | None
) -> Tensor:
    """Causal grouped-query attention of one layer over x [T, C], with the fusion's share added before o_proj.

    value_gate: o_h += tanh(gates[l, h]) * (W_v (T_I + queries[l]))_{kv(h)}.
    adapter_prefix: o_h += tanh(gates[n, h]) * softmax(q_h K^T / sqrt(d)) V, K = W_k P, V = W_v P,
    P = prompts[n] + T_I, for the n-th layer that has prompts; q_h is taken after the rotary embedding.
    """
    prefix = f"llama.model.layers.{layer}.self_attn"
    d = config.head_dim
    queries, keys, values = (
        linear(weights, f"{prefix}.{name}", x, config.lora_scale) for name in ("q_proj", "k_proj", "v_proj")
    )
    w_k, w_v = base_weight(weights, f"{prefix}.k_proj"), base_weight(weights, f"{prefix}.v_proj")
    frequencies = rope_frequencies(config)

    head_outputs = []  # one [T, d] per query head
    for head in range(config.num_heads):
        kv_head = head // (config.num_heads // config.num_kv_heads)
        of_query, of_kv = slice(head * d, (head + 1) * d), slice(kv_head * d, (kv_head + 1) * d)
        turned_keys = torch.stack([rotate(keys[j, of_kv], j, frequencies) for j in range(len(x))])
        outputs = []
        for position in range(len(x)):
            query = rotate(queries[position, of_query], position, frequencies)
            output = attend(query, turned_keys[: position + 1], values[: position + 1, of_kv])
            if media is not None and config.fusion == "value_gate":
                media_value = w_v @ (media + weights["fusion.queries"][layer])
                output = output + torch.tanh(weights["fusion.gates"][layer, head]) * media_value[of_kv]
            if media is not None and config.fusion == "adapter_prefix" and layer in config.prefix_layers:
                n = config.prefix_layers.index(layer)
                prompts = weights["fusion.prompts"][n] + media
                prompt_keys, prompt_values = (prompts @ w_k.T)[:, of_kv], (prompts @ w_v.T)[:, of_kv]
                gate = torch.tanh(weights["fusion.gates"][n, head])
                output = output + gate * attend(query, prompt_keys, prompt_values)
            outputs.append(output)
        head_outputs.append(torch.stack(outputs))
    return linear(weights, f"{prefix}.o_proj", torch.cat(head_outputs, dim=-1), config.lora_scale)


def feed_forward(weights: Mapping[str, Tensor], config: PlainConfig, layer: int, x: Tensor) -> Tensor:
    """SwiGLU: down(silu(gate(x)) * up(x))."""
    prefix = f"llama.model.layers.{layer}.mlp"
    gate = linear(weights, f"{prefix}.gate_proj", x, config.lora_scale)
    up = linear(weights, f"{prefix}.up_proj", x, config.lora_scale)
    return linear(weights, f"{prefix}.down_proj", silu(gate) * up, config.lora_scale)


def logits(weights: Mapping[str, Tensor], config: PlainConfig, tokens: Sequence[int], feature: Tensor | None) -> Tensor:
    """Next-token logits [len(tokens), vocab] of one sample; without a feature no media enters at all.

    token_add: h_j += gates[l, 0] * T_I at every position before each layer l.
    concat: media tokens m_j = scale[j] * T_I + offset[j] take positions 0..k-1, the text follows from k, and only
    the text's logits are returned.
    """
    embedding = weights["llama.model.embed_tokens.weight"]
    h = embedding[list(tokens)]
    media = None if feature is None else media_vector(weights, config, feature)
    if media is not None and config.fusion == "concat":
        h = torch.cat([weights["fusion.scale"] * media + weights["fusion.offset"], h])
    for layer in range(config.num_layers):
        prefix = f"llama.model.layers.{layer}"
        if media is not None and config.fusion == "token_add":
            h = h + weights["fusion.gates"][layer, 0] * media
        normed = rms_norm(h, weights[f"{prefix}.input_layernorm.weight"], config.rms_norm_eps)
        h = h + attention(weights, config, layer, normed, media)
        normed = rms_norm(h, weights[f"{prefix}.post_attention_layernorm.weight"], config.rms_norm_eps)
        h = h + feed_forward(weights, config, layer, normed)
    h = rms_norm(h, weights["llama.model.norm.weight"], config.rms_norm_eps)
    head = embedding if config.tied else weights["llama.lm_head.weight"]
    return h[len(h) - len(tokens) :] @ head.T


def loss(
    weights: Mapping[str, Tensor], config: PlainConfig, samples: Sequence[tuple[Sequence[int], int, Tensor | None]]
) -> Tensor:
    """Cross entropy of every token at index >= prompt_length, each predicted from the position before it.

    samples holds (tokens, prompt_length, feature or None). The cross entropies of all samples are summed and divided
    by the count of those tokens over all samples. A sample's first token has no position before it and never counts.
    """
    terms = []
    for tokens, prompt_length, feature in samples:
        log_probabilities = torch.log_softmax(logits(weights, config, tokens, feature), dim=-1)
        for index in range(max(prompt_length, 1), len(tokens)):
            terms.append(-log_probabilities[index - 1, tokens[index]])
    return torch.stack(terms).sum() / len(terms)
