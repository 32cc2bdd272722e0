"""The benchmarks' short versions: ratios that must hold on any machine."""

import statistics
from pathlib import Path

import pytest
import torch

from tests.benchmarks import encoding, fusion_costs, reading
from tests.benchmarks.shapes import stage1_model
from tests.benchmarks.training_step import packed_and_padded
from tests.workers.compile.world import nodes, world


@pytest.mark.parametrize(("width", "at_least"), [(96, 1.3), (512, 4.0)])
def test_packing_pays(width: int, at_least: float) -> None:
    model = stage1_model(torch.float32, num_layers=3)
    turns = packed_and_padded(model, width, 3)
    assert statistics.median(packed / padded for packed, padded in turns) >= at_least


def test_concatenating_costs_what_its_tokens_weigh(capsys: pytest.CaptureFixture[str]) -> None:
    fusion_costs.report(stage1_models(), [64], turns=1)
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| 64")]
    kept = {row[2].strip(): float(row[7]) for row in rows}
    assert kept["concat, 257 tokens"] > 3 * kept["token_add, RMSNorm"]
    assert kept["value_gate"] <= 1.02 * kept["token_add, RMSNorm"]


def test_samples_are_read_and_packed_faster_than_any_training_needs(tmp_path: Path) -> None:
    """Ten times faster, so that a busy machine still shows it."""
    reading.write(tmp_path, 20_000)
    assert max(reading.report(tmp_path, 2048) for _ in range(3)) > 50_000


def test_a_compile_run_keeps_its_encoders_busy(tmp_path: Path) -> None:
    with world(tmp_path) as made, nodes(2):
        weights = encoding.put_imagebind(made, tmp_path)
        found = encoding.turn(made, "imagebind", weights, 96, 224, 0)
    assert found.busy > 0.8
    assert found.compiling > 0.6 * found.alone  # 0.9 and more on a quiet machine: make bench


def stage1_models() -> dict[str, object]:
    chosen = ("token_add, RMSNorm", "value_gate", "concat, 257 tokens")
    return {name: stage1_model(torch.float32, num_layers=2, **fusion_costs.VARIANTS[name]) for name in chosen}
