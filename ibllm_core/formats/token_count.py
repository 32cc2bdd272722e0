"""How many tokens samples will have in training, told by ``tokenizer.json`` without transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from ibllm_core.errors import InvalidPromptError, InvalidWeightsError
from ibllm_core.formats.sample import BadRow, Sample
from ibllm_core.prompts import Prompter

CountTokens = Callable[[Sequence[Sample]], Sequence[int | BadRow]]
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def token_counter(tokenizer_json: Path, template: str) -> CountTokens:
    """Count with the ``Prompter`` that compiles: a number for each sample, or why it will be quarantined.

    ``tokenizer_config.json`` beside the file says which token ends an answer. ``InvalidWeightsError`` where one of
    them is missing or damaged.
    """
    prompter = Prompter(tokenizer=FileTokenizer(tokenizer_json), template=template)

    def count(samples: Sequence[Sample]) -> list[int | BadRow]:
        return [_count(prompter, sample) for sample in samples]

    return count


def _count(prompter: Prompter, sample: Sample) -> int | BadRow:
    try:
        return len(prompter.sample(sample.turns, system=sample.system).tokens)
    except InvalidPromptError as error:
        return BadRow(row=sample.row, reason=error.message)


class FileTokenizer:
    """What ``Prompter`` asks of a tokenizer, from ``tokenizer.json`` and the files that transformers lays beside it."""

    def __init__(self, file: Path) -> None:
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises Exception itself
            raise InvalidWeightsError(
                f"{file} is no tokenizer.json ({error}): name a folder that transformers can load the tokenizer from",
                file=str(file),
                expected="a tokenizer of the library tokenizers",
            ) from error
        config = _json_of(file.with_name("special_tokens_map.json")) | _json_of(file.with_name("tokenizer_config.json"))
        self._roles = {role: _text_of(config[role]) for role in ROLES if config.get(role)}
        ids = {token: self._tokenizer.token_to_id(token) for token in self._roles.values()}
        known = {token: index for token, index in ids.items() if index is not None}
        self.all_special_tokens, self.all_special_ids = list(known), list(known.values())
        self.added_tokens_decoder: dict[int, Any] = self._tokenizer.get_added_tokens_decoder()
        self.bos_token_id: int | None = known.get(self._roles.get("bos_token", ""))
        if self._roles.get("eos_token") not in known:
            raise InvalidWeightsError(
                f"{file.parent} names no eos_token of its vocabulary, with which every answer ends: put "
                "tokenizer_config.json beside tokenizer.json",
                file=str(file),
                key="eos_token",
            )
        self.eos_token_id: int = known[self._roles["eos_token"]]
        self.chat_template = _chat_template_of(file.parent, config)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        # The same ids as encode's, a fifth faster: it keeps no offsets.
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        return ids

    def decode(self, tokens: Any, *, skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens))

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """The vocabulary's own spelling of token ids."""
        return [str(self._tokenizer.id_to_token(index)) for index in ids]

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, chat_template: str | None = None, **options: Any
    ) -> str:
        """A conversation in the words of the base; the template runs in a sandbox."""
        template = _compiled(chat_template or self.chat_template or "")
        return template.render(messages=conversation, **self._roles, **options)


@lru_cache(maxsize=4)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


def _environment() -> ImmutableSandboxedEnvironment:
    """The words that chat templates may use, as transformers documents them; a template is a stranger's program."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise_exception
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _chat_template_of(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text()
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _text_of(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _json_of(file: Path) -> dict[str, Any]:
    """A file's object, nothing where there is no such file."""
    if not file.exists():
        return {}
    try:
        value: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        raise InvalidWeightsError(
            f"{file} is no JSON: copy or download the file again", file=str(file), expected="JSON"
        ) from error
    return value
