import pytest
import torch
from torch.nn import functional as F

from ibllm_core.model.bind import BindNetwork


def test_has_the_papers_size_at_1024_to_4096() -> None:
    with torch.device("meta"):
        network = BindNetwork(1024, 4096)
    assert sum(p.numel() for p in network.parameters()) == 608_190_464


@pytest.mark.parametrize("norm", ["rms", "layer", "legacy"])
def test_equals_the_formula_written_out(norm: str) -> None:
    torch.manual_seed(0)
    network = BindNetwork(8, 16, norm)  # type: ignore[arg-type]
    features = torch.randn(3, 8)
    x = features @ network.project.weight.T + network.project.bias
    for block in network.blocks:
        if norm == "rms":
            n = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * block.norm.weight
        else:
            n = torch.nn.functional.layer_norm(x, (16,), block.norm.weight, block.norm.bias)
        gate, up = (F.linear(n, w.weight, w.bias) for w in (block.w1, block.w2))
        x = x + F.linear(gate * torch.sigmoid(gate) * up, block.w3.weight, block.w3.bias)
        assert (block.w1.bias is not None) == (norm == "legacy")
    torch.testing.assert_close(network(features), x)
