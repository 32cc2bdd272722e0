import shutil
import socket
import stat
from pathlib import Path

import pytest

from orchestrator.local.errors import StackError
from orchestrator.local.home import Home, check_port


def test_credentials_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = home.credentials()
    assert home.credentials() == first
    for file in (home.credentials_file, home.ray_token_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(set(first.values())) == len(first)


def test_ports_are_remembered_and_free(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ports = home.ports()
    assert Home(tmp_path).ports() == ports
    assert len(set(ports.values())) == len(ports)


def test_a_taken_port_is_named_with_its_owner_and_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"port {port} of api is taken by .*pid.*delete .*ports.json"):
            check_port("api", port, tmp_path / "ports.json")
    check_port("api", port, tmp_path / "ports.json")


def test_a_folder_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("99\n")
    with pytest.raises(StackError, match="holds data of version 99"):
        Home(tmp_path).prepare()
    (tmp_path / "VERSION").unlink()
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StackError, match="holds data of version no"):
        Home(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(StackError, match=r"GB free.*--home"):
        Home(tmp_path / "new").prepare()


def test_socket_paths_stay_short_however_deep_the_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("folder" * 20) / ("folder" * 20)
    assert len(str(Home(deep).sockets / "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")) < 107
