"""The body of ``POST /v1/chat/completions``, as OpenAI's clients send it.

What OpenAI has and this service cannot do is refused by the field's name; what changes nothing in the answer is taken
and ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ibllm_core.contract.base import Contract
from ibllm_core.contract.media import Modality

MAX_BODY_BYTES = 64 << 20
MAX_DATA_CHARACTERS = 60 << 20  # of one data URL
MAX_ADDRESS_CHARACTERS = 4096
MAX_TEXT_CHARACTERS = 1 << 20  # of all messages: no base's context is longer
MAX_MESSAGES = 256
MAX_MEDIA = 16
DEFAULT_MAX_TOKENS = 1024
SCHEMES = ("https://", "http://", "data:")

Role = Literal["system", "developer", "user", "assistant"]
PartType = Literal[
    "text",
    "input_audio",
    "image_url",
    "video_url",
    "audio_url",
    "depth_url",
    "thermal_url",
    "imu_url",
    "point_url",
]


def _refused(reason: str, *harmless: Any) -> Any:
    """A field of OpenAI's that only null and ``harmless`` values may stand in."""

    def check(value: Any) -> None:
        if value is not None and value not in harmless:
            raise ValueError(f"{reason}: leave the field out")

    return BeforeValidator(check)


def _ignored(value: Any) -> None:
    del value


Ignored = Annotated[None, BeforeValidator(_ignored)]
NoTools = Annotated[None, _refused("these models call no tools", [], "none", "auto")]
NoPenalty = Annotated[None, _refused("these models draw without penalties", 0, {})]
NoAudio = Annotated[None, _refused("these models write text alone")]


class MediaAddress(Contract):
    """Where a medium is: a public ``http(s)`` address, or a data URL with base64."""

    url: str = Field(max_length=MAX_DATA_CHARACTERS)
    detail: Ignored = None

    @field_validator("url")
    @classmethod
    def _can_be_read(cls, url: str) -> str:
        if not url.lower().startswith(SCHEMES):
            raise ValueError("is neither a web address nor a data URL: write https://... or data:<type>;base64,...")
        if not url.startswith("data:") and len(url) > MAX_ADDRESS_CHARACTERS:
            raise ValueError(f"is an address of more than {MAX_ADDRESS_CHARACTERS} characters: shorten it")
        return url


class InputAudio(Contract):
    """A sound in base64. What kind it is is told by its content."""

    data: str = Field(min_length=1, max_length=MAX_DATA_CHARACTERS)
    format: str = Field(max_length=16)


class Part(Contract):
    """A piece of a message: a text or a medium, under the field that ``type`` names."""

    type: PartType
    text: str | None = None
    input_audio: InputAudio | None = None
    image_url: MediaAddress | None = None
    video_url: MediaAddress | None = None
    audio_url: MediaAddress | None = None
    depth_url: MediaAddress | None = None
    thermal_url: MediaAddress | None = None
    imu_url: MediaAddress | None = None
    point_url: MediaAddress | None = None

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> Part:
        given = [name for name in get_args(PartType) if getattr(self, name) is not None]
        if given != [self.type]:
            held = " and ".join(given) or "nothing"
            raise ValueError(f"is of type {self.type}, but holds {held}: give {self.type} and nothing else")
        return self

    @property
    def modality(self) -> Modality | None:
        """The kind of its medium; None for a text."""
        if self.type == "text":
            return None
        return Modality.AUDIO if self.type == "input_audio" else Modality(self.type.removesuffix("_url"))


def _as_parts(content: Any) -> Any:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class ChatMessage(Contract):
    """A message; its text is that of its parts, and only the user's may hold media."""

    role: Role
    content: Annotated[tuple[Part, ...], BeforeValidator(_as_parts), Field(max_length=256)] = ()
    name: Ignored = None
    refusal: Ignored = None
    annotations: Ignored = None
    audio: NoAudio = None
    tool_calls: NoTools = None
    function_call: NoTools = None

    @property
    def text(self) -> str:
        """The texts of its parts, a line each."""
        return "\n".join(part.text for part in self.content if part.text is not None)

    @property
    def media(self) -> list[Part]:
        """Its parts that are no text."""
        return [part for part in self.content if part.modality]

    @property
    def speaker(self) -> Literal["system", "user", "assistant"]:
        """Its role, of which ``developer`` is the newer name of ``system``."""
        return "system" if self.role == "developer" else self.role


