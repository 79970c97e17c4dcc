"""Run every benchmark, or those named, and write `results/<machine>.json` and `docs/performance.md`, a table
a machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import SKIPPED
from rl_interp.core.files import write_json, write_text
from rl_interp.core.provenance import hardware
from rl_interp.core.tables import markdown

HEADER = ["benchmark", "unit", "ours", "peers", "ratio to the best peer", "share of the limit"]
HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCRIPTS = sorted(
    p.stem
    for p in HERE.glob("*.py")
    if p.stem not in ("__init__", "circuit_search", "dead_features", "explorer", "measure", "run")
)


def main(scripts: list[str]) -> None:
    machine = hardware()
    name = re.sub(
        r"[^a-z0-9]+",
        "-",
        f"{machine['cpu']}-{machine['cores']}-cores-{machine['capability']}-{machine['accelerator'] or ''}".lower(),
    ).strip("-")
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    results = {result["name"]: result for result in known if result["name"] in SCRIPTS}
    failed = []
    for script in scripts or SCRIPTS:
        print(f"{script} ...", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{script}", "--json"], capture_output=True, text=True)
        if done.returncode == SKIPPED:
            print(f"{script} {done.stderr.splitlines()[-1]}", file=sys.stderr)
            continue
        if done.returncode:
            print(f"{script} failed:\n{done.stderr}", file=sys.stderr)
            failed.append(script)
            continue
        results[script] = json.loads(done.stdout.splitlines()[-1])
        write_json(path, [results[each] for each in SCRIPTS if each in results])
        write_text(HERE.parent / "docs" / "performance.md", page())
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def page() -> str:
    """All results as a Markdown page."""
    lines = [
        "# Performance",
        "",
        "Measured by `make bench`. Larger is better. Each row was measured in one run, peers beside ours; the script's",
        "docstring says what is measured. Ratios compare, figures of different machines do not.",
    ]
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    of_machines = [results for results in files if "machine" in results[0]]  # and not tables of another script
    for results in sorted(of_machines, key=len, reverse=True):
        lines += ["", *_table(results)]
    return "\n".join([*lines, ""])


def _table(results: list[dict]) -> list[str]:
    machine = results[0]["machine"]
    lines = [
        f"## {machine['cpu']}, {machine['accelerator'] or machine['capability']}, {machine['cores']} cores",
        "",
    ]
    rows = []
    for result in results:
        peers = ", ".join(f"{peer} {figure:,.1f}" for peer, figure in result["peers"].items())
        ratio = f"{result['ratio_to_best_peer']:.2f}" if result["ratio_to_best_peer"] else ""
        share = f"{result['fraction_of_limit']:.0%}" if result["fraction_of_limit"] else ""
        rows.append([f"`{result['name']}`", result["unit"], f"{result['ours']:,.1f}", peers, ratio, share])
    lines += markdown(HEADER, rows).splitlines()
    versions = sorted({f"{package} {version}" for result in results for package, version in result["versions"].items()})
    return [*lines, "", f"Versions: {', '.join(versions)}."]


if __name__ == "__main__":
    main(sys.argv[1:])
