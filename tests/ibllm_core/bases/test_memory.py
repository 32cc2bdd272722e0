"""Peak memory of loading, measured in a process of its own on a base of 400 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.ibllm_core.bases.files import tiny_llama, write_meta

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account of a process is read from /proc")

# One process for all, since imports take longer than loading; writing 5 to clear_refs sets the peak back to what is
# resident (proc_pid_clear_refs(5)).
PROBE = """
import ctypes, gc, json, sys, time
from pathlib import Path
import torch
from ibllm_core.bases.load import load_llama

def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024

def measure(path, dtype):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else memory of the case before would serve this one unseen
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    assert resident("VmHWM") - before < 2e7
    start = time.perf_counter()
    llama = load_llama(Path(path), getattr(torch, dtype))
    seconds = time.perf_counter() - start
    weights = sum(weight.nbytes for weight in llama.parameters())
    return {"peak": resident("VmHWM") - before, "weights": weights, "seconds": seconds}

folder = Path(sys.argv[1])
measure(folder / "tiny", "bfloat16")  # resolves transformers' lazy imports
print(json.dumps({case: measure(folder / case.split()[0], case.split()[1]) for case in sys.argv[2:]}))
"""
CASES = ["safetensors bfloat16", "float32 bfloat16", "meta bfloat16"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of 200 million parameters, 400 MB in bf16, as three folders."""
    folder = tmp_path_factory.mktemp("large")
    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=1024,
        intermediate_size=2752,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=8,
    )
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    llama = llama.to(torch.bfloat16).to_empty(device="cpu").requires_grad_(False)
    for weight in llama.parameters():
        weight.fill_(0.01)
    llama.save_pretrained(folder / "safetensors", max_shard_size="200MB")
    write_meta(llama, folder / "meta", num_shards=2)
    tiny_llama().save_pretrained(folder / "tiny")
    llama.float().save_pretrained(folder / "float32", max_shard_size="200MB")
    return folder


def test_the_peak_is_at_most_a_fifth_above_the_weights(large: Path) -> None:
    command = [sys.executable, "-c", PROBE, str(large), *CASES]
    results = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for case, result in results.items():
        ratio = result["peak"] / result["weights"]
        print(f"{case}: {result['weights'] / 1e6:.0f} MB of weights, peak {ratio:.3f}, {result['seconds']:.1f} s")
        assert result["weights"] > 4e8, case
        assert 0.99 < ratio < 1.2, case
    assert len(results) == len(CASES)