class StreamOptions(Contract):
    """``include_usage`` asks for a last chunk with the tokens that were used."""

    include_usage: bool = False
    include_obfuscation: Ignored = None


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop or []


StopText = Annotated[str, Field(min_length=1, max_length=256)]


class ChatRequest(Contract):
    """What is asked of a fine-tuned model; the defaults are greedy, so that the same request gives the same answer."""

    model: str = Field(min_length=1, max_length=256)
    messages: tuple[ChatMessage, ...] = Field(max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, le=1 << 20, description=f"null: what fits, up to {DEFAULT_MAX_TOKENS}")
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20, description="newer name of max_tokens")
    temperature: float | None = Field(None, ge=0, le=2, description="null or 0: the likeliest token")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**31 - 1, description="null: another one each time")
    stop: Annotated[tuple[StopText, ...], BeforeValidator(_as_list), Field(max_length=16)] = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    n: Annotated[None, _refused("one answer is given to a request", 1)] = None
    tools: NoTools = None
    tool_choice: NoTools = None
    functions: NoTools = None
    function_call: NoTools = None
    frequency_penalty: NoPenalty = None
    presence_penalty: NoPenalty = None
    logit_bias: NoPenalty = None
    logprobs: Annotated[None, _refused("probabilities are not given", False)] = None
    top_logprobs: Annotated[None, _refused("probabilities are not given", 0)] = None
    response_format: Annotated[None, _refused("answers are plain text", {"type": "text"})] = None
    modalities: Annotated[None, _refused("answers are text", ["text"])] = None
    audio: NoAudio = None
    prediction: Annotated[None, _refused("predicted outputs are not used")] = None
    web_search_options: Annotated[None, _refused("nothing is looked up in the web")] = None
    moderation: Annotated[None, _refused("nothing is moderated")] = None
    reasoning_effort: Annotated[None, _refused("these models do not reason before they answer", "none")] = None
    verbosity: Annotated[None, _refused("answers are as long as the model was taught", "medium")] = None
    service_tier: Annotated[None, _refused("there is one tier", "auto", "default")] = None
    parallel_tool_calls: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    user: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None

    @field_validator("messages")
    @classmethod
    def _is_a_conversation(cls, messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
        _check_order(messages)
        num_characters = sum(len(message.text) for message in messages)
        if num_characters > MAX_TEXT_CHARACTERS:
            raise ValueError(f"hold {num_characters} characters, at most {MAX_TEXT_CHARACTERS} are read: shorten them")
        num_media = sum(len(message.media) for message in messages)
        if num_media > MAX_MEDIA:
            raise ValueError(f"hold {num_media} media, at most {MAX_MEDIA} are read: leave some out")
        return messages

    @model_validator(mode="after")
    def _fields_fit_each_other(self) -> ChatRequest:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are one setting: give one of them")
        if self.stream_options and not self.stream:
            raise ValueError("stream_options needs stream: set it, or leave the options out")
        return self

    @property
    def token_limit(self) -> int | None:
        """How many tokens the answer may have; None where the request does not say."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the tokens that were used."""
        return self.stream_options is not None and self.stream_options.include_usage


def _check_order(messages: Sequence[ChatMessage]) -> None:
    """System messages first, then users and assistants; neighbours of one role are one message."""
    speakers = [message.speaker for message in messages]
    for index, message in enumerate(messages):
        if message.media and message.role != "user":
            raise ValueError(f"[{index}] holds a medium, which only the user may send: move it to a user message")
        if message.role == "assistant" and not message.text.strip():
            raise ValueError(f"[{index}] is an answer without text: give it some, or leave it out")
        if message.speaker == "system" and index and speakers[index - 1] != "system":
            raise ValueError(f"[{index}] is a {message.role} message after the first: move it to the front")
    spoken = [speaker for speaker in speakers if speaker != "system"]
    if not spoken or spoken[-1] != "user":
        raise ValueError("do not end with the user's: add what is to be answered")
    if spoken[0] == "assistant":
        raise ValueError("begin with the assistant's, nothing was asked: begin with the user's")
