"""The explorer in a real browser, on the reference runs: `make test-browser`.

Nothing may go wrong meanwhile: no error in the console, no request to another host. Each view must pass axe-core (WCAG
A and AA), at both widths, light and dark. Pictures of the tour go to docs/explorer/, the others to .browser/.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from rl_interp.agents.load import load_agent
from rl_interp.analysis.mazes.choices import choices
from rl_interp.core.envs.maze.text import maze_from_text, maze_text

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".browser"
TOUR = ROOT / "docs" / "explorer"
AXE = KEPT / "package" / "axe.min.js"
PACMAN, MAZE, UNLOCK, DREAM = "dqn-mspacman", "impala-maze-region5", "impala-unlock", "dreamerv3-empty"
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
    "take": f"run={MAZE}&seed=7&step=4&tab=take",
}
LONG = 120_000
expect.set_options(timeout=LONG)  # how long a thing takes is measured by benchmarks/explorer.py, on a quiet machine


def command(*words: str, cwd: Path) -> None:
    subprocess.run([sys.executable, "-m", "rl_interp.app.cli", *words], cwd=cwd, check=True)


@pytest.fixture(scope="session")
def home():
    """A directory whose runs/ has the reference runs, and small dictionaries of two of them; made once."""
    home = KEPT / "home"
    if not (home / "done").exists():
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(ROOT / "runs", home / "runs")
        for run, hook, samples, name in (
            (PACMAN, "fc.post", "2400", "pacman-features"),
            (MAZE, "block2.res1.sum", "200", "maze-features"),
        ):
            command("collect", run, "--hook", hook, "--samples", samples, cwd=home)
            fit = ["--latents", "256", "--k", "8", "--epochs", "2", "--batch-size", "256", "--episodes", "0"]
            command("sae", "fit", run, "--hook", hook, "--name", name, *fit, cwd=home)
        (home / "done").touch()
    return home


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


@pytest.fixture(scope="session")
def server(home):
    server = Server(home)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def chromium():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found, "there is no Chromium; apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, server):
    """`opened(address, ...)`: the explorer in a page of its own, in which nothing may go wrong."""
    wrong, contexts = [], []

    def show(address="", width=1280, height=800, scheme="light", wait=True, refusals=False, **more):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        contexts.append(context)
        context.set_default_timeout(LONG)
        page = context.new_page()
        refused = "status of 400" if refusals else None
        page.on("console", lambda said: None if refused and refused in said.text else wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda asked: None if ours(asked.url, server.link) else wrong.append(asked.url))
        page.goto(server.link + ("#" + address if address else ""))
        if address and wait:
            page.locator("#frame[data-step]").wait_for()
        return page

    yield show
    for context in contexts:
        for page in context.pages:
            page.goto("about:blank")  # as a person leaves a page, so that it makes room for others
        context.close()
    assert not wrong


def ours(url: str, link: str) -> bool:
    return url.startswith((link, f"blob:{link}"))


def at_step(page, step: int):
    page.locator(f"#frame[data-step='{step}']").wait_for()


def settled(page, view: str):
    """What a view shows when its answers have come."""
    wanted = {
        "runs": ".card", "layers": ".tile", "features": ".list .row", "change": "#verdict.beyond, #verdict.within",
        "saliency": ".saliency img", "maze": "#maze[data-maze*='.']", "imagination": ".dreams img",
        "take": "pre:not(:empty)", "feature": ".feature h3, .feature .note", "edit": ".tools input",
    }[view]  # fmt: skip
    page.locator(wanted).first.wait_for()
    page.wait_for_timeout(400)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "scheme"), list(product((1280, 390), ("light", "dark"))))
def test_each_view_passes_axe_and_fits_its_width(opened, view, width, scheme):
    page = opened(VIEWS[view], width, 800 if width == 1280 else 844, scheme)
    settled(page, view)
    tour = (width, scheme) == (1280, "light")
    (TOUR if tour else KEPT).mkdir(exist_ok=True)
    page.screenshot(path=TOUR / f"{view}.png" if tour else KEPT / f"{view}-{width}-{scheme}.png", full_page=not tour)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    assert [(each["id"], [node["html"][:150] for node in each["nodes"]]) for each in found["violations"]] == []


def test_a_run_is_opened_by_a_click_and_the_list_is_gone_back_to(opened):
    page = opened()
    page.locator(".card", has_text=UNLOCK).click()
    page.locator("#frame[data-step='0']").wait_for()
    expect(page.locator("#title")).to_have_text(UNLOCK)
    page.get_by_role("button", name="All runs").click()
    expect(page.locator(".card", has_text=UNLOCK)).to_be_visible()
    page.go_back()
    expect(page.locator("#title")).to_have_text(UNLOCK)


@pytest.mark.parametrize("run", [PACMAN, MAZE, UNLOCK, DREAM, "impala-crafter", "dreamerv3-crafter"])
def test_every_agent_is_played_and_looked_into(opened, run):
    page = opened(f"run={run}&seed=2&parts=20")
    at_step(page, 0)
    page.keyboard.press("ArrowRight")
    at_step(page, 1)
    page.locator(".tile, .list .row").first.click()
    expect(page.locator("h3")).to_contain_text("unit")
    expect(page.locator("#decision .bars li")).not_to_have_count(0)
    page.get_by_role("button", name="Follow along the episode").click()
    expect(page.locator(".chip")).to_contain_text("unit")


def test_the_timeline_scrubs_and_the_address_keeps_the_step(opened):
    page = opened(f"run={PACMAN}&seed=1&parts=200")
    expect(page.locator("#where")).to_contain_text("of 200 ·")
    box = page.locator("#timeline").bounding_box()
    page.mouse.click(box["x"] + 150 + (box["width"] - 158) * 0.5, box["y"] + 20)
    at_step(page, 100)
    page.wait_for_url("**step=100**")
    page.reload()
    at_step(page, 100)


def test_playing_goes_at_the_games_pace_and_stops_at_the_end(opened):
    page = opened(f"run={UNLOCK}&seed=1")
    expect(page.locator("#where")).to_contain_text("of 10 ·")
    page.keyboard.press(" ")
    at_step(page, 10)
    expect(page.locator("#where")).to_contain_text("has ended")
    expect(page.locator("#decision")).to_contain_text("nothing to decide")
    expect(page.locator("#play")).to_have_attribute("aria-pressed", "false")


def test_a_person_takes_over_by_keyboard_and_hands_back(opened):
    page = opened(f"run={MAZE}&seed=7&step=2")
    expect(page.locator("#where")).to_contain_text("of 22 ·")
    page.keyboard.press("t")
    for key, step in (("ArrowRight", 3), ("ArrowRight", 4), ("ArrowLeft", 5)):
        page.keyboard.press(key)
        at_step(page, step)
    page.wait_for_url("**k3.3.2**")
    page.locator("#before").click()
    at_step(page, 4)
    expect(page.locator("#where")).to_contain_text("you: left")
    page.locator("#after").click()
    at_step(page, 5)
    page.keyboard.press("t")
    expect(page.locator("#where")).to_contain_text("agent:")
    expect(page.locator("#where")).not_to_contain_text("so far")
    page.reload()
    page.locator("#frame[data-step]").wait_for()
    assert "k3.3.2" in page.url


def test_a_feature_is_clicked_and_a_place_is_clicked(opened):
    page = opened(f"run={MAZE}&seed=7&step=4&sae=maze-features&tab=features")
    page.locator(".list .row").first.click()
    expect(page.locator(".one")).to_contain_text("fires here at")
    page.get_by_role("button", name="Follow along the episode").click()
    expect(page.locator(".chip")).to_contain_text("feature")
    box = page.locator("#frame").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    expect(page.locator(".list .note")).to_contain_text("at the place that is framed")
    page.get_by_role("button", name="Anywhere in the frame").click()
    expect(page.locator(".list .note")).to_contain_text("in this frame")


def test_a_change_shows_its_effect_beside_controls_and_its_future(opened):
    page = opened(f"run={MAZE}&seed=7&step=2&tab=change")
    page.get_by_label("What to do").select_option("clamp")
    page.locator("#panel").get_by_label("Layer", exact=True).select_option("policy")
    page.get_by_label("Unit, channel").fill("1")
    page.get_by_label("Value", exact=True).fill("50")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#verdict")).to_contain_text("20 random changes of the same size")
    expect(page.locator("#decision .bar.after")).to_have_count(5)
    page.get_by_role("button", name="Show both futures").click()
    expect(page.locator("figcaption", has_text="changed: step")).to_be_visible()
    expect(page.locator("figcaption", has_text="random control: step")).to_be_visible()
    page.screenshot(path=TOUR / "futures.png")
    page.get_by_role("button", name="Remove clamp").click()
    expect(page.locator("#decision .bar.after")).to_have_count(0)


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


@pytest.mark.parametrize("style", ["", "zoom: 1.5", "transform: scale(0.8); transform-origin: 10px 30px"])
@pytest.mark.parametrize("ratio", [1, 2])
def test_a_maze_is_edited_where_the_pointer_is(opened, style, ratio):
    page = opened(f"run={MAZE}&seed=7&tab=maze", width=1600, height=1400, device_scale_factor=ratio)
    settled(page, "maze")
    page.evaluate("style => document.body.style.cssText = style", style)
    before = maze_of(page)
    side, (row, column) = before["side"], before["mouse"]
    free = [(row, column + i) for i in (1, -1) if not before["walls"][25 * row + column + i]]
    free += [(row + i, column) for i in (1, -1) if not before["walls"][25 * (row + i) + column]]
    page.mouse.move(*cell_on_screen(page, row, column, side))
    page.mouse.down()
    page.mouse.move(*cell_on_screen(page, *free[0], side))
    page.mouse.move(5, 5)
    page.mouse.up()  # outside of the canvas
    answered(page)
    moved = maze_of(page)
    assert moved["mouse"] == list(free[0])
    assert moved["walls"] == before["walls"]
    wall = next(
        (row, column)
        for row, column in product(range(12 - side // 2, 13 + side // 2), repeat=2)
        if before["walls"][25 * row + column]
    )
    page.mouse.click(*cell_on_screen(page, *wall, side))
    answered(page)
    assert not maze_of(page)["walls"][25 * wall[0] + wall[1]]
    for _ in range(2):
        page.get_by_role("button", name="Undo").click()
        answered(page)
    assert maze_of(page) == before


def test_an_edited_maze_is_played_and_one_without_a_way_is_said(opened):
    page = opened(f"run={MAZE}&seed=7&tab=maze", refusals=True)
    settled(page, "maze")
    maze = maze_of(page)
    row, column = maze["cheese"]
    beside = [(row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)]
    around = [(row, column) for row, column in beside if not maze["walls"][25 * row + column]]
    for cell in around:
        page.mouse.click(*cell_on_screen(page, *cell, maze["side"]))
    expect(page.locator("#said.wrong")).to_contain_text("has no way from its mouse")
    page.get_by_role("button", name="Undo").click()
    answered(page)
    page.get_by_role("button", name="Play from here").click()
    page.locator("#play[aria-pressed=true]").wait_for()
    page.wait_for_url("**maze=**")


def test_the_habit_of_going_to_the_corner_is_found_by_dragging_the_cheese(opened, home):
    page = opened(f"run={MAZE}&seed=7&tab=maze")
    settled(page, "maze")
    shown = maze_from_text(page.locator("#maze").get_attribute("data-maze"))
    low = [cell for cell in np.argwhere(shown.distances(shown.mouse)[0] > 0) if cell[0] > 14]
    aside = next(cell for cell in low if (shown.edit(cheese=cell).decision >= 0).all())
    side = int(shown.side[0])
    page.mouse.move(*cell_on_screen(page, *shown.cheese[0], side))
    page.mouse.down()
    page.mouse.move(*cell_on_screen(page, *aside, side))
    page.mouse.up()
    moved = maze_text(shown.edit(cheese=aside))
    page.locator(f"#maze[data-maze='{moved}']").wait_for()
    page.screenshot(path=TOUR / "corner.png")
    to_cheese, to_corner = choices(load_agent(home / "runs" / MAZE, device="cpu").agent, maze_from_text(moved))
    assert to_corner[0] > to_cheese[0]


def test_a_feature_has_a_page_and_a_name_that_is_shown_everywhere(opened, home):
    page = opened(f"run={PACMAN}&seed=1&step=80&sae=pacman-features&tab=features")
    page.locator(".list .row").first.click()
    page.get_by_role("button", name="All about it").click()
    expect(page.locator(".peak").first).to_be_visible()
    expect(page.locator(".feature")).to_contain_text("What it tells")
    expect(page.locator(".feature")).to_contain_text("a random direction of the same size")
    page.get_by_label("name", exact=True).fill("<b>ghost</b> to the left")
    page.get_by_label("note", exact=True).fill("seen beside walls")
    page.get_by_role("button", name="Save name and note").click()
    expect(page.locator(".list .row").first).to_contain_text("<b>ghost</b> to the left")
    page.get_by_role("button", name="Follow along the episode").click()
    expect(page.locator(".chip")).to_contain_text("<b>ghost</b> to the left")
    assert "<b>ghost</b> to the left" in (home / "runs" / "pacman-features" / "names.json").read_text()
    page.locator(".peak").first.click()
    expect(page.locator("#where")).to_contain_text("you:")
    page.reload()
    expect(page.get_by_label("note", exact=True)).to_have_value("seen beside walls")


def place_on_screen(page, x: float, y: float, of: tuple[float, float]):
    """Where a share of the frame's width and height lies in the window."""
    box = page.locator("#frame").bounding_box()
    return box["x"] + box["width"] * x / of[0], box["y"] + box["height"] * y / of[1]


