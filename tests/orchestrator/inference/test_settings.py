import pytest
from pydantic import ValidationError

from orchestrator.inference.settings import ServingSettings


def test_the_secret_itself_is_not_among_the_servers_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBLLM_SERVE_SECRET", "a-long-secret")
    settings = ServingSettings()
    assert "a-long-secret" not in f"{settings.server_args()} {settings}"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://127.0.0.1", "https://127.0.0.1:8000"])
def test_an_address_without_a_port_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="write http://host:port"):
        ServingSettings(url=url)
