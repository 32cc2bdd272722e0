"""The low-rank part of an adapter as a folder that ``peft`` loads onto the plain base.

Biases, norms and everything of the media have no place in that format, and stay behind.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from ibllm_core.adapter.header import Adapter
from ibllm_core.errors import InvalidSpecError
from ibllm_core.model.stages import group_of


def write_peft(folder: Path, adapter: Adapter) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``; ``InvalidSpecError`` for a stage-1 adapter."""
    if adapter.header.stage != "stage2":
        raise InvalidSpecError("a stage-1 adapter has no LoRA: export a stage-2 adapter")
    lora = adapter.header.config.lora
    tensors = {}
    for name, tensor in adapter.tensors.items():
        if group_of(name) == "lora":
            theirs = name.removeprefix("llama.").replace(".lora_down.", ".lora_A.").replace(".lora_up.", ".lora_B.")
            tensors[f"base_model.model.{theirs}"] = tensor.contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.header.base,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.scale * lora.rank,  # peft scales by lora_alpha / r
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
