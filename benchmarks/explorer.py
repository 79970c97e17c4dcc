"""How long the explorer takes, through a real browser: `python -m benchmarks.explorer`, medians over 100 actions.

Each figure is beside what the page is meant to keep to. An action is timed in the page, from its first line to the
picture that answers it. Needs Chromium, and the reference runs. With a folder of runs, `python -m benchmarks.explorer
FOLDER`, opening its dqn-mspacman is timed too, with the activation store that it has.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.maze.mazes import Mazes
from rl_interp.core.envs.maze.text import maze_text

ROOT = Path(__file__).parents[1]
ACTIONS = 100
MAZE, PACMAN = "impala-maze-region5", "dqn-mspacman"
WAIT = 900_000

# In the page: how long each of `count` actions takes until `done` says so, in milliseconds.
TIMED = """
async ([count, act, done]) => {
  const {stage, episode} = explorer, {state, set} = await import('/static/state.js');
  const all = {
    step: i => stage.go(i % (episode.steps - 1) + 1), stepped: () => +stage.canvas.dataset.step === state.step,
    scrub: i => stage.go(Math.floor((i * 0.6180339887 % 1) * episode.steps)),
    edit: i => { const editor = explorer.active, maze = structuredClone(editor.maze), cell = 25 * 12 + 12;
      maze.walls[cell] = !maze.walls[cell]; editor.edit(maze); },
    edited: () => document.getElementById('maze').dataset.maze === state.edited,
    change: i => set({changes: [`clamp:block3.res1.sum:${i % 32}=${1 + i}`]}),
    changed: () => explorer.active.judged === state.changes[0],
  };
  const found = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    all[act](i);
    while (!all[done]()) await new Promise(requestAnimationFrame);
    found.push(performance.now() - start);
  }
  return found;
}
"""


class Said(dict[str, float]):
    """Results, each told as soon as it is known: a slow machine takes long for all."""

    def __setitem__(self, name: str, value: float) -> None:
        super().__setitem__(name, value)
        print(f"{name}: {value:.3g}", file=sys.stderr, flush=True)


def main() -> None:
    from playwright.sync_api import sync_playwright

    folder = sys.argv[1] if len(sys.argv) > 1 else None
    large = maze_text(Mazes.draw(MazeConfig(min_side=25, max_side=25), [0]))
    started = time.perf_counter()
    command = [sys.executable, "-m", "rl_interp.app.cli", "explore", "--no-browser", "--port", "0"]
    command += [str(Path(folder) / PACMAN), str(ROOT / "runs")] if folder else []
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    link = re.search(r"http://[\d.:]+/", server.stderr.readline())
    assert link, "the explorer did not start"
    browser_at = shutil.which("chromium") or shutil.which("google-chrome")
    results = Said()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_at, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(WAIT)
            sizes: list[int] = []
            page.on(
                "requestfinished",
                lambda asked: sizes.append(sum(asked.sizes()[n] for n in ("responseBodySize", "responseHeadersSize"))),
            )

            def opened(address: str, wanted: str = "#frame[data-step]") -> float:
                before = time.perf_counter()
                page.goto("about:blank")
                page.goto(f"{link[0]}#{address}")
                page.locator(wanted).first.wait_for()
                return time.perf_counter() - before

            def timed(act: str, done: str) -> float:
                return float(np.median(page.evaluate(TIMED, [ACTIONS, act, done])))

            layer = f"run={MAZE}&seed=7&point=block1.res1.sum&unit=6"
            opened(layer, ".tile")
            results["first page, cold, from the command on (s)"] = time.perf_counter() - started
            results["first load (kB)"] = sum(sizes) / 1000
            results["opening a run again (s)"] = float(np.median([opened(layer, ".tile") for _ in range(5)]))
            page.locator("#where", has_not_text="so far").wait_for()
            results["frames a second with overlay"] = 1000 / timed("step", "stepped")
            opened(f"run={MAZE}&seed=7&tab=maze&edited={large}", "#maze[data-maze*='.']")
            results["maze edit to field, 25 x 25 (ms)"] = timed("edit", "edited")
            opened(f"run={MAZE}&seed=7&step=4&tab=change", "#verdict")
            results["change to bars with 20 controls (ms)"] = timed("change", "changed")
            if folder:
                results["opening an agent with its store (s)"] = opened(f"run={PACMAN}", "#stage select:not([hidden])")
                manifest = json.loads(next((Path(folder) / PACMAN).glob("activations/*/manifest.json")).read_text())
                results["decisions in the store"] = manifest["rows"]
            opened(f"run={PACMAN}&seed=1&parts=3000~k{'.'.join('0' * 10)}~3000")
            page.locator("#where", has_not_text="so far").wait_for()
            results["recorded steps scrubbed over"] = page.evaluate("explorer.episode.steps")
            results["scrub (ms)"] = timed("scrub", "stepped")
            browser.close()
        status = Path(f"/proc/{server.pid}/status").read_text()
        results["server memory, peak (MB)"] = int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1000
    finally:
        server.kill()
    results["load of the machine"] = os.getloadavg()[0]
    print(json.dumps({name: round(value, 3) for name, value in results.items()}, indent=2))


if __name__ == "__main__":
    main()
