"""The bind network: an encoder's feature vector becomes a vector in LLaMA's word space.

Source: ImageBind-LLM (arXiv 2309.03905), section 3.1.1. Shape suffixes: S samples, F feature
dimension, C model dimension, H hidden dimension.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_core.contract.adapter_config import BindNorm

RMS_NORM_EPS = 1e-6  # the released code's default, independent of LLaMA's own norm_eps
HIDDEN_MULTIPLE = 4
NUM_BLOCKS = 3


class BindNetwork(nn.Module):
    """``Linear(F, C)`` followed by three gated residual blocks of hidden size ``4 C``.

    Input ``features_SF``, output ``bound_SC`` (the paper's ``T_I``), in the dtype of the weights. ``norm`` ``legacy``
    is the released beta's: LayerNorm, and biases on the blocks' linears.
    """

    def __init__(self, feature_dim: int, model_dim: int, norm: BindNorm = "rms") -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.project = nn.Linear(feature_dim, model_dim, bias=True)
        self.blocks = nn.ModuleList(_BindBlock(model_dim, norm) for _ in range(NUM_BLOCKS))

    def forward(self, features_SF: Tensor) -> Tensor:
        """Map feature vectors to bound vectors ``[S, C]``."""
        bound_SC: Tensor = self.project(features_SF.to(self.project.weight.dtype))
        for block in self.blocks:
            bound_SC = block(bound_SC)
        return bound_SC


class _BindBlock(nn.Module):
    """``x + w3(silu(w1(n)) * w2(n))`` with ``n = norm(x)``; biases in the ``legacy`` form alone."""

    def __init__(self, model_dim: int, norm: BindNorm) -> None:
        super().__init__()
        hidden_dim = HIDDEN_MULTIPLE * model_dim
        self.norm: nn.Module = nn.RMSNorm(model_dim, eps=RMS_NORM_EPS) if norm == "rms" else nn.LayerNorm(model_dim)
        bias = norm == "legacy"
        self.w1 = nn.Linear(model_dim, hidden_dim, bias=bias)
        self.w2 = nn.Linear(model_dim, hidden_dim, bias=bias)
        self.w3 = nn.Linear(hidden_dim, model_dim, bias=bias)

    def forward(self, x_SC: Tensor) -> Tensor:
        normed_SC = self.norm(x_SC)
        update_SC: Tensor = self.w3(F.silu(self.w1(normed_SC)) * self.w2(normed_SC))
        return x_SC + update_SC
