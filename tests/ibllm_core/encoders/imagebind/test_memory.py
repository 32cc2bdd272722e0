"""Peak memory of splitting and loading a file of five towers, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ibllm_core.encoders.imagebind.config import ImageBindConfig, ImuSizes, PictureSizes, VisionSizes
from ibllm_core.encoders.imagebind.model import ImageBind
from tests.ibllm_core.encoders.imagebind.models import SMALL, write_pth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account of a process is read from /proc")

# Writing 5 to clear_refs sets the peak back to what is resident (proc_pid_clear_refs(5)).
PROBE = """
import ctypes, gc, json, sys
from pathlib import Path
import torch
from ibllm_core.encoders.imagebind.config import ImageBindConfig, Tower
from ibllm_core.encoders.imagebind.weights import load_tower, open_weights, split

def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024

def peak(act):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    act()
    return resident("VmHWM") - before

def load(path, config=None):
    load_tower(open_weights(path, config), Tower.AUDIO, device="cpu", dtype=torch.float32)

folder = Path(sys.argv[1])
small, large = (ImageBindConfig.model_validate_json(text) for text in sys.argv[2:])
load(folder / "small.pth", small)  # resolves lazy imports
print(json.dumps({
    "split": peak(lambda: split(folder / "large.pth", folder / "towers", large)),
    "load from the folder": peak(lambda: load(folder / "towers")),
    "load from the file": peak(lambda: load(folder / "large.pth", large)),
}))
"""
# What a mapped file's pages come to is in the peak, though the kernel takes them back where memory is short.
LIMITS = {"split": 1.4, "load from the folder": 1.4, "load from the file": 2.4}
WIDE = {"width": 512, "blocks": 4, "heads": 8}
PICTURE = PictureSizes(**WIDE, input_shape=(32, 32), kernel=16, stride=16)
LARGE = ImageBindConfig(
    vision=VisionSizes(**WIDE, side=28, patch=14),
    audio=PICTURE,
    depth=PICTURE,
    thermal=PICTURE,
    imu=ImuSizes(**WIDE, axes=6, length=40, window=8),
)


def test_the_peak_is_a_tower_and_not_the_file(tmp_path: Path) -> None:
    write_pth(tmp_path / "small.pth")
    with torch.device("meta"):
        model = ImageBind(LARGE)
    write_pth(tmp_path / "large.pth", {key: torch.ones(t.shape) for key, t in model.state_dict().items()})
    configs = [config.model_dump_json(exclude_none=True) for config in (SMALL, LARGE)]
    command = [sys.executable, "-c", PROBE, str(tmp_path), *configs]
    peaks = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    tower_bytes = (tmp_path / "large.pth").stat().st_size / 5
    assert tower_bytes > 5e7
    assert peaks.keys() == LIMITS.keys()
    for case, limit in LIMITS.items():
        print(f"{case}: {peaks[case] / tower_bytes:.2f} towers")
        assert 0.5 < peaks[case] / tower_bytes < limit, case
