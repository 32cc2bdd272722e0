import pytest
import torch

from ibllm_core.evaluation.gates import gate_metrics, gate_table

GATES = torch.tensor([[0.0, 0.0005, 0.5], [0.1, 0.3, 0.2]])


def test_metrics_are_of_all_gates_and_of_each_layer() -> None:
    metrics = gate_metrics(GATES)
    assert metrics["gate/abs_mean"] == pytest.approx(1.1005 / 6)
    assert metrics["gate/abs_max"] == pytest.approx(0.5)
    assert metrics["gate/open_share"] == pytest.approx(4 / 6)
    assert metrics["gate/layer_01/abs_mean"] == pytest.approx(0.2)


def test_the_table_names_the_strongest_head_of_each_layer() -> None:
    first, second = gate_table(GATES)
    assert (first["layer"], first["strongest_head"], first["open_share"]) == (0, 2, pytest.approx(1 / 3))
    assert (second["layer"], second["strongest_head"], second["abs_max"]) == (1, 1, pytest.approx(0.3))
