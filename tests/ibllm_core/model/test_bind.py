import pytest
import torch

from ibllm_core.model.bind import BindNetwork, count_parameters


def test_has_the_papers_size_at_1024_to_4096() -> None:
    with torch.device("meta"):
        network = BindNetwork(1024, 4096)
    assert sum(p.numel() for p in network.parameters()) == count_parameters(1024, 4096) == 608_190_464


@pytest.mark.parametrize("norm", ["rms", "layer"])
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
        gate = n @ block.w1.weight.T
        x = x + (gate * torch.sigmoid(gate) * (n @ block.w2.weight.T)) @ block.w3.weight.T
    torch.testing.assert_close(network(features), x)