@pytest.mark.parametrize("style", ["", "zoom: 1.5", "transform: scale(0.8); transform-origin: 10px 30px"])
def test_a_grid_is_edited_by_dragging_and_clicking_and_played_on(opened, style):
    page = opened(f"run={UNLOCK}&seed=1&step=3&tab=edit", height=1400, width=1600)
    page.locator(".tools input").first.wait_for()
    page.evaluate("style => document.body.style.cssText = style", style)
    size = page.evaluate("[explorer.active.shown.grid.columns, explorer.active.shown.grid.rows]")
    things = {each["name"]: each for each in page.evaluate("explorer.active.shown.things")}
    key = next(name for name in things if name.endswith("key"))
    taken = {each["key"] for each in things.values()}
    free = [(x, y) for x in range(1, 4) for y in range(1, size[1] - 1) if f"{x},{y}" not in taken]

    def centre(cell):
        return place_on_screen(page, cell[0] + 0.5, cell[1] + 0.5, size)

    page.mouse.move(*centre([int(each) for each in things[key]["key"].split(",")]))
    page.mouse.down()
    page.mouse.move(*centre(free[0]))
    page.mouse.up()
    moved = f"move:{things[key]['key']}:{free[0][0]},{free[0][1]}"
    expect(page.locator(".changes li")).to_have_text([moved])
    page.get_by_label("take away").check()
    page.mouse.click(*centre(free[0]))
    expect(page.locator(".changes li")).to_have_text([moved, f"remove:{free[0][0]},{free[0][1]}"])
    assert key not in {each["name"] for each in page.evaluate("explorer.active.shown.things")}
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".changes li")).to_have_text([moved])
    page.wait_for_url("**%40move**")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".changes li")).to_have_count(0)
    page.get_by_role("button", name="Play on from here").click()
    page.locator("#frame:not([data-step='3'])").wait_for()


