from pathlib import Path

import pytest

from orchestrator.cluster.settings import RaySettings


def test_rays_token_comes_from_where_ray_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .env
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert RaySettings().headers == {}
    (tmp_path / "token").write_text("from-a-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert RaySettings().headers == {"Authorization": "Bearer from-a-file"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert RaySettings().headers == {"Authorization": "Bearer given"}
