"""One stage's adapter on its held-out data: the loss of its samples, and of each task what these allow."""

from __future__ import annotations

from functools import partial

from ibllm_core.contract import metrics as names
from ibllm_core.evaluation.losses import evaluation_losses
from ibllm_core.evaluation.memory import row_bytes, usable_bytes
from workers.evaluate.bench import Bench
from workers.evaluate.captions import measure_captions
from workers.evaluate.choices import measure_choices
from workers.evaluate.measured import Measured
from workers.evaluate.questions import measure_questions

MOST_ROWS = 16  # of a pass
LOSSES = {
    "eval_loss_before": names.EVAL_LOSS_BEFORE,
    "eval_loss": names.EVAL_LOSS,
    "eval_loss_shuffled": names.EVAL_LOSS_SHUFFLED,
}


def measure(bench: Bench) -> Measured:
    """Everything that the data allows."""
    measured = Measured()
    for part in (measure_losses, measure_captions, measure_questions, measure_choices):
        part(bench, measured)
    return measured


def measure_losses(bench: Bench, measured: Measured) -> None:
    """The loss of the samples: right, shuffled, and words alone."""
    model, media_tokens = bench.model, bench.model.fusion.media_tokens
    row_tokens = int(bench.data.lengths(media_tokens).max(initial=1))
    room = usable_bytes(model.llama.device) // row_bytes(model.shape, model.llama.dtype.itemsize, row_tokens)
    found = evaluation_losses(
        model,
        bench.data,
        module=model,
        media_tokens=media_tokens,
        row_tokens=row_tokens,
        pad_token=bench.prompter.tokenizer.eos_token_id,
        limit=bench.max_samples,
        rows_per_batch=max(1, min(MOST_ROWS, room)),
        tell=partial(bench.tell, "losses"),
    ).metrics()
    measured.metrics |= found
    measured.figures |= {"loss_samples": min(bench.max_samples, len(bench.data)), "loss_samples_of": len(bench.data)}
    measured.figures |= {figure: found[metric] for figure, metric in LOSSES.items() if metric in found}
