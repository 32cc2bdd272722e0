"""One input's committed rows, published: its dataset, its quarantine, and where to find both again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibllm_core.contract import layout
from ibllm_core.contract.run_spec import CompileSpec, Progress, ResultFile
from ibllm_core.data.shards import QUARANTINE
from ibllm_core.encoders.base import Encoder
from ibllm_core.storage import Store, sha256_of
from workers.compile.assemble import Assembler, Counts, MediaPlaces
from workers.compile.feature_store import FeatureStore
from workers.compile.plan import InputPlan
from workers.compile.staging import Staging
from workers.reporting import Voice


@dataclass(frozen=True, kw_only=True)
class Published:
    """The dataset that an input became, and what its user may download."""

    dataset_id: str
    result_files: tuple[ResultFile, ...]


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Publishes the inputs of one run; ``grey_VF`` is the feature of text-only samples, None where they have none."""

    spec: CompileSpec
    store: Store
    ledger: MediaPlaces
    features: FeatureStore
    encoder: Encoder
    grey_VF: np.ndarray | None
    reporter: Voice

    def publish(self, item: InputPlan, staging: Staging) -> Published:
        """Write the dataset; ``InvalidDataError`` where more rows are bad than the job allows, after keeping them."""
        name = item.input.name
        self.reporter.progress(Progress(phase=f"writing shards of {name}"))
        with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as target:
            folder = Path(target)
            counts = Assembler(
                staging=staging,
                ledger=self.ledger,
                features=self.features,
                folder=folder,
                scratch=Path(scratch),
                views=self.spec.data.views,
                feature_dim=self.encoder.feature_dim,
            ).assemble(self.grey_VF)
            kept = (self._keep_quarantine(name, folder / QUARANTINE),) if counts.quarantined else ()
            counts.refuse_if_too_bad(
                item.input.location,
                self.spec.data.max_bad_share,
                self.store.uri(kept[0].key) if kept else "no quarantine",
            )
            dataset_id = item.recipe.dataset_id({path.name: sha256_of(path) for path in folder.iterdir()})
            self.store.upload_folder(layout.dataset(dataset_id), folder, self._about(item, counts))
        if not counts.external:  # the input's hash covers its media too
            self.store.put_json(layout.dataset_of(item.recipe_hash), {"dataset": dataset_id})
        self.reporter.event(
            f"compiled {name}: {counts.samples} samples, {counts.quarantined} unusable rows", data=vars(counts)
        )
        return Published(dataset_id=dataset_id, result_files=kept)

    def _about(self, item: InputPlan, counts: Counts) -> dict[str, Any]:
        """What a dataset's manifest says beside its files."""
        encoder = self.encoder
        return {
            "source": item.input.location,
            "format": item.dataset.format,
            "counts": vars(counts),
            "encoder": {"name": self.spec.encoder, "sha256": encoder.sha256, "licence": encoder.licence},
            "recipe": vars(item.recipe),
        }

    def _keep_quarantine(self, name: str, path: Path) -> ResultFile:
        filename = f"{name}-{QUARANTINE}"
        key = layout.report(self.spec.job_id, "compile", filename)
        body = path.read_bytes()
        self.store.put(key, body)
        return ResultFile(key=key, filename=filename, bytes=len(body))
