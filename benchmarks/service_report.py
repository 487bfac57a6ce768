"""The part of docs/benchmarks.md about the service under load, made from `results/service.json`."""

from typing import Any

HEAD = """## The service under load

`make bench-service` (`python benchmarks/service.py --json benchmarks/results/service.json`), {date}, two cores; the
PostgreSQL server, the controller and all workers on the same machine. Ratios within this one run are what counts.

16 workers, {dim} axes, {evaluations:,} candidates, a scorer that takes no time; every ask and every tell is one
transaction on the disk. *Optuna*: an ask and a tell of its RDB storage (random sampler) in a study as large, on the
same databases; {timed} were timed.

"""
BUSY = """
Workers that sleep for log-normal times (σ 0.75): the share of their time that they were busy, while there was budget
left to give them, and with the time in which the last ones ended.

"""
GROWTH = """
One study of 100,000 evaluations (random points, two objectives): what an evaluation takes, and the controller's
resident memory, as the study grows.

"""


def section(body: dict[str, Any]) -> str:
    """The section's Markdown."""
    peers = {row["store"]: row for row in body.get("optuna", [])}
    timed = next((row["timed"] for row in peers.values()), 0)
    text = HEAD.format(date=body["date"], dim=body["dim"], evaluations=body["evaluations"], timed=timed)
    head = [
        "store",
        "per second",
        "ms each",
        "95 %",
        "duplicates",
        "told",
        "cold load s",
        "Optuna ms each",
        "×",
        "its load s",
    ]
    rows = [_load(row, peers.get(row["store"])) for row in body.get("load", [])]
    text += _table(head, rows)
    if body.get("busy") or body.get("ray"):
        text += BUSY + _table(["workers", "store", "evaluations", "busy", "with the end"], [
            [row["pool"], row["store"], f"{row['evaluations']:,}", f"{100 * row['busy']:.1f} %",
             f"{100 * row['with_the_end']:.1f} %"]
            for row in [*body.get("busy", []), *body.get("ray", [])]
        ])  # fmt: skip
    if body.get("growth"):
        text += GROWTH + _table(["store", "axes", "after", "ms each", "memory MB"], [
            [row["store"], str(row["dim"]), f"{row['after']:,}", f"{row['ms']:.2f}", f"{row['memory_mb']:.0f}"]
            for row in body["growth"]
        ])  # fmt: skip
    return text


def _load(row: dict[str, Any], peer: dict[str, Any] | None) -> list[str]:
    cells = [row["store"], f"{row['per_second']:.0f}", f"{row['mean_ms']:.2f}", f"{row['p95_ms']:.2f}"]
    cells += [str(row["duplicates"]), f"{row['evaluations']:,}", f"{row['cold_load_s']:.2f}"]
    if peer is None:
        return [*cells, "", "", ""]
    return [*cells, f"{peer['mean_ms']:,.0f}", f"{peer['mean_ms'] / row['mean_ms']:.0f}", f"{peer['cold_load_s']:.1f}"]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
