"""The computation of a released checkpoint in its own layout, for tests of the importers.

The base is a LLaMA under Meta's names, the adapter is under the released names. Shapes: C model width, H heads,
d head width, T positions, L layers, r LoRA rank. Everything runs per sample in the dtype of the weights.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

ROPE_THETA = 10000.0
BIND_BLOCKS = (1, 2, 3)
BIND_RMS_EPS = 1e-6
BIND_LAYER_NORM_EPS = 1e-5


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


def with_bias(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """W x + b, the bias only where there is one."""
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def adapted(meta: Mapping[str, Tensor], adapter: Mapping[str, Tensor], module: str, name: str, x: Tensor) -> Tensor:
    """W x + l2 l1 x + b of the linear `module.name` (for example layers.0.attention, wq), parts where present."""
    y = x @ meta[f"{module}.{name}.weight"].T
    if f"llama.{module}.lora_{name}_l1.weight" in adapter:
        l1, l2 = (adapter[f"llama.{module}.lora_{name}_{part}.weight"] for part in ("l1", "l2"))
        y = y + (x @ l1.T) @ l2.T
    if f"llama.{module}.{name}.bias" in adapter:
        y = y + adapter[f"llama.{module}.{name}.bias"]
    return y


def norm_weight(meta: Mapping[str, Tensor], adapter: Mapping[str, Tensor], name: str) -> Tensor:
    """A norm's weight: the adapter's where it has one, else the base's."""
    return adapter.get(f"llama.{name}.weight", meta[f"{name}.weight"])


