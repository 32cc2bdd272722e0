"""The report of ``ibllm data check`` on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ibllm_core.formats.check import Report, TokenReport
from orchestrator.cli.screen import plain

BAR_WIDTH = 40
EIGHTHS = " ▏▎▍▌▋▊▉█"
STAGES = {
    "stage1": "1, since all samples are captions",
    "stage2": "2, since there are instructions",
    None: "none, since there are no samples",
}


def print_report(report: Report, console: Console, *, row_tokens: int, context: int | None) -> None:
    """Counts, lengths, the first bad rows, and the verdict as the last line."""
    console.print(_counts(report))
    console.print()
    if report.tokens:
        console.print(_lengths(report.tokens, row_tokens, context))
        console.print(_histogram(report.tokens))
    else:
        console.print("tokens were not counted: name a base with --base, and its tokenizer counts them")
    if report.first_bad:
        console.print()
        console.print(_bad_rows(report))
    console.print()
    console.print(_verdict(report))


def _counts(report: Report) -> Table:
    table = _table(None, "", "")
    media = ", ".join(f"{number:,} {modality}" for modality, number in report.media.items())
    about = "" if report.duplicates_are_exact else "about "
    for name, value in (
        ("format", report.format),
        ("stage", STAGES[report.stage]),
        ("rows", f"{report.rows:,}"),
        ("samples", f"{report.samples:,}, {report.turns:,} turns"),
        ("media", media or "none"),
        ("characters", "unknown" if report.characters is None else f"{report.characters:,}"),
        ("text only", f"{report.text_only:,} samples"),
        ("duplicates", f"{about}{report.duplicates:,} samples"),
        ("media in rows", f"{report.inline_bytes / 1e6:,.1f} MB"),
        ("bad rows", f"{report.bad_rows:,} ({report.bad_share:.2%} of the rows, limit {report.bad_share_limit:.0%})"),
    ):
        table.add_row(name, plain(value))
    return table


def _lengths(tokens: TokenReport, row_tokens: int, context: int | None) -> Table:
    table = _table("tokens of a sample", "", "")
    table.add_row("total", f"{tokens.total:,}")
    table.add_row("mean", f"{tokens.mean:,.1f}")
    table.add_row("longest", f"{tokens.longest:,} (row {tokens.longest_row:,})")
    limits = [(f"over row_tokens {row_tokens:,}", tokens.over_row_tokens)]
    if context:
        limits.append((f"over the base's context {context:,}", tokens.over_context))
    for name, number in limits:
        table.add_row(name, f"{number:,}: quarantined, since nothing is cut" if number else "none")
    return table


def _histogram(tokens: TokenReport) -> Table:
    table = _table(None, "", "", "")
    table.columns[0].justify = table.columns[2].justify = "right"
    most = max(one.samples for one in tokens.bins)
    for one in tokens.bins:
        table.add_row(f"up to {one.up_to:,}", bar(one.samples, most), f"{one.samples:,}")
    return table


def bar(number: int, most: int) -> str:
    """A bar of block characters; whatever is not zero can be seen."""
    eighths = max(round(number / most * BAR_WIDTH * 8), 1 if number else 0)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _bad_rows(report: Report) -> Table:
    shown, more = len(report.first_bad), report.bad_rows - len(report.first_bad)
    table = _table(f"the first {shown} of {report.bad_rows:,} bad rows" if more else "bad rows", "row", "reason")
    for bad in report.first_bad:
        table.add_row(f"{bad.row:,}", plain(bad.reason))
    return table


def _verdict(report: Report) -> str:
    if report.is_usable:
        left_out = f"; a job leaves the {report.bad_rows:,} bad rows out" if report.bad_rows else ""
        return f"[green]usable[/green]{left_out}"
    if not report.samples:
        return "[red]not usable[/red]: there is no row that a job could train on"
    return (
        f"[red]not usable[/red]: {report.bad_share:.2%} of the rows are bad, a job refuses more than "
        f"{report.bad_share_limit:.0%}"
    )


def _table(title: str | None, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
