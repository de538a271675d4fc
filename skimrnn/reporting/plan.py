"""The cost of the grid, as text for a terminal."""

import statistics
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from skimrnn.counts import count_of
from skimrnn.reporting.costs import Check, Plan, Planned


def plan_text(plans: Sequence[Plan], checks: Sequence[Check], workers: Sequence[int]) -> str:
    """Each plan's table, how long it takes some workers, and how good such estimates were for the finished runs."""
    parts = [_plan_section(plan, workers) for plan in plans]
    if not any(plan.gpu for plan in plans):
        parts.append("On a GPU: unknown, no record comes from one.")
    return "\n\n".join([*parts, check_text(checks)])


def _plan_section(plan: Plan, workers: Sequence[int]) -> str:
    unit = "GPU" if plan.gpu else "CPU"
    heads = ["dataset", "model", "finished", "spent (h)", "a run (h)", f"left ({unit}-h)", "from"]
    rows = [
        [
            row.dataset,
            row.model,
            f"{row.finished} of {row.seeds}",
            _hours(row.spent),
            _hours(max(row.left)) if row.left else "",
            "unknown" if row.left is None else _hours(sum(row.left)),
            row.source,
        ]
        for row in plan.rows
    ]
    for dataset in dict.fromkeys(row.dataset for row in plan.rows):
        rows.append(_total(f"{dataset}, all", [row for row in plan.rows if row.dataset == dataset]))
    rows.append(_total("the whole grid", plan.rows))
    lines = [f"{plan.hardware}, {unit}-hours:", tabulate(rows, heads, "simple", disable_numparse=True)]
    if plan.unknown and not plan.left:
        return "\n".join([*lines, f"What is left is {count_of(plan.unknown, 'run')} about which nothing can be said."])
    beside = f" (and {count_of(plan.unknown, 'run')} about which nothing can be said)" if plan.unknown else ""
    kind = "GPU" if plan.gpu else "core"
    times = ", ".join(f"{_hours(plan.wall_seconds(n))} h on {count_of(n, kind)}" for n in workers)
    return "\n".join([*lines, f"What is left takes {times}{beside}."])


def _total(title: str, rows: Sequence[Planned]) -> list[str]:
    known = [row.left for row in rows if row.left is not None]
    unknown = sum(row.seeds - row.finished for row in rows if row.left is None)
    beside = f"and {count_of(unknown, 'unknown run')}" if unknown else ""
    return [
        title,
        "",
        f"{sum(row.finished for row in rows)} of {sum(row.seeds for row in rows)}",
        _hours(sum(row.spent for row in rows)),
        "",
        _hours(sum(map(sum, known))) if known else "unknown",
        beside if known else "",
    ]


def check_text(checks: Iterable[Check]) -> str:
    """Predicted over actual time of the finished runs, each predicted from the others, by dataset."""
    ratios: dict[str, list[float]] = {}
    for check in checks:
        if check.predicted is not None and check.run.seconds:  # A run of a few steps may take 0.0.
            ratios.setdefault(check.run.run.dataset, []).append(check.predicted / check.run.seconds)
    if not ratios:
        return "No finished run could be predicted from another."
    every = [ratio for values in ratios.values() for ratio in values]
    rows = [
        [name, len(values), f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"]
        for name, values in [*ratios.items(), ("all", every)]
    ]
    heads = ["dataset", "runs", "median", "range"]
    title = "Finished runs, each predicted from the others: predicted / actual time"
    return f"{title}\n{tabulate(rows, heads, 'simple', disable_numparse=True)}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f}" if seconds < 36_000 else f"{seconds / 3600:,.0f}"
