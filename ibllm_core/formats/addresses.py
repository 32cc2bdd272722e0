"""Which addresses of the internet a dataset may send us to: public ones alone."""

from __future__ import annotations

import ipaddress
import socket

from ibllm_core.errors import InvalidDataError

# Python's is_global knows IANA's registries; what it lets pass and must not be reached stands here.
AZURE_HOST = ipaddress.IPv4Address("168.63.129.16")  # the machine's own host, at a public address
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # leaves out mapped, compatible and NAT64 addresses


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody in the internet could reach."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.is_multicast or not found.is_global:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return found != AZURE_HOST
    # 6to4 and Teredo carry an IPv4 address inside, which may be anything.
    return found in GLOBAL_UNICAST and found.sixtofour is None and found.teredo is None


def check_literal(host: str) -> None:
    """Refuse a host that is written as an address and is not public; names are judged when they are resolved."""
    try:
        public = is_public(host)
    except ValueError:
        return
    if not public:
        raise _refused(host, host)


def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The addresses of a host, asked once; ``InvalidDataError`` where one of them is not public.

    ``OSError`` where the name service does not answer.
    """
    try:
        addresses = lookup(host, port)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise
        raise InvalidDataError(f"there is no host {host}: check the address, or leave the row out") from error
    except ValueError as error:  # a label of more than 63 characters, say
        raise InvalidDataError(f"{host!r} is not the name of a host: check the address") from error
    for address in addresses:
        if not allow_private and not is_public(address):
            raise _refused(host, address)
    return addresses


def lookup(host: str, port: int) -> list[str]:
    """What the name service says of a host; ``OSError`` or ``ValueError`` where it knows none."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _refused(host: str, address: str) -> InvalidDataError:
    return InvalidDataError(
        f"{host} is {address}, which is not a public address: put the media into the dataset, or beside it"
    )
