"""The explorer in a real browser, on the reference runs: `make test-browser`.

Nothing may go wrong meanwhile: no error in the console, no request to another host. Each view must pass axe-core (WCAG
A and AA), at both widths, light and dark. Pictures of the tour go to docs/explorer/, the others to .browser/.
"""

from itertools import product

import pytest
from explorer_pages import (
    AXE,
    DREAM,
    KEPT,
    LONG,
    MAZE,
    PACMAN,
    ROOT,
    SOKOBAN,
    TOUR,
    UNLOCK,
    VIEWS,
    WAYS,
    at_step,
    settled,
)
from playwright.sync_api import expect


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("width", "scheme"), list(product((1280, 390), ("light", "dark"))))
def test_each_view_passes_axe_and_fits_its_width(opened, view, width, scheme):
    page = opened(VIEWS[view], width, 800 if width == 1280 else 844, scheme)
    settled(page, view)
    tour = (width, scheme) == (1280, "light") and f"explorer/{view}.png" in (ROOT / "docs/explorer.md").read_text()
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


def test_the_card_of_a_run_says_what_can_be_done_with_it(opened):
    page = opened()
    words = {"editable": "edit states", "plan": "plan", "maze": "edit mazes"}
    for run in (PACMAN, MAZE, UNLOCK, SOKOBAN, WAYS, "impala-crafter"):
        card = page.locator(".card").filter(has=page.get_by_text(run, exact=True)).locator(".soft").first
        info = page.evaluate("run => import('/static/server.js').then(m => m.ask('open', {run}))", run)
        can = card.inner_text().split(" · ")
        assert [name for name, word in words.items() if word in can] == [name for name in words if info[name]]


@pytest.mark.parametrize("run", [PACMAN, MAZE, UNLOCK, DREAM, SOKOBAN, "impala-crafter", "dreamerv3-crafter"])
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


def test_a_button_that_has_the_focus_keeps_its_keys_and_the_focus(opened):
    page = opened(f"run={UNLOCK}&seed=1&step=3&point=fc.post")
    row = page.get_by_role("button", name="unit 5", exact=True)
    row.press("Enter")
    expect(row).to_have_attribute("aria-pressed", "true")
    expect(row).to_be_focused()
    page.get_by_role("button", name="Take over").press("Enter")
    expect(page.locator("#frame")).to_be_focused()
    toggle = page.locator("#decision .bars button", has_text="toggle")
    toggle.press("Enter")
    at_step(page, 4)
    expect(toggle).to_be_focused()
    page.keyboard.press("Enter")
    at_step(page, 5)
    done = page.evaluate("explorer.episode.actions.slice(3, 5).map(each => explorer.info.actions[each])")
    assert done == ["toggle", "toggle"]


def test_a_features_button_keeps_the_focus(opened):
    page = opened(f"run={PACMAN}&seed=1&step=80&sae=pacman-features&tab=features")
    row = page.locator(".list button.row").first
    row.press("Enter")
    expect(row).to_have_attribute("aria-pressed", "true")
    expect(row).to_be_focused()
    page.get_by_role("button", name="All about it").press("Enter")
    expect(page.locator(".feature")).to_be_visible()
    expect(page.get_by_role("button", name="All about it")).to_be_focused()


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
