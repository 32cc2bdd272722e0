"""The trainer without the service, as a person starts it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ibllm_core.adapter import files
from ibllm_core.contract import layout
from ibllm_core.errors import InvalidSpecError
from ibllm_core.local_store import LocalStore
from tests.conftest import tiny_llama, word_tokenizer
from tests.workers.train import tiny, world
from workers.train import local


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """A stage on compiled data."""
    store = LocalStore(tmp_path)
    tiny.furnish(store, tmp_path / "scratch")
    return {
        "base": str(tmp_path / "scratch" / "base"),
        "data": [{"path": str(tmp_path / layout.dataset(world.DATA))}],
        "validation": str(tmp_path / layout.dataset(world.HELD_OUT)),
        "output": str(tmp_path / "out"),
        "stage": "stage1",
        "hyperparameters": {"n_epochs": 2, "row_tokens": tiny.ROW_TOKENS, "rows_per_step": 4},
        "checkpoints": {"every_steps": 3},
        "resources": {"precision": "fp32"},
    }


def start(tmp_path: Path, spec: dict[str, Any], *command: str) -> subprocess.Popen[str]:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    return subprocess.Popen(
        [*(command or (sys.executable, "-m")), "workers.train.main", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(tmp_path: Path, spec: dict[str, Any], *command: str) -> tuple[int, str]:
    process = start(tmp_path, spec, *command)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--module")


def test_both_stages_train_and_a_stopped_run_goes_on_with_other_processes(tmp_path: Path, spec: dict[str, Any]) -> None:
    process = start(tmp_path, spec)
    assert process.stdout is not None
    for line in process.stdout:
        if "step 2 of" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 2, rest
    assert "which is saved" in rest
    code, output = run(tmp_path, spec, *TORCHRUN)
    assert code == 0, output
    assert "goes on from step" in output and "eval/loss" in output
    second = {**spec, "stage": "stage2", "parent": f"{spec['output']}/adapter", "output": str(tmp_path / "two")}
    code, output = run(tmp_path, second)
    assert code == 0, output
    header = files.read_header(tmp_path / "two" / "adapter")
    assert (header.stage, header.parent) == ("stage2", "parent")


def test_pictures_and_words_need_nothing_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": "a red cat on the mat"})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_llama().save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    spec = {
        "base": str(tmp_path / "base"),
        "data": [{"path": str(tmp_path / "captions.jsonl")}],
        "output": str(tmp_path / "out"),
        "stage": "stage1",
        "encoder": "efficientnet-lite0",
        "template": "short",
        "hyperparameters": {"row_tokens": 64},
    }
    code, output = run(tmp_path, spec)
    assert code == 0, output
    assert "compiled data.0: 12 samples, 0 unusable rows" in output
    assert files.read_header(tmp_path / "out" / "adapter").feature_dim == 1280


def test_all_problems_of_a_spec_are_said_at_once_and_without_a_traceback(tmp_path: Path, spec: dict[str, Any]) -> None:
    code, output = run(tmp_path, {**spec, "stage": "stage3", "hyperparameters": {"row_tokens": 1}, "extra": 1})
    assert code == 1
    assert "stage" in output and "hyperparameters.row_tokens" in output and "extra" in output
    assert "Traceback" not in output
    wrong = {**spec, "stage": "stage2", "hyperparameters": {"row_tokens": 16, "rows_per_step": 4}}
    code, output = run(tmp_path, wrong)
    assert code == 1
    assert "parent_adapter: stage2 needs the adapter of a stage1" in output and "row_tokens" in output
    assert "Traceback" not in output


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match=r"none\.json cannot be read"):
        local.read(tmp_path / "none.json")
