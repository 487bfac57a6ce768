"""The demo's search on several sets of experts: does the searched merge beat the average and the best single λ?

    python benchmarks/demo_seeds.py [--variants gentle strong] [--seeds 0 1 2] [--json FILE]

For each variant and seed: makes the experts (kept under runs/), launches the demo's study on them with the same seed,
and prints mean test accuracy and the paired differences with their standard errors. About five minutes a set.
"""

import argparse
import json
from pathlib import Path

import mergesearch
from mergesearch.demo.vision import make_experts
from mergesearch.report.table import Comparison
from mergesearch.report.view import read_view
from mergesearch.store.open import open_store
from mergesearch.types import Split

STUDY = Path("studies/demo.yaml")


def run(variant: str, seed: int, replace: list[tuple[str, str]], folder: Path) -> dict[str, object]:
    """One set of experts: makes them, searches, returns the final table as plain values."""
    place = folder / f"{variant}-{seed}"
    make_experts(place, seed=seed, variant=variant, progress=print)
    text = STUDY.read_text().replace("runs/demo", str(place)).replace("seed: 0", f"seed: {seed}")
    for old, new in replace:
        if old not in text:
            raise SystemExit(f"{STUDY} does not hold {old!r}")
        text = text.replace(old, new)
    study = place / "study.yaml"
    study.write_text(text)
    store_path = place / "seeds.db"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{store_path}{suffix}").unlink(missing_ok=True)
    store = open_store(f"sqlite:///{store_path}")
    mergesearch.launch(study, store=store)
    view = read_view(store, "demo")
    table = view.comparison()
    for row in table.rows_on(Split.TEST):
        cells = row.cells[Split.TEST]
        print(f"  {row.label:24} {100 * cells.mean.value:6.2f} ± {100 * cells.mean.stderr:.2f}", flush=True)
    for gap in table.differences:
        if gap.split is Split.TEST:
            print(f"  searched - {gap.other:16} {100 * gap.gain.value:+6.2f} ± {100 * gap.gain.stderr:.2f}", flush=True)
    store.close()
    return {"variant": variant, "seed": seed, **condensed(table)}


def condensed(table: Comparison) -> dict[str, object]:
    """Test scores of the compared merges and every paired difference, rounded."""
    test = {
        row.kind: {
            "name": row.label,
            "mean": round(row.cells[Split.TEST].mean.value, 5),
            "stderr": round(row.cells[Split.TEST].mean.stderr, 5),
            "scores": [round(score.value, 4) for score in row.cells[Split.TEST].scores],
        }
        for row in table.rows_on(Split.TEST)
        if row.kind != "expert"
    }
    gaps = [
        {"against": d.other, "split": d.split.value, "gain": round(d.gain.value, 5), "stderr": round(d.gain.stderr, 5)}
        for d in table.differences
    ]
    return {"test": test, "differences": gaps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["gentle", "strong"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--replace", nargs=2, action="append", default=[], metavar=("OLD", "NEW"),
                        help="change the study file's text, to try another setting")  # fmt: skip
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    for variant in arguments.variants:
        for seed in arguments.seeds:
            print(f"{variant} experts, seed {seed}: mean test accuracy in %", flush=True)
            results.append(run(variant, seed, arguments.replace, arguments.folder))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
