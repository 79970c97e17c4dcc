"""The explorer when people are quicker than its answers, or these fail, in a real browser; as `explorer.py`."""

from explorer_pages import MAZE, UNLOCK, Held, settled
from playwright.sync_api import expect

LAST_TRACK = "explorer.timeline.drawn.rows.at(-1)"


def choose_episode(page, seed: int):
    page.locator("#seed").fill(str(seed))
    page.locator("#seed").press("Enter")


def test_a_track_is_drawn_for_its_own_episode_alone(opened):
    page = opened(f"run={UNLOCK}&seed=1&tracks=unit:fc.post:3")
    page.wait_for_function(f"() => {LAST_TRACK}.known")
    asked = Held(page, "track")
    choose_episode(page, 2)
    asked.wait(1)
    assert page.evaluate("explorer.episode.seed") == 2
    assert not page.evaluate(f"{LAST_TRACK}.known")
    asked.let_go()
    page.wait_for_function(f"() => {LAST_TRACK}.known")


def test_tracks_may_be_added_one_while_another_is_computed_and_one_that_fails_says_so(opened):
    page = opened(f"run={UNLOCK}&seed=1", refusals=True)
    expect(page.locator("#where")).to_contain_text("of 10 ·")
    asked = Held(page, "track")
    for unit in (1, 2):
        page.evaluate("unit => explorer.timeline.add(`unit:fc.post:${unit}`)", unit)
        asked.wait(unit)
    page.wait_for_timeout(200)
    expect(page.locator("#said")).to_have_text("")
    asked.let_go()
    page.wait_for_function(f"() => {LAST_TRACK}.known")
    page.evaluate("explorer.timeline.add('unit:fc.post:99999')")
    expect(page.locator("#said.wrong")).to_contain_text("there are 0 to")
    assert "there are 0 to" in page.evaluate("explorer.timeline.rows().at(-1).failed")
    assert page.evaluate(f"{LAST_TRACK}.waits") == ""


def test_another_episode_brings_its_own_maze(opened):
    page = opened(f"run={MAZE}&seed=7&tab=maze")
    settled(page, "maze")
    first, maze = page.locator("#maze").get_attribute("data-maze"), page.locator("#maze")
    choose_episode(page, 8)
    expect(maze).not_to_have_attribute("data-maze", first)
    page.get_by_role("tab", name="Layers").click()
    choose_episode(page, 7)
    page.wait_for_function("() => explorer.episode.seed === 7")
    page.get_by_role("tab", name="Maze").click()
    expect(maze).to_have_attribute("data-maze", first)
    expect(page.locator("#said")).to_have_text("")
