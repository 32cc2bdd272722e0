"""A wire that loses answers: the service has done what it was asked, and the client does not know."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.orchestrator.api.service import Live

CHUNK = 1 << 16


@dataclass
class Wire:
    """``losses`` answers are still to be lost; ``requests`` has the heads of all that went through."""

    live: Live
    losses: int
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def lossy(live: Live, losses: int) -> Iterator[Wire]:
    """A port in front of the service, whose first ``losses`` answers end in a broken connection."""
    target = urlsplit(live.base_url)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        wire = Wire(Live(f"http://127.0.0.1:{listening.getsockname()[1]}/v1"), losses)
        server = threading.Thread(
            target=_accept, args=(listening, wire, (str(target.hostname), int(target.port or 0))), daemon=True
        )
        server.start()
        yield wire
        listening.shutdown(socket.SHUT_RDWR)
        server.join()


def _accept(listening: socket.socket, wire: Wire, target: tuple[str, int]) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:  # the test has ended
            return
        threading.Thread(target=_carry, args=(client, wire, target), daemon=True).start()


def _carry(client: socket.socket, wire: Wire, target: tuple[str, int]) -> None:
    with client, socket.create_connection(target) as service:
        threading.Thread(target=_requests, args=(client, service, wire), daemon=True).start()
        while answer := service.recv(CHUNK):
            if wire.losses > 0:
                wire.losses -= 1
                client.shutdown(socket.SHUT_RDWR)
                return
            client.sendall(answer)


def _requests(client: socket.socket, service: socket.socket, wire: Wire) -> None:
    try:
        while request := client.recv(CHUNK):
            wire.requests.append(request)
            service.sendall(request)
        service.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other direction was closed meanwhile
        return
