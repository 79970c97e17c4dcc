"""A Sokoban agent's plan and boards in the explorer, in a real browser; as `explorer.py`."""

import re

from explorer_pages import AXE, SOKOBAN, at_step, place_on_screen, settled
from playwright.sync_api import expect

FRAME = "explorer.stage.canvas.toDataURL()"


def test_a_plan_is_drawn_by_tick_and_the_address_keeps_which(opened):
    page = opened(f"run={SOKOBAN}&seed=3&step=1")
    page.locator(".tile").first.wait_for()
    bare = page.evaluate(FRAME)
    page.get_by_role("tab", name="Plan").click()
    settled(page, "plan")
    drawn = page.evaluate(FRAME)
    assert drawn != bare
    expect(page.get_by_role("button", name=re.compile("^tick 2: "))).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".plan")).to_contain_text("tick 2 of 2")
    page.keyboard.press(",")
    expect(page.get_by_role("button", name=re.compile("^tick 1: "))).to_have_attribute("aria-pressed", "true")
    page.wait_for_url("**tick=0**")
    page.wait_for_function(f"before => {FRAME} !== before", arg=drawn)
    first = page.evaluate(FRAME)
    page.reload()
    settled(page, "plan")
    page.wait_for_function(f"before => {FRAME} === before", arg=first)
    page.get_by_role("button", name=re.compile("^tick 2: ")).press("Enter")
    page.wait_for_function(f"before => {FRAME} === before", arg=drawn)
    expect(page.get_by_role("button", name=re.compile("^tick 2: "))).to_be_focused()
    page.get_by_label("Arrows").select_option("box")
    page.wait_for_function(f"before => {FRAME} !== before", arg=drawn)
    expect(page.locator(".plan table tr")).to_have_count(2)
    page.get_by_role("tab", name="Layers").click()
    page.wait_for_function(f"before => {FRAME} === before", arg=bare)


def test_a_plan_follows_play_further_looks_and_changes(opened):
    page = opened(f"run={SOKOBAN}&seed=3&tab=plan&slow=1")
    settled(page, "plan")
    shown = "[explorer.active.found.step, explorer.active.at]"
    page.evaluate("""window.seen = []; setInterval(() => {
        const {found, at} = explorer.active, now = found.ended ? `${found.step}` : `${found.step}.${at}`;
        if (seen.at(-1) !== now) seen.push(now);
    }, 5)""")
    page.keyboard.press(",")
    page.keyboard.press(" ")
    expect(page.locator(".plan")).to_contain_text("The episode has ended")
    seen = page.evaluate("seen.filter(each => each.includes('.'))")
    assert [each for i, each in enumerate(seen) if each not in seen[:i]][-4:] == ["3.0", "3.1", "4.0", "4.1"]
    page.locator("#first").click()
    page.get_by_label("further looks").fill("2")
    page.get_by_label("further looks").press("Enter")
    expect(page.locator(".plan button.tile")).to_have_count(6)
    expect(page.locator(".plan")).to_contain_text("After 2 further looks it would go")
    assert page.evaluate(shown) == [0, 5]
    page.get_by_role("button", name="Think, then play on").click()
    page.wait_for_url("**300%3B2**")
    expect(page.locator(".plan")).to_contain_text("The episode has ended")
    page.locator("#first").click()
    expect(page.locator("#where")).to_contain_text("agent, after 2 further looks: ")
    expect(page.get_by_label("further looks")).to_have_value("0")
    page.get_by_label("further looks").fill("1")
    page.get_by_label("further looks").press("Enter")
    page.evaluate("import('/static/state.js').then(m => m.set({changes: ['ablate:layer2.c:3']}))")
    expect(page.locator(".plan button.tile")).to_have_count(8)
    expect(page.locator(".plan")).to_contain_text("20 random changes of the same size")
    page.locator(".plan h3", has_text="as it is").locator("xpath=..").locator("button").first.click()
    page.wait_for_url("**unchanged=1**")
    assert page.evaluate("explorer.active.unchanged")
    page.evaluate(AXE.read_text())
    assert page.evaluate("axe.run(document.querySelector('.plan'))")["violations"] == []


def test_a_plan_that_is_not_probed_yet_is_said_with_the_command(opened):
    page = opened("run=impala-sokoban-boxoban&seed=3&tab=plan")
    expect(page.locator("#panel")).to_contain_text("run `rl-interp sokoban probe")
    expect(page.locator("#said")).to_have_text("")


def test_a_board_of_sokoban_is_edited_and_the_plan_follows(opened):
    page = opened(f"run={SOKOBAN}&seed=3&tab=edit", height=1400, width=1600, refusals=True)
    page.locator(".tools input").first.wait_for()
    things = {each["name"]: each["key"] for each in page.evaluate("explorer.active.shown.things")}
    column, row = map(int, things["player"].split(","))

    def centre(column, row):
        return place_on_screen(page, column + 0.5, row + 0.5, (7, 7))

    assert (things["box"], things["target"]) == ("4,4", "4,2")
    page.mouse.move(*centre(column, row))
    page.mouse.down()
    page.mouse.move(*centre(4, 5))
    page.mouse.up()
    expect(page.locator(".changes li")).to_have_text([f"move:{column},{row}:4,5"])
    page.get_by_label("put up a wall").check()
    page.mouse.click(*centre(4, 4))
    expect(page.locator("#said.wrong")).to_contain_text("there is a box; choose free floor")
    page.mouse.click(*centre(4, 3))
    expect(page.locator("#panel")).to_contain_text("No play solves this board")
    page.get_by_role("tab", name="Plan").click()
    settled(page, "plan")
    page.wait_for_url("**wall%253A4%252C3**")
    page.keyboard.press("t")
    page.keyboard.press("ArrowLeft")
    at_step(page, 1)
    page.wait_for_url("**k2**wall%253A4%252C3**")  # the edit stays when somebody plays on from its frame
    page.locator("#first").click()
    at_step(page, 0)
    page.get_by_role("tab", name="Edit").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#panel")).not_to_contain_text("No play solves this board")
