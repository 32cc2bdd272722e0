import pytest
import torch
from torch.nn import functional as F

from ibllm_core.model import head
from ibllm_core.model.head import frozen_head_losses


@pytest.fixture(params=[1, 3, 8])
def softmax_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LOGIT_ROWS", {"cpu": 5})
    monkeypatch.setattr(head, "SOFTMAX_ROWS", {"cpu": request.param})


@pytest.mark.usefixtures("softmax_rows")
@pytest.mark.parametrize("labels", [0, 1, 5, 13])
def test_losses_and_gradients_are_the_cross_entropys(labels: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(labels, 4, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(7, 4, dtype=torch.float64), torch.randint(0, 7, (labels,))
    losses, expected = (
        frozen_head_losses(hidden, weight, targets),
        F.cross_entropy(hidden @ weight.T, targets, reduction="none"),
    )
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    shares = torch.randn(labels, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(losses, hidden, shares),
        torch.autograd.grad(expected, hidden, shares),
        rtol=1e-12,
        atol=1e-12,
    )


def test_losses_of_bfloat16_are_float32_of_the_same_logits() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(20, 8).bfloat16(), 9 * torch.randn(50, 8).bfloat16()  # far targets: losses of hundreds
    targets = torch.randint(0, 50, (20,))
    losses = frozen_head_losses(hidden, weight, targets)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, F.cross_entropy((hidden @ weight.T).float(), targets, reduction="none"))


def test_a_head_that_is_to_be_trained_is_refused() -> None:
    with pytest.raises(AssertionError, match="no stage trains the head"):
        frozen_head_losses(torch.zeros(1, 2), torch.zeros(3, 2, requires_grad=True), torch.zeros(1).long())
