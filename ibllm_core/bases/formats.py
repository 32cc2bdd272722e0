"""Which format a base on disk has."""

from __future__ import annotations

from pathlib import Path

from ibllm_core.bases.gguf_file import GGUFFile
from ibllm_core.bases.meta_folder import MetaFolder
from ibllm_core.bases.safetensors_folder import SafetensorsFolder
from ibllm_core.bases.source import WeightSource
from ibllm_core.errors import InvalidWeightsError


def open_source(path: Path) -> WeightSource:
    """Recognise the format of a base by what lies there.

    Raises ``InvalidWeightsError`` where nothing fits, or where the weights are pickles of Hugging Face's layout.
    """
    if path.is_file() and path.suffix == ".gguf":
        return GGUFFile(path)
    if any(path.glob("*.safetensors")) or (path / "model.safetensors.index.json").exists():
        return SafetensorsFolder(path)
    if any(path.glob("consolidated.*.pth")):
        return MetaFolder(path)
    if any(path.glob("pytorch_model*.bin")):
        raise InvalidWeightsError(
            f"{path} holds its weights as pickles (pytorch_model*.bin), which are not read: convert them once, with "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder), and give the new folder",
            file=str(path),
            expected="*.safetensors",
        )
    raise InvalidWeightsError(
        f"{path} is no base model: expected a .gguf file, a folder with config.json and *.safetensors, or Meta's "
        "folder with params.json and consolidated.00.pth",
        file=str(path),
        expected="*.gguf, *.safetensors or consolidated.*.pth",
    )
