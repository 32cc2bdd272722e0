"""The service over HTTP, as the command line uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

UPLOAD_SECONDS = 600.0


class ClientError(Exception):
    """The service refused or does not answer; shown to the user as it is."""


class Client:
    """``/v1`` of one service. Every method raises ``ClientError`` with the service's own sentence."""

    def __init__(self, url: str, api_key: str) -> None:
        self._url = url
        self._http = httpx.Client(
            base_url=f"{url}/v1",
            headers={"authorization": f"Bearer {api_key}"},
            timeout=30.0,
            trust_env=not url.startswith("http://127.0.0.1"),
        )

    def get(self, path: str, **query: Any) -> Any:
        """A ``GET`` that answers JSON."""
        return self._request("GET", path, params=query).json()

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """A ``POST`` of JSON that answers JSON."""
        return self._request("POST", path, json=body, headers=headers).json()

    def upload(self, path: Path) -> dict[str, Any]:
        """Upload a training file; ``ClientError`` names its bad rows."""
        with path.open("rb") as file:
            answer = self._request(
                "POST",
                "/files",
                data={"purpose": "fine-tune"},
                files={"file": (path.name, file)},
                timeout=UPLOAD_SECONDS,
            ).json()
        if answer["status"] != "processed":
            raise ClientError(f"{path.name}: {answer['status_details']}")
        return dict(answer)

    def content(self, file_id: str) -> bytes:
        """A file's bytes."""
        return self._request("GET", f"/files/{file_id}/content").content

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ClientError(
                f"the service at {self._url} does not answer ({error}): is it up? `ibllm status`"
            ) from error
        if response.is_error:
            raise ClientError(_message_of(response))
        return response


def _message_of(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {response.status_code}: {response.text[:300]}"
