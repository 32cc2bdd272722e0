"""The compile run: data as people bring it becomes datasets of features and tokens, once for each distinct input."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from ibllm_core.contract import layout
from ibllm_core.contract.media import Modality
from ibllm_core.contract.run_spec import CompileInput, CompileSpec, Outcome, Progress, ResultFile
from ibllm_core.contract.states import TerminationReason
from ibllm_core.encoders.base import Encoder
from ibllm_core.errors import ObjectMissingError, StorageError
from ibllm_core.formats.dataset import open_dataset
from ibllm_core.formats.fetch import Fetcher
from ibllm_core.formats.source import Source
from ibllm_core.formats.sources import StoreSource, open_source
from ibllm_core.settings import StorageSettings
from ibllm_core.storage import Store
from workers.compile.commit import Committer
from workers.compile.encoding import Encoding
from workers.compile.feature_store import FeatureStore
from workers.compile.identity import Recipe
from workers.compile.pipeline import SharedLedger, bundles
from workers.compile.plan import EncoderPlan, InputPlan, Plan, fetch_weights, open_encoder
from workers.compile.publish import Publisher
from workers.compile.staging import Staging, resume_points
from workers.model_loading import fetch_base
from workers.reporting import Voice
from workers.settings import WorkerSettings

# Half a core each: reading and preparing need the rest of what the run was admitted with.
ENCODER_CPUS = 0.5
MAX_PASSES = 3


def run(spec: CompileSpec, store: Store, settings: WorkerSettings, reporter: Voice) -> Outcome:
    """Compile every input that was not compiled before; the outcome maps the inputs' names to dataset ids."""
    reporter.progress(Progress(phase="loading"))
    encoder_plan = _encoder_plan(spec)
    encoder = open_encoder(encoder_plan)
    recipes = _recipes(spec, store, settings.ibllm_cache, encoder)
    storage = StorageSettings()
    sources = {item.name: _source(item, storage, settings) for item in spec.inputs}
    hashes = {item.name: _recipe_hash(recipes[item.name], item, sources[item.name], spec) for item in spec.inputs}
    known = {name: _known_dataset(store, recipe_hash) for name, recipe_hash in hashes.items()}
    todo = {hashes[item.name]: item for item in spec.inputs if known[item.name] is None}
    if len(todo) < len(set(hashes.values())):
        reporter.event(f"{len(set(hashes.values())) - len(todo)} inputs were compiled before")
    made: dict[str, str] = {}
    files: list[ResultFile] = []
    if todo:
        plan = Plan(
            base=spec.base,
            encoder=encoder_plan,
            views=spec.data.views,
            inputs=tuple(
                _input_plan(
                    item,
                    sources[item.name],
                    recipes[item.name],
                    recipe_hash,
                    storage=storage,
                    data_prefixes=spec.data_prefixes,
                    settings=settings,
                )
                for recipe_hash, item in todo.items()
            ),
        )
        made, files = _compile(plan, spec, store, encoder, reporter)
    datasets = {name: known[name] or made[recipe_hash] for name, recipe_hash in hashes.items()}
    return Outcome(reason=TerminationReason.SUCCEEDED, outputs={"datasets": datasets}, result_files=tuple(files))


def _encoder_plan(spec: CompileSpec) -> EncoderPlan:
    resources = spec.resources
    # The driver may run where there is no GPU, and must not decide by what it finds there.
    is_half = resources.gpus_per_worker > 0 and resources.precision != "fp32"
    return EncoderPlan(
        name=spec.encoder,
        dtype="bfloat16" if is_half else "float32",
        actors=resources.workers,
        cpus=resources.cpus_per_worker * ENCODER_CPUS,
        gpus=resources.gpus_per_worker,
    )


def _recipes(spec: CompileSpec, store: Store, cache: Path, encoder: Encoder) -> dict[str, Recipe]:
    base = fetch_base(store, spec.base, cache, with_weights=False)
    return {
        item.name: Recipe(
            encoder_sha256=encoder.sha256,
            tokenizer_sha256=base.tokenizer_sha256,
            template=item.template,
            row_tokens=min(item.row_tokens, base.context),
            context=base.context,
            media_tokens=spec.adapter.media_tokens,
            grey_for_text=spec.adapter.preset == "released",
            views=spec.data.views,
        )
        for item in spec.inputs
    }


def _source(item: CompileInput, storage: StorageSettings, settings: WorkerSettings) -> Source:
    if item.key and item.filename:
        return StoreSource(settings=storage, key=item.key, name=item.filename)
    return open_source(item.location, settings=storage, allow_local=settings.ibllm_local_data)


