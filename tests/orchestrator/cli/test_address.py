from pathlib import Path

import pytest

from orchestrator.cli.address import Address, Given, NoServiceError, choose
from orchestrator.cli.profiles import Profile, ProfileError, Profiles

HERE = Address(url="http://here", key="here", origin="stack")
STORED = Profiles(
    current="work",
    profiles={"work": Profile(url="http://work", key="w", project="proj-w"), "lab": Profile(url="http://lab", key="l")},
)
OURS = {"IBLLM_URL": "http://ours", "IBLLM_API_KEY": "o"}
OPENAI = {"OPENAI_BASE_URL": "http://openai", "OPENAI_API_KEY": "sk"}
NOBODY = Profiles()


def up(_home: Path) -> Address | None:
    return HERE


def down(_home: Path) -> Address | None:
    return None


def chosen(given: Given, environment: dict[str, str], stored: Profiles = STORED) -> tuple[str, str, str | None]:
    found = choose(given, environment, stored, up)
    return found.url, found.key, found.project


def test_words_go_before_the_environment_that_before_the_login_and_that_before_the_stack() -> None:
    everywhere = {**OURS, **OPENAI}
    assert chosen(Given(url="http://said", key="s"), everywhere) == ("http://said", "s", None)
    assert chosen(Given(profile="lab"), everywhere) == ("http://lab", "l", None)
    assert chosen(Given(home=Path("x")), everywhere) == ("http://here", "here", None)
    assert chosen(Given(), everywhere) == ("http://ours", "o", None)
    assert chosen(Given(), OPENAI) == ("http://openai", "sk", None)
    assert chosen(Given(), {}) == ("http://work", "w", "proj-w")
    assert chosen(Given(), {}, NOBODY) == ("http://here", "here", None)


def test_a_key_or_a_project_in_words_goes_with_a_service_from_elsewhere() -> None:
    assert chosen(Given(key="k", project="p"), {}) == ("http://work", "k", "p")
    assert chosen(Given(key="k", project="p"), OURS) == ("http://ours", "k", "p")


def test_no_key_is_sent_to_a_service_that_it_was_not_given_for() -> None:
    with pytest.raises(NoServiceError, match="no key is given for http://said: add --key"):
        chosen(Given(url="http://said"), OPENAI)
    assert chosen(Given(url="http://said"), OURS)[1] == "o"
    with pytest.raises(NoServiceError, match="IBLLM_URL is set, and IBLLM_API_KEY is not"):
        chosen(Given(), {"IBLLM_URL": "http://ours", "OPENAI_API_KEY": "sk"})


def test_an_openai_key_alone_names_no_service() -> None:
    assert chosen(Given(), {"OPENAI_API_KEY": "sk"}) == ("http://work", "w", "proj-w")


def test_the_stack_is_looked_for_where_the_words_or_the_environment_say() -> None:
    looked: list[Path] = []

    def remember(home: Path) -> Address | None:
        looked.append(home)
        return HERE

    choose(Given(home=Path("said")), {"IBLLM_HOME": "named"}, NOBODY, remember)
    choose(Given(), {"IBLLM_HOME": "named"}, NOBODY, remember)
    choose(Given(), {}, NOBODY, remember)
    assert looked == [Path("said"), Path("named"), Path(".ibllm")]


def test_without_any_service_the_three_remedies_are_named() -> None:
    with pytest.raises(NoServiceError) as none:
        choose(Given(), {}, NOBODY, down)
    assert all(remedy in str(none.value) for remedy in ("ibllm login", "IBLLM_URL", "ibllm up"))
    with pytest.raises(NoServiceError, match="no stack is up in /nowhere"):
        choose(Given(home=Path("/nowhere")), OURS, STORED, down)


def test_a_profile_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(ProfileError, match=r"no profile 'home' \(known: work, lab\)"):
        chosen(Given(profile="home"), {})
