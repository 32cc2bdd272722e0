from pathlib import Path

import pytest
import torch

from ibllm_core.adapter import files
from ibllm_core.adapter.__main__ import main
from ibllm_core.contract.adapter_config import AdapterConfig
from tests.ibllm_core.adapter.adapters import adapter_of, random_model


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    model = random_model(AdapterConfig(fusion="value_gate"), "stage2", num_key_value_heads=4)
    files.write(tmp_path / "ours", adapter_of(model, "stage2"))
    return tmp_path / "ours"


def test_an_adapter_goes_round_through_the_released_layout(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["released", str(adapter), str(tmp_path / "7B.pth")]) == 0
    assert main(["ours", str(tmp_path / "7B.pth"), str(tmp_path / "again")]) == 0
    assert "the stage2 adapter of Open-Chinese-LLaMA-7B" in capsys.readouterr().out
    before, after = files.read(adapter).tensors, files.read(tmp_path / "again").tensors
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_show_tells_what_an_adapter_is(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(adapter)]) == 0
    shown = capsys.readouterr().out
    assert '"stage": "stage2"' in shown and '"kind": "value_gate"' in shown and "parameters" in shown


def test_peft_gets_a_folder(tmp_path: Path, adapter: Path) -> None:
    assert main(["peft", str(adapter), str(tmp_path / "peft")]) == 0
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_what_cannot_be_done_is_said_in_a_sentence(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merged", str(adapter), str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert "needs the base's own v_proj" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "nothing")]) == 1
    assert "does not exist: give a folder with an adapter" in capsys.readouterr().err
