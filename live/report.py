"""The table of delays and stages of a live conversion."""

from __future__ import annotations

from live.converter import StreamingConverter
from live.scheduler import TOO_SLOW
from live.session import Session


def table(session: Session, converter: StreamingConverter) -> str:
    """Return the delays, the stages' times and what was lost, as lines of text."""
    scheduler = session.scheduler
    lines = ["delay            ms"]
    lines += [f"{name:<12}{1000 * seconds:8.2f}" for name, seconds in session.delays().rows()]
    lines += ["", "stage            p50      p99      max  ms a block"]
    stages = converter.stages.stages | {"all": scheduler.computed}
    for name, stage in stages.items():
        times = stage.percentile(50), stage.percentile(99), stage.longest
        lines.append(f"{name:<14}" + "".join(f"{1000 * seconds:9.2f}" for seconds in times))
    block = converter.block / converter.rate
    factor = scheduler.computed.percentile(50) / block
    lines += [
        "",
        f"block of {1000 * block:.1f} ms, real-time factor {factor:.3f} (median without silent blocks)",
    ]
    lines.append(f"underruns (gaps) {scheduler.underruns}, overruns (dropped blocks) {scheduler.overruns}")
    if scheduler.is_too_slow:
        lines.append(TOO_SLOW)
    return "\n".join(lines)
