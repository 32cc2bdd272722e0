"""Lists of the service: the first of them as a table, or as a page of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from ibllm_core.contract.api.common import Page
from orchestrator.cli.screen import Column, print_json, print_table, say

Item = TypeVar("Item")
Fetched_co = TypeVar("Fetched_co", covariant=True)


class Fetch(Protocol[Fetched_co]):
    """What gives items, at most ``limit`` of them."""

    def __call__(self, *, limit: int | None) -> Iterator[Fetched_co]:
        """The items, as they are asked for."""


@dataclass(frozen=True, kw_only=True)
class Listing(Generic[Item]):
    """How items are shown: ``what`` they are, and each one's cells."""

    what: str
    columns: Sequence[Column]
    row: Callable[[Item], Sequence[str]]


def print_list(
    fetch: Fetch[Item],
    listing: Listing[Item],
    *,
    limit: int,
    everything: bool,
    as_json: bool,
    is_reversed: bool = False,
) -> None:
    """Show the first items of what ``fetch`` gives at most so many of; ``is_reversed`` turns a table around."""
    most = None if everything else limit
    items = fetch(limit=None if most is None else most + 1)
    found = list(islice(items, most))
    has_more = next(items, None) is not None
    if as_json:
        print_json(_page(found, has_more=has_more))
        return
    if found:
        print_table(listing.columns, map(listing.row, reversed(found) if is_reversed else found))
    else:
        say(f"no {listing.what}")
    if has_more:
        say(f"there are more {listing.what}: --limit, or --all")


def _page(items: Sequence[Any], *, has_more: bool) -> Page[Any]:
    ids = [item.id for item in items]
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return Page[Any](data=list(items), has_more=has_more, first_id=first, last_id=last)
