"""Where the explorer's browser tests find the runs, the server and things in the page."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".browser"
TOUR = ROOT / "docs" / "explorer"
AXE = KEPT / "package" / "axe.min.js"
PACMAN, MAZE, UNLOCK, DREAM = "dqn-mspacman", "impala-maze-region5", "impala-unlock", "dreamerv3-empty"
SOKOBAN, WAYS = "impala-sokoban-7x7", "beso-two-ways"
VIEWS = {
    "runs": "",
    "layers": f"run={MAZE}&seed=7&step=4&point=block1.res1.sum&unit=6",
    "features": f"run={PACMAN}&seed=1&step=80&sae=pacman-features&tab=features",
    "change": f"run={MAZE}&seed=7&step=4&tab=change&changes=cheese%3Ablock2.res1.sum%3D-1",
    "saliency": f"run={UNLOCK}&seed=1&step=3&tab=saliency",
    "maze": f"run={MAZE}&seed=7&step=4&tab=maze",
    "imagination": "run=dreamerv3-crafter&seed=1&step=12&parts=60&tab=dream",
    "feature": f"run={PACMAN}&seed=1&step=80&sae=pacman-features&tab=features&feature=0&whole=1",
    "edit": f"run={UNLOCK}&seed=1&step=3&tab=edit",
    "clusters": f"run={MAZE}&seed=7&step=4&tab=clusters&point=block2.res1.sum&clusters=6"
    "&beside=block1.res1.sum&beside=block3.res1.sum",
    "plan": f"run={SOKOBAN}&seed=3&step=1&tab=plan",
    "take": f"run={MAZE}&seed=7&step=4&tab=take",
}
LONG = 120_000
expect.set_options(timeout=LONG)  # how long a thing takes is measured by benchmarks/explorer.py, on a quiet machine


def command(*words: str, cwd: Path) -> None:
    subprocess.run([sys.executable, "-m", "rl_interp.app.cli", *words], cwd=cwd, check=True)


class Server:
    """`rl-interp explore`, which can be killed and started again at the same port."""

    def __init__(self, home: Path):
        self.home, self.port = home, 0
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "rl_interp.app.cli", "explore", "--no-browser", "--port", str(self.port)]
        with (KEPT / "server.log").open("w") as log:  # what it says, and why an answer failed
            self.process = subprocess.Popen(words, cwd=self.home, stderr=log)
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", said := (KEPT / "server.log").read_text())):
            assert self.process.poll() is None, said
            time.sleep(0.1)
        self.link, self.port = found[0], int(found[1])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def ours(url: str, link: str) -> bool:
    return url.startswith((link, f"blob:{link}"))


def at_step(page, step: int):
    page.locator(f"#frame[data-step='{step}']").wait_for()


def settled(page, view: str):
    """What a view shows when its answers have come."""
    wanted = {
        "runs": ".card", "layers": ".tile", "features": ".list .row", "change": "#verdict.beyond, #verdict.within",
        "saliency": ".saliency img", "maze": "#maze[data-maze*='.']", "imagination": ".dreams img",
        "take": "pre:not(:empty)",
        "feature": ".feature .peak, .feature:has-text('in none of the recorded')", "edit": ".tools input",
        "clusters": ".clusters .controls", "plan": ".plan table",
    }[view]  # fmt: skip
    page.locator(wanted).first.wait_for()
    page.wait_for_timeout(400)


def cell_on_screen(page, row: int, column: int, side: int):
    """Where a cell of the maze lies in the window."""
    box, first = page.locator("#maze").bounding_box(), (25 - side) // 2 - 1
    share = [(cell - first + 0.5) / (side + 2) for cell in (row, column)]
    return box["x"] + box["width"] * share[1], box["y"] + box["height"] * share[0]


FIELD_IS_SHOWN = "import('/static/state.js').then(m => document.getElementById('maze').dataset.maze === m.state.edited)"


def answered(page):
    """Until the field that is shown is that of the maze as it was edited last."""
    while not page.evaluate(FIELD_IS_SHOWN):
        page.wait_for_timeout(30)


def maze_of(page) -> dict:
    return page.evaluate("import('/static/maze.js').then(m => m.decoded(document.getElementById('maze').dataset.maze))")


def place_on_screen(page, x: float, y: float, of: tuple[float, float]):
    """Where a share of the frame's width and height lies in the window."""
    box = page.locator("#frame").bounding_box()
    return box["x"] + box["width"] * x / of[0], box["y"] + box["height"] * y / of[1]


class Held(list):
    """Questions of a page by one name, which get no answer until they are let go."""

    def __init__(self, page, name: str):
        self.page, self.open = page, False
        page.route(f"**/api/{name}", lambda route: route.continue_() if self.open else self.append(route))

    def wait(self, count: int):
        """Until so many were asked."""
        while len(self) < count:
            self.page.wait_for_timeout(20)

    def let_go(self):
        """These, and all that follow."""
        self.open = True
        for route in self:
            route.continue_()