def _recipe_hash(recipe: Recipe, item: CompileInput, source: Source, spec: CompileSpec) -> str:
    # The name has a say in what an upload is read as.
    content = f"{item.sha256} {item.filename}" if item.sha256 else source.fingerprint()
    # Two projects share a dataset only where both may read all that its rows could name.
    return recipe.hash_with(f"{content} {sorted(spec.data_prefixes)}", spec.data.max_bad_share)


def _known_dataset(store: Store, recipe_hash: str) -> str | None:
    try:
        return str(store.get_json(layout.dataset_of(recipe_hash))["dataset"])
    except ObjectMissingError:
        return None


def _input_plan(
    item: CompileInput,
    source: Source,
    recipe: Recipe,
    recipe_hash: str,
    *,
    storage: StorageSettings,
    data_prefixes: tuple[str, ...],
    settings: WorkerSettings,
) -> InputPlan:
    dataset = open_dataset(source)
    return InputPlan(
        input=item,
        dataset=dataset,
        pieces=tuple(dataset.pieces()),
        recipe=recipe,
        recipe_hash=recipe_hash,
        fetcher=Fetcher(
            source, settings=storage, data_prefixes=data_prefixes, allow_private=settings.ibllm_private_urls
        ),
    )


def _compile(
    plan: Plan, spec: CompileSpec, store: Store, encoder: Encoder, reporter: Voice
) -> tuple[dict[str, str], list[ResultFile]]:
    if not ray.is_initialized():
        ray.init(log_to_driver=True)
    ledger = SharedLedger()
    features = FeatureStore(store, plan.inputs[0].recipe.feature_set)
    for part, keys in features.parts():
        ledger.store(part, keys)
    staging = [Staging(store, layout.staging(spec.job_id, item.recipe_hash)) for item in plan.inputs]
    _stage_all(plan, staging, ledger, features, reporter)
    publisher = Publisher(
        spec=spec,
        store=store,
        ledger=ledger,
        features=features,
        encoder=encoder,
        grey_VF=_grey(plan, encoder) if plan.inputs[0].recipe.grey_for_text else None,
        reporter=reporter,
    )
    made: dict[str, str] = {}
    files: list[ResultFile] = []
    for item, place in zip(plan.inputs, staging, strict=True):
        published = publisher.publish(item, place)
        made[item.recipe_hash] = published.dataset_id
        files += published.result_files
    for place in staging:
        place.clear()
    return made, files


def _stage_all(
    plan: Plan, staging: Sequence[Staging], ledger: SharedLedger, features: FeatureStore, reporter: Voice
) -> None:
    """Read, prepare and encode all rows until every one is committed; another pass mends what a node took with it."""
    pieces = [(number, piece) for number, item in enumerate(plan.inputs) for piece in range(len(item.pieces))]
    for turn in itertools.count():
        resume = _resume(staging)
        if all(resume.get(piece, (0, False))[1] for piece in pieces):
            return
        if turn == MAX_PASSES:
            raise StorageError(
                f"after {MAX_PASSES} passes some rows are still not compiled, since nodes or tasks keep dying: see the "
                "run's log"
            )
        done = sum(following for following, _ in resume.values())
        if done:
            reporter.event(f"going on after {done} rows that are compiled already")
        ledger.release()
        committer, encoding = Committer(ledger, features, staging, resume), Encoding(actors=plan.encoder.actors)
        try:
            for bundle in bundles(plan, resume, ledger):
                committer.add(bundle)
                encoding.add(bundle)
                done += len(bundle.rows)
                reporter.progress(Progress(phase="compiling rows", step=done))
        except RayTaskError:  # raised by the code of a task, which would raise it again
            raise
        except RayError as error:
            reporter.event(f"Ray lost a part of the run, which is done again: {error}"[:500], level="warn")
        committer.finish()
        if encoding.media:
            reporter.event(encoding.told(), data=encoding.as_data())


def _resume(staging: Sequence[Staging]) -> dict[tuple[int, int], tuple[int, bool]]:
    return {
        (number, piece): point
        for number, place in enumerate(staging)
        for piece, point in resume_points(place.blocks()).items()
    }


def _grey(plan: Plan, encoder: Encoder) -> np.ndarray:
    fetch_weights(plan.encoder, encoder, Modality.IMAGE)
    vector = encoder.encode(Modality.IMAGE, [encoder.grey()]).numpy()
    return np.repeat(vector, plan.views, axis=0).astype(np.float16)
