"""Run by test_train_step under torchrun: trains the tiny model for a few epochs, and writes what came of it.

Every fusion in stage 1, and one in stage 2, one after the other in the same processes.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ibllm_core.contract import metrics as names
from ibllm_core.contract.adapter_config import AdapterConfig
from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.data.corpus import Corpus
from ibllm_core.data.dataset import Dataset
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stage_proof import prove, snapshot
from ibllm_core.model.stages import freeze_for
from tests.conftest import FEATURE_DIM, PAD, sample, tiny_llama
from workers.train import checkpoint
from workers.train.engine import build_engine, init_distributed
from workers.train.loop import LoggedStep, train

CASES: dict[str, tuple[Any, Any]] = {
    "token_add": ("token_add", "stage1"),
    "value_gate": ("value_gate", "stage1"),
    "adapter_prefix": ({"kind": "adapter_prefix", "prompts": 3}, "stage1"),
    "concat": ({"kind": "concat", "tokens": 2}, "stage1"),
    "stage2": ("token_add", "stage2"),
}
SETTINGS = Hyperparameters(n_epochs=6, row_tokens=28, rows_per_step=4, learning_rate=5e-3, gate_learning_rate=2e-2)


def main(zero_stage: int, out: Path) -> None:
    init_distributed()
    results = {name: train_case(fusion, stage, zero_stage) for name, (fusion, stage) in CASES.items()}
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(results))


def train_case(fusion: Any, stage: Any, zero_stage: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    samples = [sample(rng.integers(1, 60, rng.integers(4, 12)).tolist(), 2, index) for index in range(40)]
    features = rng.standard_normal((40, FEATURE_DIM)).astype(np.float32)
    data = Corpus([Dataset.of(samples, features, [str(index) for index in range(40)])])
    llama = tiny_llama()
    torch.manual_seed(1)
    model = ImageBindLLM(llama, FEATURE_DIM, AdapterConfig(fusion=fusion, lora={"rank": 4}), stage)
    freeze_for(stage, model)
    before = snapshot(model)
    engine = build_engine(model, SETTINGS, zero_stage=zero_stage, dtype=torch.float32)
    logged: list[LoggedStep] = []
    train(engine, model, data, SETTINGS, seed=0, pad_token=PAD, on_log=logged.append)
    weights, moments = checkpoint.gather_trained(engine)
    proof = prove(model, before, weights)
    for name, parameter in model.named_parameters():
        assert name not in weights or torch.allclose(weights[name], parameter.detach())
    return {
        "losses": [step.metrics[names.TRAIN_LOSS] for step in logged[1:]],
        "gates": [step.metrics.get(names.GATE_ABS_MEAN) for step in logged],
        "moments": sorted(moments),
        "drift": {group: trained.drift for group, trained in proof.trained.items()},
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
