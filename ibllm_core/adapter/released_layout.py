"""How the released checkpoints name and lay out what we name otherwise: data alone, no files.

Source: the key lists of ``7B.pth``, ``7B-pretrained.pth`` and ``7B-beta.pth``. Rows of what makes queries and keys are
in Meta's order of rotary pairs (interleaved); ours are in transformers' (halves apart).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ibllm_core.model.bind import HIDDEN_MULTIPLE, NUM_BLOCKS
from ibllm_core.model.lora import BIASED_LINEARS

Layout = Literal["as_is", "rotary"]

_LINEARS = {
    "self_attn.q_proj": ("attention", "wq"),
    "self_attn.k_proj": ("attention", "wk"),
    "self_attn.v_proj": ("attention", "wv"),
    "self_attn.o_proj": ("attention", "wo"),
    "mlp.gate_proj": ("feed_forward", "w1"),
    "mlp.up_proj": ("feed_forward", "w3"),
    "mlp.down_proj": ("feed_forward", "w2"),
}
_ROTARY = frozenset({"q_proj", "k_proj"})


@dataclass(frozen=True, kw_only=True)
class Key:
    """One tensor's two names, its shape in the letters of ``Dims``, and whether its rows need another order."""

    ours: str
    released: str
    shape: str
    layout: Layout = "as_is"


@dataclass(frozen=True, kw_only=True)
class Dims:
    """Sizes of a checkpoint: feature F, model C, feed-forward X, rank R, layers L; B is the bind network's hidden."""

    F: int
    C: int
    L: int
    X: int = 0
    R: int = 0

    def shape(self, letters: str) -> tuple[int, ...]:
        """``"CF"`` as numbers."""
        return tuple(self.C * HIDDEN_MULTIPLE if letter == "B" else int(getattr(self, letter)) for letter in letters)


def bind_keys(*, legacy: bool) -> Iterator[Key]:
    """The bind network: our w1, w2, w3 are the released f1, f3, f2."""
    parts = ("weight", "bias") if legacy else ("weight",)
    yield Key(ours="bind_network.project.weight", released="image_bind_proj.weight", shape="CF")
    yield Key(ours="bind_network.project.bias", released="image_bind_proj.bias", shape="C")
    names = (("norm", "norm", "C"), ("w1", "f1", "BC"), ("w2", "f3", "BC"), ("w3", "f2", "CB"))
    for block in range(NUM_BLOCKS):
        for ours, released, shape in names:
            for part in parts:
                yield Key(
                    ours=f"bind_network.blocks.{block}.{ours}.{part}",
                    released=f"image_bind_{released}_{block + 1}.{part}",
                    shape=shape if part == "weight" else shape[0],
                )


def query_keys() -> Iterator[Key]:
    """The queries of all layers."""
    yield Key(ours="fusion.queries", released="prefix_query.weight", shape="LC")


def gate_key(layer: int) -> str:
    """The released name of one layer's gates, ``[1, H, 1, 1]``; ours are one tensor for all layers."""
    return f"llama.layers.{layer}.attention.gate"


def norm_keys(num_layers: int) -> Iterator[Key]:
    """LLaMA's norms."""
    yield Key(ours="llama.model.norm.weight", released="llama.norm.weight", shape="C")
    for layer in range(num_layers):
        ours, released = f"llama.model.layers.{layer}", f"llama.layers.{layer}"
        yield Key(ours=f"{ours}.input_layernorm.weight", released=f"{released}.attention_norm.weight", shape="C")
        yield Key(ours=f"{ours}.post_attention_layernorm.weight", released=f"{released}.ffn_norm.weight", shape="C")


def tuning_keys(num_layers: int) -> Iterator[Key]:
    """Stage 2's low-rank updates and biases."""
    for layer in range(num_layers):
        for path, (block, linear) in _LINEARS.items():
            ours, released = f"llama.model.layers.{layer}.{path}", f"llama.layers.{layer}.{block}"
            name = path.partition(".")[2]
            rows: Layout = "rotary" if name in _ROTARY else "as_is"
            out_dim, in_dim = ("X" if linear in ("w1", "w3") else "C"), ("X" if linear == "w2" else "C")
            lora = f"{released}.lora_{linear}"
            yield Key(ours=f"{ours}.lora_down.weight", released=f"{lora}_l1.weight", shape=f"R{in_dim}")
            yield Key(ours=f"{ours}.lora_up.weight", released=f"{lora}_l2.weight", shape=f"{out_dim}R", layout=rows)
            if name in BIASED_LINEARS:
                yield Key(ours=f"{ours}.bias", released=f"{released}.{linear}.bias", shape=out_dim, layout=rows)
