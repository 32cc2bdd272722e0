"""The data folder of the embedded stack: where everything lies, its version, its ports, its credentials."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.local.errors import StackError

DATA_VERSION = "1"
PORT_NAMES = ("postgres", "s3", "mlflow", "ray", "ray_dashboard", "ray_agent", "ray_client", "api", "serve")
S3_PORTS = 9  # SeaweedFS takes a run of ports, each of them plus 10,000 for gRPC where not told otherwise
MIN_FREE_BYTES = 3 << 30
CREDENTIAL_NAMES = (
    "api_key",
    "postgres_password",
    "s3_access_key",
    "s3_secret_key",
    "s3_signing_key",
    "ray_token",
    "serve_secret",
)


@dataclass(frozen=True)
class Home:
    """Paths below ``.ibllm/``."""

    root: Path

    @property
    def logs(self) -> Path:
        """A log file for each part."""
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        """Bases and datasets as the workers of this machine fetched them."""
        return self.root / "cache"

    @property
    def credentials_file(self) -> Path:
        """The generated credentials."""
        return self.root / "credentials.json"

    @property
    def ray_token_file(self) -> Path:
        """Ray's token, in the form that Ray reads."""
        return self.root / "ray-token"

    @property
    def ports_file(self) -> Path:
        """The ports that were chosen."""
        return self.root / "ports.json"

    @property
    def sockets(self) -> Path:
        """A short folder for Unix sockets, whose paths may not exceed 107 bytes."""
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"ibllm-{os.getuid()}-{digest}"

    def prepare(self) -> None:
        """Make the folder, or check that it is one of this version with room on its disk."""
        version = self.root / "VERSION"
        if self.root.exists() and any(self.root.iterdir()):
            found = version.read_text().strip() if version.exists() else "no"
            if found != DATA_VERSION:
                raise StackError(
                    f"{self.root} holds data of version {found}, this program needs {DATA_VERSION}: "
                    "move the folder away, or name another one with --home"
                )
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o755)
            version.write_text(DATA_VERSION + "\n")
            self._make_sockets()
        except OSError as error:
            raise StackError(
                f"{self.root} cannot be written ({error.strerror}): free its disk or its rights"
            ) from error
        free = shutil.disk_usage(self.root).free
        if free < MIN_FREE_BYTES:
            raise StackError(
                f"the disk of {self.root} has {free / 1e9:.1f} GB free, {MIN_FREE_BYTES / 1e9:.1f} GB are needed: "
                "free some, or name a folder on another disk with --home"
            )

    def _make_sockets(self) -> None:
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        if self.sockets.stat().st_uid != os.getuid():
            raise StackError(f"{self.sockets} belongs to somebody else: remove it")
        self.sockets.chmod(0o700)

    @property
    def checker_heartbeat(self) -> Path:
        """What the checker of files touches while it is well."""
        return self.root / "checker-heartbeat"

    def credentials(self) -> dict[str, str]:
        """The generated credentials; only the owner can read the file. What it lacks, as at the first call, is made."""
        values: dict[str, str] = json.loads(self.credentials_file.read_text()) if self.credentials_file.exists() else {}
        missing = [name for name in CREDENTIAL_NAMES if name not in values]
        if missing:
            values |= {name: secrets.token_hex(24) for name in missing}
            if "api_key" in missing:
                values["api_key"] = "ibllm-" + values["api_key"]
            _write_private(self.credentials_file, json.dumps(values, indent=1))
        _write_private(self.ray_token_file, values["ray_token"])
        return values

    def ports(self) -> dict[str, int]:
        """The ports of all parts, chosen free when they are first asked for, and remembered."""
        ports: dict[str, int] = json.loads(self.ports_file.read_text()) if self.ports_file.exists() else {}
        missing = [name for name in PORT_NAMES if name not in ports]
        if missing:
            ports |= _choose_ports(missing, after=max(ports.values(), default=0))
            self.ports_file.write_text(json.dumps(ports, indent=1))
        return ports


def check_port(name: str, port: int, ports_file: Path) -> None:
    """``StackError`` where another process listens on a port that a part is to have."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(
                f"port {port} of {name} is taken by {_owner_of(port)}: stop that, or delete {ports_file} to have "
                "other ports chosen"
            ) from error


def _owner_of(port: int) -> str:
    for connection in psutil.net_connections("tcp"):
        local = tuple(connection.laddr)
        if connection.status == psutil.CONN_LISTEN and port in local and connection.pid:
            return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _choose_ports(names: Sequence[str], *, after: int) -> dict[str, int]:
    """Free ports below the range that the kernel gives to outgoing connections; ``after`` those that are taken."""
    chosen: dict[str, int] = {}
    candidate = after + S3_PORTS if after else 21000 + secrets.randbelow(6000)
    for name in names:
        width = S3_PORTS if name == "s3" else 1
        while not all(_is_free(candidate + offset) for offset in range(width)):
            candidate += 1
        chosen[name] = candidate
        candidate += width
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
