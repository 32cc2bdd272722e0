"""From an event to an endpoint's answer, over an address that anybody could reach."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ibllm_core.contract.api.webhooks import WebhookEvent
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.addresses import is_public, lookup
from ibllm_core.formats.web import PORTS, Target, parse, post
from orchestrator.outbox.signing import signed_headers

SEND_SECONDS = 10.0


class RefusedAddressError(Exception):
    """The address is none that the service sends to; the message says why and what to write."""


class SendingError(Exception):
    """There was no answer; the message says why."""


def send(url: str, event: WebhookEvent, secrets: Sequence[str], *, allow_private: bool) -> int:
    """The status with which the endpoint answers; ``RefusedAddressError`` or ``SendingError`` where there is none.

    The address is judged anew, and the connection goes to what was judged. Redirects are not followed.
    """
    target, addresses = judged(url, allow_private=allow_private)
    body = event.model_dump_json().encode()
    headers = signed_headers(event.id, int(time.time()), body, secrets)
    try:
        return post(target, addresses, body, headers, timeout=SEND_SECONDS)
    except TimeoutError as error:
        raise SendingError(f"{target.shown} did not answer within {SEND_SECONDS:.0f} s") from error
    except OSError as error:
        raise SendingError(f"{target.shown} cannot be reached: {error}") from error


def judged(url: str, *, allow_private: bool) -> tuple[Target, list[str]]:
    """An endpoint's address taken apart, and where it leads; what is told of a refused one is not where."""
    try:
        target = parse(url, allow_private=True)
    except InvalidDataError as error:
        raise RefusedAddressError(error.message) from error
    if not allow_private and (target.scheme, target.port) != ("https", PORTS["https"]):
        raise RefusedAddressError(f"{target.shown} is not https at port 443: write https://host/path")
    try:
        addresses = lookup(target.host, target.port)
    except (OSError, ValueError) as error:
        raise RefusedAddressError(f"the host of {target.shown} is not known: check the address") from error
    if not allow_private and not all(is_public(address) for address in addresses):
        raise RefusedAddressError(f"{target.shown} leads to an address that is not public: name another one")
    return target, addresses
