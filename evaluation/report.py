"""The report of an evaluation: a table for the console, and the same values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.assessment import CONVERTED, SELF, SHIFTED, SOURCE, TARGET, TITLES, Assessment, Column
from evaluation.comparison import LEAST_VALUES, Interval, paired_difference
from evaluation.metrics import METRICS, Metric

ORDER = (CONVERTED, SELF, SHIFTED, SOURCE, TARGET)


def table(result: Assessment) -> str:
    """Return the figures of an assessment as a table, grouped by what the sounds are compared with."""
    keys = [key for key in ORDER if key in result.columns]
    rows = [["", *(TITLES[key] for key in keys)]]
    for name, metric, heading in _with_headings(result.columns.values()):
        rows += [[heading]] if heading else []
        cells = [_with_interval(metric, result.columns[keys[0]], name)]
        cells += [metric.text(result.columns[key].mean(name)) for key in keys[1:]]
        rows.append([f"  {metric.label}", *cells])
    foot = _size(result)
    if len(result.clips) >= LEAST_VALUES:
        foot += "; in brackets the 95 % interval over clips"
    return "\n".join([_aligned(rows), foot, *result.notes])


def _size(result: Assessment) -> str:
    return f"{_clips(len(result.clips))}, {result.seconds:.0f} s"


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"


def _with_headings(columns) -> list[tuple[str, Metric, str | None]]:
    """Return the figures that any column has, each with its group's heading if it is the first of the group."""
    columns, found, group = list(columns), [], None
    for name, metric in METRICS.items():
        if all(column.mean(name) is None for column in columns):
            continue
        found.append((name, metric, metric.group if metric.group != group else None))
        group = metric.group
    return found


def _with_interval(metric: Metric, column: Column, name: str) -> str:
    text, between = metric.text(column.mean(name)), column.interval(name)
    if between is None or not between.is_known:
        return text
    return f"{text} ({metric.text(between.low)} to {metric.text(between.high)})"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with columns of equal width; a row of one cell is a heading."""
    columns = max(map(len, rows))
    widths = [max((len(row[i]) for row in rows if len(row) > max(i, 1)), default=0) for i in range(columns)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False))]
        ).rstrip()
        for row in rows
    )


def as_json(result: Assessment) -> dict:
    """Return an assessment as values for JSON: means, intervals, and the figures of each clip."""
    return {
        "clips": result.clips,
        "seconds": result.seconds,
        "notes": result.notes,
        "columns": {
            key: {
                "mean": {name: value for name in METRICS if (value := column.mean(name)) is not None},
                "interval": {
                    name: [between.low, between.high]
                    for name in METRICS
                    if (between := column.interval(name)) and between.is_known
                },
                "clips": column.clips,
            }
            for key, column in result.columns.items()
        },
    }


# -- comparisons -------------------------------------------------------------------------------------------------------


def differences(first: Assessment, second: Assessment, others: int = 1) -> dict[str, Interval]:
    """Return by how much the second conversion's figures exceed the first one's, over the clips of the same name.

    Figures of which 0 is best are compared without their sign. The intervals are wider the more figures are compared
    (``paired_difference``), of as many ``others`` as are compared with the first.
    Raises ValueError if two clips of an assessment have the same name.
    """
    if any(len(set(one.clips)) < len(one.clips) for one in (first, second)):
        raise ValueError("two clips have the same name")
    by_name = [dict(zip(one.clips, one.columns[CONVERTED].clips, strict=True)) for one in (first, second)]
    common = [name for name in by_name[0] if name in by_name[1]]
    clips = [[_unsigned(figures[name]) for name in common] for figures in by_name]
    names = [name for name in METRICS if all(any(name in clip for clip in of) for of in clips)]
    found = {name: paired_difference(*clips, name, comparisons=len(names) * others) for name in names}
    return {name: between for name, between in found.items() if between}


def _unsigned(figures: dict[str, float]) -> dict[str, float]:
    """Return figures without the sign of those of which 0 is best."""
    return {name: abs(value) if METRICS[name].better == 0 else value for name, value in figures.items()}


def comparison_table(names: Sequence[str], results: Sequence[Assessment]) -> str:
    """Return a table of several conversions of the same clips, and sentences about what differs from the first one."""
    rows = [["", *names]]
    for name, metric, heading in _with_headings(result.columns[CONVERTED] for result in results):
        rows += [[heading]] if heading else []
        rows.append([f"  {metric.label}", *(metric.text(result.columns[CONVERTED].mean(name)) for result in results)])
    lines = [_aligned(rows), _size(results[0])]
    for name, result in zip(names[1:], results[1:], strict=True):
        lines += _verdict(names[0], name, differences(results[0], result, len(results) - 1))
    return "\n".join([*lines, *dict.fromkeys(note for result in results for note in result.notes)])


def _verdict(first: str, second: str, found: dict[str, Interval]) -> list[str]:
    """Return sentences about the figures in which the second differs from the first beyond chance."""
    beyond = {name: between for name, between in found.items() if _is_beyond_chance(name, between)}
    lines = [f"{second} against {first}:"]
    for name, between in beyond.items():
        metric = METRICS[name]
        better = between.mean * (metric.better or -1) > 0
        shown = " to ".join(f"{value * metric.factor:+.{metric.digits + 1}f}" for value in (between.low, between.high))
        lines.append(
            f"  {'better' if better else 'worse'}: {metric.full_label()} "
            f"{between.mean * metric.factor:+.{metric.digits + 1}f} ({shown})"
        )
    count = max((between.count for between in found.values()), default=0)
    if not beyond:
        lines.append(f"  no figure differs beyond chance ({_clips(count)})")
    else:
        lines.append(
            f"  {len(found) - len(beyond)} of {len(found)} figures do not differ beyond chance ({_clips(count)})"
        )
    if count < LEAST_VALUES:
        lines.append("  fewer than six clips cannot show a difference beyond chance; judge more")
    return lines


def _is_beyond_chance(name: str, between: Interval) -> bool:
    """Return whether a difference excludes zero and can be seen in the figure's decimals and one more."""
    metric = METRICS[name]
    return between.excludes_zero and abs(between.mean * metric.factor) >= 0.5 * 10.0 ** -(metric.digits + 1)


SWEEP = ("similarity", "dnsmos", "cer", "per", "given_f0_median_cents", "vuv_f1", "unvoiced_line", "clicks")


def sweep_table(results: Mapping[str, Assessment], speeds: Mapping[str, float]) -> str:
    """Return the quality of each setting against the seconds that it takes for a second of sound.

    A star marks what differs from the first setting beyond chance.
    """
    first = next(iter(results.values()))
    names = [
        name for name in SWEEP if any(result.columns[CONVERTED].mean(name) is not None for result in results.values())
    ]
    rows = [["", "s per s", *(METRICS[name].short_label() for name in names)]]
    for setting, result in results.items():
        found = {} if result is first else differences(first, result, len(results) - 1)
        cells = [
            METRICS[name].text(result.columns[CONVERTED].mean(name))
            + ("*" if name in found and _is_beyond_chance(name, found[name]) else "")
            for name in names
        ]
        rows.append([setting, f"{speeds[setting]:.2f}", *cells])
    foot = f"{_size(first)}; a star marks what differs from the first row beyond chance"
    return "\n".join([_aligned(rows), foot, *first.notes])