def test_crafter_and_ms_pacman_are_edited(opened):
    page = opened("run=impala-crafter&seed=2&parts=20&step=5&tab=edit")
    page.get_by_label("wood", exact=True).fill("7")
    page.get_by_label("wood", exact=True).press("Enter")
    expect(page.locator(".changes li")).to_have_text(["item:wood:7"])
    page = opened(f"run={PACMAN}&seed=1&parts=200&step=90&tab=edit")
    expect(page.locator("#panel")).to_contain_text("written into the console's RAM")
    x, y = page.evaluate("explorer.active.shown.things.map(each => [each.x, each.y])[0]")
    page.mouse.move(*place_on_screen(page, x, y, (160, 210)))
    page.mouse.down()
    page.mouse.move(*place_on_screen(page, 80, 60, (160, 210)))
    page.mouse.up()
    expect(page.locator(".changes li")).to_have_count(1)
    expect(page.locator("#where")).to_contain_text("step 90 of")


def test_two_tabs_do_not_disturb_each_other_and_slow_work_blocks_nobody(opened):
    slow = opened("run=dreamerv3-crafter&seed=1&parts=30&step=2&tab=saliency&method=integrated-gradients")
    other = opened(f"run={UNLOCK}&seed=1&step=3")
    for step in (4, 5, 6):
        other.keyboard.press("ArrowRight")
        at_step(other, step)
    expect(slow.locator("#title")).to_have_text("dreamerv3-crafter")
    assert "step=2" in slow.url


