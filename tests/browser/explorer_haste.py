"""The explorer when people are quicker than its answers, or these fail, in a real browser; as `explorer.py`."""

from explorer_pages import MAZE, PACMAN, UNLOCK, Held, at_step, place_on_screen, settled
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


def test_a_run_that_is_left_while_it_opens_stays_left_and_going_back_opens_it_once(opened):
    page = opened()
    asked = Held(page, "open")
    page.locator(".card", has_text=UNLOCK).click()
    asked.wait(1)
    page.get_by_role("button", name="All runs").click()
    asked.let_go()
    expect(page.locator(".card", has_text=UNLOCK)).to_be_visible()
    page.wait_for_timeout(500)
    expect(page.locator("#stage")).to_have_count(0)
    opens = []
    page.on("request", lambda request: opens.append(request.url) if request.url.endswith("/open") else None)
    page.go_back()
    page.locator("#frame[data-step='0']").wait_for()
    assert len(opens) == 1


def test_the_episode_chosen_last_is_shown_whichever_answer_comes_first(opened):
    page = opened(f"run={UNLOCK}&seed=1")
    expect(page.locator("#where")).to_contain_text("of 10 ·")
    asked = Held(page, "episode")
    choose_episode(page, 2)
    asked.wait(1)
    choose_episode(page, 3)
    asked.wait(2)
    late = asked.pop(0)
    asked.let_go()
    page.wait_for_function("() => explorer.episode.seed === 3 && explorer.episode.whole")
    late.continue_()
    page.wait_for_timeout(500)
    assert page.evaluate("explorer.episode.seed") == 3


def test_a_recording_that_is_left_does_not_change_what_is_opened_next(opened):
    page = opened(f"run={PACMAN}&seed=1&parts=4000")
    asked = Held(page, "episode")
    asked.wait(1)
    page.evaluate("address => { location.hash = address; }", f"run={UNLOCK}&seed=1&parts=7")
    expect(page.locator("#title")).to_have_text(UNLOCK)
    asked.let_go()
    expect(page.locator("#where")).to_contain_text("of 7 ·")


def test_what_waits_when_a_run_is_left_is_not_done(opened):
    page = opened(f"run={UNLOCK}&seed=1&step=3")
    expect(page.locator("#where")).to_contain_text("of 10 ·")
    asked = Held(page, "episode")
    page.keyboard.press("t")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    asked.wait(1)
    page.get_by_role("button", name="All runs").click()
    asked.let_go()
    page.wait_for_timeout(1500)
    assert "parts" not in page.url


def test_quick_edits_add_up_and_a_drag_is_undone_at_once(opened):
    page = opened(f"run={UNLOCK}&seed=1&step=3&tab=edit", height=1400, width=1600, refusals=True)
    page.locator(".tools input").first.wait_for()
    size = page.evaluate("[explorer.active.shown.grid.columns, explorer.active.shown.grid.rows]")
    taken = page.evaluate("explorer.active.shown.things.map(each => each.key)")
    free = [(x, y) for x in range(1, 4) for y in range(1, size[1] - 1) if f"{x},{y}" not in taken]

    def centre(cell):
        return place_on_screen(page, cell[0] + 0.5, cell[1] + 0.5, size)

    page.get_by_label("place", exact=True).check()
    for cell in free[:2]:
        page.mouse.click(*centre(cell))
    expect(page.locator(".changes li")).to_have_count(2)
    page.locator(".tools input").first.check()
    page.mouse.move(*centre(free[0]))
    page.mouse.down()
    for cell in free[2:6]:
        page.mouse.move(*centre(cell))
    page.mouse.up()
    moved = "move:{},{}:{},{}".format(*free[0], *free[5])
    expect(page.locator(".changes li").last).to_have_text(moved)
    page.wait_for_timeout(1500)
    assert page.evaluate("explorer.active.undone.length") == 3
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".changes li")).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".changes li")).to_have_count(1)


def test_a_features_page_waits_for_the_feature_chosen_last_and_keeps_what_is_typed(opened):
    page = opened(f"run={PACMAN}&seed=1&step=80&sae=pacman-features&tab=features&whole=1")
    rows = page.locator(".list button.row")
    rows.first.wait_for()
    asked = Held(page, "described")
    rows.nth(0).click()
    asked.wait(1)
    rows.nth(1).click()
    asked.wait(2)
    page.get_by_label("name", exact=True).fill("half a na")
    page.wait_for_timeout(200)
    expect(page.locator(".feature")).to_contain_text("Looking through the recorded episodes")
    asked.let_go()
    page.keyboard.press("Escape")
    page.locator("#after").click()
    at_step(page, 81)
    page.locator(".feature .peak, .feature:has-text('in none of the recorded')").first.wait_for()
    expect(page.get_by_label("name", exact=True)).to_have_value("half a na")


def test_a_change_that_cannot_be_made_takes_the_last_ones_effect_away(opened):
    page = opened(f"run={MAZE}&seed=7&step=2&tab=change&changes=ablate:policy:1", refusals=True)
    expect(page.locator("#decision .bar.after")).to_have_count(5)
    page.get_by_label("Unit, channel").fill("77")
    page.locator("#panel").get_by_label("Layer", exact=True).select_option("policy")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#said.wrong")).to_contain_text("77")
    expect(page.locator("#verdict")).to_contain_text("can't be made")
    expect(page.locator("#decision .bar.after")).to_have_count(0)
    page.get_by_role("button", name="Remove clamp:policy:77").click()
    expect(page.locator("#decision .bar.after")).to_have_count(5)
    expect(page.locator("#said")).to_have_text("")
