import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from ibllm_core.model.norm import RMSNorm


def norms(dtype: torch.dtype) -> tuple[RMSNorm, nn.RMSNorm, LlamaRMSNorm]:
    torch.manual_seed(0)
    ours, torchs, stock = RMSNorm(16, eps=1e-5), nn.RMSNorm(16, eps=1e-5), LlamaRMSNorm(16, eps=1e-5)
    weight = torch.randn(16)
    for norm in (ours, torchs, stock):
        norm.weight = nn.Parameter(weight.to(dtype))
    return ours, torchs, stock


def test_float32_is_transformers_bit_by_bit() -> None:
    ours, _, stock = norms(torch.float32)
    x = torch.randn(3, 5, 16)
    assert torch.equal(ours(x), stock(x))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_gradients_are_torchs(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(3, 5, 16, dtype=dtype, requires_grad=True)
    gradient = torch.randn(3, 5, 16, dtype=dtype)
    found = [torch.autograd.grad(norm(x), (x, norm.weight), gradient) for norm in norms(dtype)[:2]]
    torch.testing.assert_close(found[0], found[1], rtol=tolerance, atol=tolerance)
