"""The process supervisor (supervisord): it owns every part's process, restarts what dies, and stops all together."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from orchestrator.local.errors import StackError
from orchestrator.local.home import Home
from orchestrator.local.parts import STACK_MARK, Part

START_SECONDS = 20.0
STOP_SECONDS = 60.0
LOG_BYTES = "20MB"
log = logging.getLogger(__name__)


class Supervisor:
    """supervisord over its Unix socket."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._socket = home.sockets / "supervisor.sock"

    @property
    def _rpc(self) -> Any:
        """A fresh connection for each call: one that failed once would never recover."""
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def is_running(self) -> bool:
        """Whether supervisord answers."""
        try:
            self._rpc.getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def start(self, parts: list[Part]) -> None:
        """Write the configuration and start supervisord in the background, with no part running yet."""
        config = self._home.root / "supervisord.conf"
        config.touch(mode=0o600)
        config.write_text(_config(self._home, self._socket, parts))
        command = [str(Path(sys.executable).parent / "supervisord"), "-c", str(config)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        deadline = time.monotonic() + START_SECONDS
        while not self.is_running():
            if result.returncode or time.monotonic() > deadline:
                raise StackError(
                    f"the process supervisor did not start: {result.stderr.strip() or result.stdout.strip()}; "
                    f"see {self._home.logs / 'supervisord.log'}"
                )
            time.sleep(0.1)

    def start_part(self, name: str) -> None:
        """Start one part, unless it runs."""
        if self.state(name)["statename"] not in ("RUNNING", "STARTING"):
            self._rpc.startProcess(name, False)

    def state(self, name: str) -> dict[str, Any]:
        """supervisord's record of a part: ``statename``, ``pid``, ``start``, ``spawnerr``, …"""
        record: dict[str, Any] = self._rpc.getProcessInfo(name)
        return record

    def stop(self) -> None:
        """Stop all parts and supervisord itself; returns when it is gone."""
        process = psutil.Process(self._rpc.getPID())
        self._rpc.shutdown()
        try:
            process.wait(STOP_SECONDS)  # its socket closes long before its last child has ended
        except psutil.TimeoutExpired:
            log.warning("the supervisor did not end within %.0f s", STOP_SECONDS)


def _config(home: Home, socket: Path, parts: list[Part]) -> str:
    head = f"""\
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
logfile={home.logs / "supervisord.log"}
logfile_maxbytes={LOG_BYTES}
pidfile={home.root / "supervisord.pid"}
directory={home.root}
identifier=ibllm

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    return head + "".join(_program(home, part) for part in parts)


def _program(home: Home, part: Part) -> str:
    environment = {STACK_MARK: str(home.root), **part.environment}
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in environment.items())
    # The kernel stops a part whose supervisor was killed, so that nothing is ever left without an owner.
    command = [str(shutil.which("setpriv")), "--pdeathsig=TERM", *part.command]
    if part.command[0] == command[0]:
        command = part.command
    return f"""
[program:{part.name}]
command={" ".join(f'"{_escaped(word)}"' for word in command)}
environment={pairs}
autostart=false
autorestart=true
startsecs=1
startretries=5
stopsignal={part.stop_signal}
stopwaitsecs=20
stopasgroup={"true" if part.stops_as_group else "false"}
killasgroup=true
redirect_stderr=true
stdout_logfile={home.logs / f"{part.name}.log"}
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups=2
"""


def _escaped(text: str) -> str:
    return text.replace("%", "%%").replace('"', '\\"')
