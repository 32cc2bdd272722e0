from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.client.sse import ServerEvent, server_events

STREAM = 'id: a\nevent: e\ndata: {\u2028\x85"ü"}\n\n: still here\n\ndata: 1\r\ndata: 2\r\n\r\n'
EVENTS = [ServerEvent(id="a", name="e", data='{\u2028\x85"ü"}'), ServerEvent(id=None, name="message", data="1\n2")]


@given(st.lists(st.integers(0, len(STREAM.encode()))))
def test_events_are_the_same_wherever_the_network_cuts_them(cuts: list[int]) -> None:
    whole = STREAM.encode()
    places = [0, *sorted(cuts), len(whole)]
    chunks = [whole[start:end] for start, end in pairwise(places)]
    assert list(server_events(chunks)) == EVENTS


@pytest.mark.parametrize("rest", ["data: x", "data: x\n", 'id: b\ndata: {"half'])
def test_an_event_that_is_cut_off_is_not_told(rest: str) -> None:
    assert list(server_events([STREAM.encode(), rest.encode()])) == EVENTS


def test_a_space_after_the_colon_is_not_of_the_value_and_others_are() -> None:
    assert [event.data for event in server_events([b"data:  x\n\n", b"data:y\n\n"])] == [" x", "y"]