def test_a_server_that_is_started_again_is_found_again(opened, server, chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 800})  # where refused connections are expected
    page = context.new_page()
    page.set_default_timeout(LONG)
    page.goto(f"{server.link}#run={UNLOCK}&seed=1&step=3")
    at_step(page, 3)
    server.kill()
    page.keyboard.press("7")
    page.get_by_role("tab", name="Saliency").click()
    expect(page.locator("#said")).to_contain_text("start rl-interp explore again", timeout=60_000)
    server.start()
    page.keyboard.press("ArrowRight")
    at_step(page, 4)
    expect(page.locator(".saliency img")).to_be_visible(timeout=60_000)
    context.close()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("run=no-such-run", "unknown run 'no-such-run'"),
        (f"run={UNLOCK}&sae=pacman-features", "is a dictionary of"),
        (f"run={UNLOCK}&sae={MAZE}", "sae fit"),
        (f"run={UNLOCK}&tab=saliency&target=nonsense", "unknown saliency target 'nonsense'"),
        (f"run={MAZE}&maze=nonsense", "maze 'nonsense' given"),
        (f"run={UNLOCK}&changes=clamp:nowhere:1=2", "unknown hook point 'nowhere'"),
    ],
)
def test_bad_input_is_a_sentence_in_the_page(chromium, server, address, sentence):
    context = chromium.new_context()  # in whose console a refused answer is noted
    page = context.new_page()
    page.set_default_timeout(LONG)
    page.goto(f"{server.link}#{address}")
    expect(page.locator("#said.wrong")).to_contain_text(sentence, timeout=LONG)
    context.close()


def test_the_help_sheet_opens_and_closes_by_keyboard(opened):
    page = opened(f"run={UNLOCK}&seed=1")
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_contain_text("play and stop")
    page.screenshot(path=TOUR / "help.png")
    page.evaluate(AXE.read_text())
    assert page.evaluate("axe.run(document.querySelector('dialog'))")["violations"] == []
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()


def test_what_is_taken_away_runs_as_it_is_shown(opened, home):
    page = opened(f"run={MAZE}&seed=7&step=4&tab=maze")
    settled(page, "maze")
    page.get_by_role("tab", name="Take away").click()
    python = page.locator("pre:not(:empty)").first.text_content()
    assert "vector_field" in python
    ran = subprocess.run([sys.executable, "-c", python], cwd=home, capture_output=True, text=True, env=os.environ)
    assert ran.returncode == 0, ran.stderr
    with page.expect_download() as download:
        page.get_by_role("button", name="Frame as PNG").click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    link = page.locator("#link").input_value()
    again = opened(link.partition("#")[2])
    expect(again.locator("#title")).to_have_text(MAZE)