def rotate_pairs(x: Tensor, position: int) -> Tensor:
    """Meta's rotary embedding of one head's vector [d]: (x_{2i} + i x_{2i+1}) * exp(i * p * theta^(-2i/d))."""
    d = x.shape[0]
    parts = []
    for i in range(d // 2):
        angle = position * ROPE_THETA ** (-2 * i / d)
        real, imaginary = x[2 * i], x[2 * i + 1]
        parts.append(real * math.cos(angle) - imaginary * math.sin(angle))
        parts.append(real * math.sin(angle) + imaginary * math.cos(angle))
    return torch.stack(parts)


def media_vector(adapter: Mapping[str, Tensor], feature: Tensor) -> Tensor:
    """T_I [C]: the projection, then three blocks x + f2_n(silu(f1_n(y)) * f3_n(y)) with y = norm_n(x).

    The norm is an RMSNorm, or a LayerNorm where it has a bias (the beta).
    """
    x = with_bias(adapter, "image_bind_proj", feature.to(adapter["image_bind_proj.weight"].dtype))
    for n in BIND_BLOCKS:
        weight, bias = adapter[f"image_bind_norm_{n}.weight"], adapter.get(f"image_bind_norm_{n}.bias")
        y = rms_norm(x, weight, BIND_RMS_EPS) if bias is None else layer_norm(x, weight, bias, BIND_LAYER_NORM_EPS)
        gated = silu(with_bias(adapter, f"image_bind_f1_{n}", y)) * with_bias(adapter, f"image_bind_f3_{n}", y)
        x = x + with_bias(adapter, f"image_bind_f2_{n}", gated)
    return x


def attention(
    meta: Mapping[str, Tensor], adapter: Mapping[str, Tensor], layer: int, x: Tensor, media: Tensor
) -> Tensor:
    """Causal attention over x [T, C] plus, per head, tanh(gate_h) * (W_v (T_I + prefix_query[l]))_h before wo.

    The media's value goes through the base W_v alone.
    """
    module = f"layers.{layer}.attention"
    queries, keys, values = (adapted(meta, adapter, module, name, x) for name in ("wq", "wk", "wv"))
    media_value = meta[f"{module}.wv.weight"] @ (media + adapter["prefix_query.weight"][layer])
    gates = torch.tanh(adapter[f"llama.{module}.gate"])  # [1, H, 1, 1]
    num_heads = gates.shape[1]
    d = x.shape[1] // num_heads

    head_outputs = []  # one [T, d] per head
    for head in range(num_heads):
        part = slice(head * d, (head + 1) * d)
        turned_keys = torch.stack([rotate_pairs(keys[j, part], j) for j in range(len(x))])
        outputs = []
        for position in range(len(x)):
            query = rotate_pairs(queries[position, part], position)
            scores = turned_keys[: position + 1] @ query / math.sqrt(d)
            output = torch.softmax(scores, dim=0) @ values[: position + 1, part]
            outputs.append(output + gates[0, head, 0, 0] * media_value[part])
        head_outputs.append(torch.stack(outputs))
    return adapted(meta, adapter, module, "wo", torch.cat(head_outputs, dim=-1))


def feed_forward(meta: Mapping[str, Tensor], adapter: Mapping[str, Tensor], layer: int, x: Tensor) -> Tensor:
    """w2(silu(w1 x) * w3 x)."""
    module = f"layers.{layer}.feed_forward"
    gated = silu(adapted(meta, adapter, module, "w1", x)) * adapted(meta, adapter, module, "w3", x)
    return adapted(meta, adapter, module, "w2", gated)


def logits(
    meta: Mapping[str, Tensor],
    adapter: Mapping[str, Tensor],
    *,
    num_heads: int,
    norm_eps: float,
    tokens: Sequence[int],
    feature: Tensor,
) -> Tensor:
    """Next-token logits [len(tokens), vocab] of one sample with its media feature."""
    assert adapter["llama.layers.0.attention.gate"].shape == (1, num_heads, 1, 1)
    media = media_vector(adapter, feature)
    h = meta["tok_embeddings.weight"][list(tokens)]
    num_layers = len(adapter["prefix_query.weight"])
    for layer in range(num_layers):
        normed = rms_norm(h, norm_weight(meta, adapter, f"layers.{layer}.attention_norm"), norm_eps)
        h = h + attention(meta, adapter, layer, normed, media)
        normed = rms_norm(h, norm_weight(meta, adapter, f"layers.{layer}.ffn_norm"), norm_eps)
        h = h + feed_forward(meta, adapter, layer, normed)
    return rms_norm(h, norm_weight(meta, adapter, "norm"), norm_eps) @ meta["output.weight"].T


def synthetic(
    *,
    num_layers: int,
    num_heads: int,
    model_dim: int,
    hidden_dim: int,
    vocab: int,
    feature_dim: int,
    rank: int,
    stage: Literal["stage1", "stage2"],
    beta: bool,
    seed: int,
    bind_hidden_dim: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random float32 (meta, adapter) of a released checkpoint's shapes.

    Every part is non-zero, so that leaving one out shows. hidden_dim is the LLaMA's; the bind network's is
    bind_hidden_dim, 4 * model_dim where not given. rank is unused in stage 1.
    """
    if stage not in ("stage1", "stage2"):
        raise ValueError(f"unknown stage {stage!r}")
    generator = torch.Generator().manual_seed(seed)
    c, bind_hidden = model_dim, bind_hidden_dim or 4 * model_dim

    def normal(*shape: int, std: float = 0.1, mean: float = 0.0) -> Tensor:
        return mean + std * torch.randn(shape, generator=generator, dtype=torch.float32)

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> Tensor:
        return normal(outputs, inputs, std=gain / math.sqrt(inputs))

    meta = {
        "tok_embeddings.weight": normal(vocab, c, std=1.0),
        "output.weight": matrix(vocab, c),
        "norm.weight": normal(c, mean=1.0),
    }
    adapter = {
        "image_bind_proj.weight": matrix(c, feature_dim),
        "image_bind_proj.bias": normal(c),
        "prefix_query.weight": normal(num_layers, c, std=0.5),
    }
    for n in BIND_BLOCKS:
        adapter[f"image_bind_norm_{n}.weight"] = normal(c, mean=1.0)
        adapter[f"image_bind_f1_{n}.weight"] = matrix(bind_hidden, c)
        adapter[f"image_bind_f2_{n}.weight"] = matrix(c, bind_hidden)
        adapter[f"image_bind_f3_{n}.weight"] = matrix(bind_hidden, c)
    if beta:
        for name in [name for name in adapter if name.startswith(("image_bind_norm_", "image_bind_f"))]:
            adapter[name.replace(".weight", ".bias")] = normal(adapter[name].shape[0])

    for layer in range(num_layers):
        prefix = f"layers.{layer}"
        for name in ("attention.wq", "attention.wk", "attention.wv", "attention.wo"):
            meta[f"{prefix}.{name}.weight"] = matrix(c, c)
        meta[f"{prefix}.feed_forward.w1.weight"] = matrix(hidden_dim, c)
        meta[f"{prefix}.feed_forward.w2.weight"] = matrix(c, hidden_dim)
        meta[f"{prefix}.feed_forward.w3.weight"] = matrix(hidden_dim, c)
        meta[f"{prefix}.attention_norm.weight"] = normal(c, mean=1.0)
        meta[f"{prefix}.ffn_norm.weight"] = normal(c, mean=1.0)
        adapter[f"llama.{prefix}.attention.gate"] = normal(1, num_heads, 1, 1, mean=0.5)
    if stage == "stage2":
        for name, weight in meta.items():
            module, _, part = name.removesuffix(".weight").rpartition(".")
            if part.endswith("norm"):
                adapter[f"llama.{name}"] = normal(c, mean=1.0)
            elif part.startswith("w"):
                outputs, inputs = weight.shape
                adapter[f"llama.{module}.lora_{part}_l1.weight"] = matrix(rank, inputs)
                adapter[f"llama.{module}.lora_{part}_l2.weight"] = matrix(outputs, rank, gain=0.3)
                if part not in ("wk", "wv"):
                    adapter[f"llama.{module}.{part}.bias"] = normal(outputs)
    return meta, adapter
