"""Run by test_train_step under torchrun: trains the tiny model for a few epochs, and writes what came of it."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from ibllm_core.contract import metrics as names
from ibllm_core.contract.job_spec import Hyperparameters
from ibllm_core.data.dataset import Dataset
from ibllm_core.model.imagebind_llm import ImageBindLLM
from ibllm_core.model.stages import freeze_for
from tests.conftest import FEATURE_DIM, PAD, sample, tiny_llama
from workers.train import checkpoint
from workers.train.engine import build_engine, init_distributed
from workers.train.loop import LoggedStep, train


def main(zero_stage: int, out: Path) -> None:
    init_distributed()
    rng = np.random.default_rng(0)
    samples = [sample(rng.integers(1, 60, rng.integers(4, 12)).tolist(), 2, index) for index in range(40)]
    features = rng.standard_normal((40, FEATURE_DIM)).astype(np.float32)
    data = Dataset(samples=samples, features=features, feature_hashes=[str(index) for index in range(40)])
    llama = tiny_llama()
    torch.manual_seed(1)
    model = ImageBindLLM(llama, FEATURE_DIM)
    freeze_for("stage1", model)
    settings = Hyperparameters(n_epochs=6, row_tokens=24, rows_per_step=4, learning_rate=5e-3, gate_learning_rate=2e-2)
    engine = build_engine(model, settings, zero_stage=zero_stage, dtype=torch.float32)
    logged: list[LoggedStep] = []
    train(engine, model, data, settings, seed=0, pad_token=PAD, on_log=logged.append)
    weights, moments = checkpoint.gather_trained(engine)
    if engine.rank == 0:
        assert torch.allclose(weights["fusion.gates"], model.fusion.gates.detach().float())
        result = {
            "losses": [step.metrics[names.TRAIN_LOSS] for step in logged[1:]],
            "gates": [step.metrics[names.GATE_ABS_MEAN] for step in logged],
            "moments": sorted(moments),
        }
        out.write_text(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
