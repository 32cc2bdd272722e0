import torch

from ibllm_core.data.collate import collate
from ibllm_core.data.dataset import Dataset
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.lora import adapt_linears
from ibllm_core.model.stages import freeze_for
from tests.conftest import PAD


def losses(model: ImageBindLLM, dataset: Dataset, rows: list[list[int]], width: int = 20) -> torch.Tensor:
    return model(collate(dataset, rows, row_tokens=width, pad_token=PAD))


def test_closed_gates_give_the_plain_llama_exactly(model: ImageBindLLM, dataset: Dataset) -> None:
    batch = collate(dataset, [[0, 1, 2, 3]], row_tokens=20, pad_token=PAD)
    assert torch.equal(model(batch), model.plain_losses(batch))


def test_open_gates_change_the_loss_of_samples_with_a_picture_only(open_model: ImageBindLLM, dataset: Dataset) -> None:
    for index in range(len(dataset.samples)):
        batch = collate(dataset, [[index]], row_tokens=6, pad_token=PAD)
        changed = not torch.equal(open_model(batch), open_model.plain_losses(batch))
        assert changed == (dataset.samples[index].feature >= 0)


def test_packed_rows_give_the_losses_of_samples_alone(open_model: ImageBindLLM, dataset: Dataset) -> None:
    alone = torch.cat([losses(open_model, dataset, [[index]]) for index in range(4)])
    torch.testing.assert_close(losses(open_model, dataset, [[0, 1, 2, 3]]), alone, rtol=1e-5, atol=1e-5)


def test_a_layer_receives_its_gate_times_the_bound_vector(open_model: ImageBindLLM, dataset: Dataset) -> None:
    """Equation 2 of the paper, at the input of every layer."""
    seen: list[torch.Tensor] = []
    layers = open_model.llama.model.layers
    handles = [layer.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone())) for layer in layers]
    batch = collate(dataset, [[0]], row_tokens=5, pad_token=PAD)
    open_model(batch)
    open_model.plain_losses(batch)
    for handle in handles:
        handle.remove()
    bound = open_model.bind_network(batch.features_SF)[0]
    embedded = open_model.llama.model.embed_tokens(batch.tokens_BT)
    # Hooks registered later run later, so that these saw the injected input.
    torch.testing.assert_close(seen[0], embedded + open_model.fusion.gates[0] * bound)
    torch.testing.assert_close(seen[2], embedded)


def test_stage_1_gives_gradients_to_bind_network_and_gates_alone(open_model: ImageBindLLM, dataset: Dataset) -> None:
    freeze_for("stage1", open_model)
    losses(open_model, dataset, [[0, 1, 2, 3]]).sum().backward()
    with_gradient = {name.split(".")[0] for name, p in open_model.named_parameters() if p.grad is not None}
    assert with_gradient == {"bind_network", "fusion"}
    assert bool((open_model.fusion.gates.grad != 0).all())


def test_fresh_lora_changes_nothing(open_model: ImageBindLLM, dataset: Dataset) -> None:
    before = losses(open_model, dataset, [[0, 1]])
    adapt_linears(open_model.llama.model.layers, rank=4)
    torch.testing.assert_close(losses(open_model, dataset, [[0, 1]]), before)


def test_a_rank_without_rows_still_gets_zero_gradients(open_model: ImageBindLLM, dataset: Dataset) -> None:
    freeze_for("stage1", open_model)
    losses(open_model, dataset, [[]]).sum().backward()
    for _, parameter in open_model.bind_network.named_parameters():
        assert parameter.grad is not None
        assert not bool(parameter.grad.any())
