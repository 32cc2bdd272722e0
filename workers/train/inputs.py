"""Whether base, data and parent adapter of a training run belong together: pure functions over what they state."""

from __future__ import annotations

from collections.abc import Iterator

from ibllm_core.adapter.header import AdapterHeader
from ibllm_core.contract.adapter_config import AdapterPrefixConfig
from ibllm_core.contract.run_spec import TrainSpec
from workers.train.facts import BaseFacts, DatasetFacts, Facts, Problem

AGAIN = "compile the data again for this job"


def input_problems(spec: TrainSpec, facts: Facts) -> Iterator[Problem]:
    """Every pair of inputs that does not fit together."""
    for path, data in facts.datasets.items():
        yield from _dataset(spec, path, data)
    yield from _alike(facts)
    if facts.base:
        yield from _base(spec, facts.base)
        yield from _data_for_base(facts, facts.base)
    if facts.parent:
        yield from _parent(spec, facts, facts.parent)


def _dataset(spec: TrainSpec, path: str, data: DatasetFacts) -> Iterator[Problem]:
    recipe, settings = data.recipe, spec.hyperparameters
    has_grey, wants_grey = bool(recipe["grey_for_text"]), spec.adapter.preset == "released"
    if not data.samples:
        yield Problem(path=path, what=f"{data.dataset} has no samples", remedy="give data with rows that are usable")
    elif data.weight and not round(data.samples * data.weight * settings.n_epochs):
        yield Problem(
            path=path,
            what=f"a weight of {data.weight:g} takes none of its {data.samples} samples",
            remedy="raise the weight, or leave the dataset out",
        )
    if recipe["template"] != spec.template:
        what = f"it was compiled with template {recipe['template']!r}, the run's is {spec.template!r}"
        yield Problem(path=path, what=what, remedy=AGAIN)
    if data.encoder != spec.encoder:
        what = f"its features are those of encoder {data.encoder!r}, the run's is {spec.encoder!r}"
        yield Problem(path=path, what=what, remedy=AGAIN)
    if data.text_only and has_grey != wants_grey:
        has = "have" if has_grey else "lack"
        what = f"its {data.text_only} samples of text {has} the grey picture, unlike preset {spec.adapter.preset}"
        yield Problem(path=path, what=what, remedy=AGAIN)
    longest = data.longest + max(0, spec.adapter.media_tokens - recipe["media_tokens"])
    if longest > settings.row_tokens:
        yield Problem(
            path="hyperparameters.row_tokens",
            what=f"rows of {settings.row_tokens} tokens do not hold the samples of {path}, which have up to {longest}",
            remedy=f"raise it to {longest}, or {AGAIN}",
        )


def _alike(facts: Facts) -> Iterator[Problem]:
    """Features that do not lie in the first dataset's space."""
    first_path, first = next(iter(facts.datasets.items()), (None, None))
    for path, data in facts.datasets.items():
        if first is None or data is first:
            continue
        if data.feature_dim != first.feature_dim:
            what = f"its features have {data.feature_dim} numbers, those of {first_path} {first.feature_dim}"
        elif data.recipe["encoder_sha256"] != first.recipe["encoder_sha256"]:
            what = f"its features come from other weights or another precision of {data.encoder} than {first_path}'s"
        else:
            continue
        yield Problem(path=path, what=what, remedy="compile all data with one encoder")


def _base(spec: TrainSpec, base: BaseFacts) -> Iterator[Problem]:
    fusion = spec.adapter.fusion
    if isinstance(fusion, AdapterPrefixConfig) and fusion.layers is not None:
        wrong = [layer for layer in fusion.layers if not 0 <= layer < base.size.num_layers]
        if wrong or len(set(fusion.layers)) < len(fusion.layers):
            yield Problem(
                path="adapter.fusion.layers",
                what=f"it is {list(fusion.layers)}, but the base has layers 0 to {base.size.num_layers - 1}",
                remedy="name distinct layers of the base",
            )


def _data_for_base(facts: Facts, base: BaseFacts) -> Iterator[Problem]:
    for path, data in facts.datasets.items():
        if data.recipe["tokenizer_sha256"] != base.tokenizer_sha256:
            yield Problem(
                path=path,
                what="it was compiled with another tokenizer or configuration than the base's",
                remedy="compile the data again for this base",
            )
        if data.longest > base.size.context:
            yield Problem(
                path=path,
                what=f"its samples have up to {data.longest} tokens, the base's context only {base.size.context}",
                remedy="compile the data again for this base",
            )


def _parent(spec: TrainSpec, facts: Facts, header: AdapterHeader) -> Iterator[Problem]:
    path = "parent_adapter"
    goes_on = header.stage == "stage2"  # with LoRA, biases and norms that are trained already
    if goes_on and spec.stage == "stage1":
        what = "stage1 begins from a stage1, but this is a stage2"
        yield Problem(path=path, what=what, remedy="give the adapter of a stage1, or train stage2")
    if facts.base and header.base_sha256 and header.base_sha256 != facts.base.sha256:
        yield Problem(
            path=path,
            what=f"it was trained on base {header.base} with weights {header.base_sha256}, but {spec.base} has "
            f"{facts.base.sha256}",
            remedy="train on its own base, or train stage1 on this one",
        )
    if header.encoder != spec.encoder:
        what = f"it was trained on features of encoder {header.encoder!r}, the run's is {spec.encoder!r}"
        yield Problem(path=path, what=what, remedy="use its encoder, or train stage1 with this one")
    for name in ("fusion", "bind_norm", *(("lora",) if goes_on and spec.stage == "stage2" else ())):
        ours, theirs = getattr(spec.adapter, name), getattr(header.config, name)
        if ours != theirs:
            what = f"it has {name} {theirs!r}, the run {ours!r}"
            yield Problem(
                path=path, what=what, remedy=f"set adapter.{name} to the adapter's, or train stage1 with this"
            )
    sizes = {data.feature_dim for data in facts.datasets.values()}
    if sizes and sizes != {header.feature_dim}:
        what = f"it takes features of {header.feature_dim} numbers, but the data's have {sorted(sizes)}"
        yield Problem(path=path, what=what, remedy="compile the data with the encoder of stage1")
