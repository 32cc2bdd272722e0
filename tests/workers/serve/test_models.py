"""Models of one replica: what they share, and that they answer as they would alone."""

from __future__ import annotations

import gc
import io
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibllm_core.bind_llm import BindLLM
from ibllm_core.contract import layout
from ibllm_core.contract.media import Modality
from ibllm_core.contract.sampling import Sampling
from ibllm_core.contract.serving import ServedAdapter
from ibllm_core.encoders.registry import load_encoder
from ibllm_core.errors import BaseMismatchError, InvalidDataError, ObjectMissingError
from ibllm_core.local_store import LocalStore
from ibllm_core.model.generation import Request
from ibllm_core.model.mixing import mix
from tests.orchestrator.inference.world import BASE, ENCODER, add_adapter, add_base
from workers.serve.generation import answer
from workers.serve.media import Medium
from workers.serve.models import Loader, ServedModel

SHORT = Sampling(max_new_tokens=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    folder = tmp_path_factory.mktemp("serving")
    store = LocalStore(folder / "store")
    sha256 = add_base(store, folder / "base")
    for number, name in enumerate(("first", "second")):
        add_adapter(store, folder / name, layout.model(name), sha256, number)
    add_adapter(store, folder / "grey", layout.model("grey"), sha256, 2, config={"preset": "released"})
    add_adapter(store, folder / "alien", layout.model("alien"), "b" * 64, 3)
    return store


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are no faster with more, and much slower where others compute too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def loader(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    monkeypatch.setenv("IBLLM_S3_ENDPOINT", f"file://{store.root}")
    monkeypatch.setenv("IBLLM_CACHE", str(tmp_path))
    return Loader(store, tmp_path, gpus=0)


def adapter(name: str) -> ServedAdapter:
    return ServedAdapter(base=BASE, encoder=ENCODER, adapter=layout.model(name))


def picture(colour: str) -> Medium:
    content = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(content, "PNG")
    return Medium(modality=Modality.IMAGE, content=content.getvalue(), field="messages[0].content[0]")


def said(model: ServedModel, feature: torch.Tensor | None) -> str:
    prompt = model.base.tokenizer.encode("Question: what is this ? Answer:", add_special_tokens=False)
    pieces = answer(model, Request(prompt=prompt, feature=feature), SHORT, threading.Event())
    return "".join(piece.text for piece in pieces).rstrip()


def test_models_of_one_base_share_its_weights_and_answer_as_alone(store: LocalStore, loader: Loader) -> None:
    first, second = loader.load(adapter("first")), loader.load(adapter("second"))
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.base.weight"):
        assert first.llm.llama.get_parameter(name) is second.llm.llama.get_parameter(name)
    assert first.llm.llama.lm_head.weight is first.llm.llama.model.embed_tokens.weight  # tied, as in the base
    assert not torch.equal(first.llm.llama.model.norm.weight, second.llm.llama.model.norm.weight)
    feature = first.eyes.look([picture("red")])
    dtype = first.base.llama.dtype
    for model, name in ((first, "first"), (second, "second")):
        alone = BindLLM.from_pretrained(
            store.root / layout.base(BASE), store.root / layout.model(name), dtype=dtype, template="short"
        )
        assert said(model, feature) == alone.generate("what is this ?", feature, sampling=SHORT)[0]


def test_a_base_goes_with_the_last_model_that_uses_it(loader: Loader) -> None:
    first, second = loader.load(adapter("first")), loader.load(adapter("second"))
    assert first.base is second.base
    assert first.eyes is second.eyes
    base = weakref.ref(first.base.llama)
    del first
    gc.collect()
    assert base() is second.base.llama
    del second
    gc.collect()
    assert base() is None


def test_answers_at_once_are_those_of_one_after_the_other(loader: Loader) -> None:
    model = loader.load(adapter("second"))
    features = [model.eyes.look([picture(colour)]) for colour in ("red", "blue", "white")] + [None]
    one_by_one = [said(model, feature) for feature in features]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda feature: said(model, feature), features)) == one_by_one
    assert len(set(one_by_one)) > 1


def test_media_become_the_vector_of_a_compiled_row(loader: Loader) -> None:
    eyes = loader.load(adapter("first")).eyes
    encoder = load_encoder(ENCODER)
    stored = [
        encoder.encode(Modality.IMAGE, [encoder.preprocess(Modality.IMAGE, picture(colour).content)])[0].half()
        for colour in ("red", "blue")
    ]
    assert torch.equal(eyes.look([picture("red")]), stored[0].float())
    assert torch.equal(eyes.look([picture("red"), picture("blue")]), mix(stored).half().float())


def test_text_alone_sees_grey_where_it_was_trained_so(loader: Loader) -> None:
    model = loader.load(adapter("grey"))
    assert model.sees_grey
    assert not loader.load(adapter("first")).sees_grey
    encoder = load_encoder(ENCODER)
    assert torch.equal(model.eyes.grey(), encoder.encode(Modality.IMAGE, [encoder.grey()])[0].half().float())


def test_a_kind_of_media_that_the_encoder_does_not_know_is_refused_by_its_place(loader: Loader) -> None:
    sound = Medium(modality=Modality.AUDIO, content=b"RIFF", field="messages[2].content[1]")
    with pytest.raises(InvalidDataError, match=r"messages\[2\]\.content\[1\] is of kind audio, .* reads: image"):
        loader.load(adapter("first")).eyes.look([sound])


def test_an_adapter_is_loaded_around_its_own_base_alone(loader: Loader) -> None:
    with pytest.raises(BaseMismatchError):
        loader.load(adapter("alien"))
    with pytest.raises(ObjectMissingError):
        loader.load(adapter("nowhere"))
