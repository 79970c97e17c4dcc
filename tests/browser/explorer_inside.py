"""What is looked at, changed and edited in the explorer, in a real browser; as `explorer.py`."""

import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from explorer_pages import (
    MAZE,
    PACMAN,
    TOUR,
    UNLOCK,
    VIEWS,
    answered,
    cell_on_screen,
    maze_of,
    place_on_screen,
    settled,
)
from playwright.sync_api import expect

from rl_interp.agents.load import load_agent
from rl_interp.analysis.mazes.choices import choices
from rl_interp.core.envs.maze.text import maze_from_text, maze_text


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
    page.locator("figcaption").last.scroll_into_view_if_needed()
    page.screenshot(path=TOUR / "futures.png")
    page.get_by_role("button", name="Remove clamp").click()
    expect(page.locator("#decision .bar.after")).to_have_count(0)


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


def test_a_feature_of_ms_pacman_is_found_by_clicking(opened):
    page = opened(f"run={PACMAN}&seed=1&parts=400&sae=pacman-features&tab=features&whole=1")
    expect(page.locator("#where")).to_contain_text("of 400 ·")
    page.locator("#track").select_option("concept:power_pill_near")
    while not page.evaluate("explorer.timeline.found.has('concept:power_pill_near')"):
        page.wait_for_timeout(100)
    near = page.evaluate(
        "[...explorer.timeline.found.get('concept:power_pill_near')].flatMap((is, i) => is ? [i] : [])"
    )
    seen = set()
    for step in near[::4]:
        page.evaluate("step => explorer.stage.go(step)", step)
        page.wait_for_function("step => explorer.active.found && explorer.stage.canvas.dataset.step == step", arg=step)
        for row in page.locator(".list button.row").all():
            if (name := row.locator(".name").text_content()) in seen:
                continue
            seen.add(name)
            row.click()
            page.locator(".feature .peak, .feature:has-text('in none of the recorded')").first.wait_for()
            told = page.locator(".feature tr").nth(1)
            if told.count() and re.search(r"power pill near(\d+)%", told.text_content()):
                share = int(re.search(r"near(\d+)%", told.text_content())[1])
                if share >= 70:
                    page.get_by_role("button", name="Follow along the episode").click()
                    told.scroll_into_view_if_needed()
                    page.wait_for_timeout(1000)
                    page.screenshot(path=TOUR / "pill.png")
                    return
    raise AssertionError(f"none of {sorted(seen)} tells that a power pill is near")


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
    expect(page.locator(".list button.row").first).to_contain_text("<b>ghost</b> to the left")
    page.get_by_role("button", name="Follow along the episode").click()
    expect(page.locator(".chip")).to_contain_text("<b>ghost</b> to the left")
    assert "<b>ghost</b> to the left" in (home / "runs" / "pacman-features" / "names.json").read_text()
    page.locator(".peak").first.click()
    expect(page.locator("#where")).to_contain_text("you:")
    page.reload()
    expect(page.get_by_label("note", exact=True)).to_have_value("seen beside walls")


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


def test_a_cluster_is_lit_on_the_frame_and_on_the_plot_and_keeps_its_name(opened):
    page = opened(VIEWS["clusters"].partition("&beside")[0])
    settled(page, "clusters")
    box = page.locator("#frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    lit = page.evaluate("explorer.active.lit")
    assert lit is not None
    expect(page.locator(".clusters .lit")).to_have_count(1)
    assert lit in page.evaluate("explorer.active.found.layers[0].assigned")
    dark = page.evaluate("explorer.active.scatter.toDataURL()")
    page.mouse.move(5, 5)
    expect(page.locator(".clusters .lit")).to_have_count(0)
    assert page.evaluate("explorer.active.scatter.toDataURL()") != dark
    page.get_by_label("name of cluster 0").fill("walls")
    page.get_by_label("name of cluster 0").press("Enter")
    page.wait_for_url("**named=**")
    page.reload()
    expect(page.get_by_label("name of cluster 0")).to_have_value("walls")
    scatter = page.locator(".scatter").bounding_box()
    x, y = page.evaluate("explorer.active.place(...explorer.active.found.points.slice(0, 2))")
    page.mouse.move(scatter["x"] + x * scatter["width"] / 320, scatter["y"] + y * scatter["height"] / 320)
    assert page.evaluate("explorer.active.lit") == page.evaluate("explorer.active.found.layers[0].assigned[0]")


def test_a_cluster_is_lit_in_all_layers_that_are_shown(opened):
    page = opened(VIEWS["clusters"].partition("&beside")[0])
    settled(page, "clusters")
    other = page.get_by_label("Another layer beside it")
    for at in ("block1.res1.sum", "block3.res2.sum"):
        other.select_option(at)
        page.get_by_label(f"clusters of {at}").wait_for()
    page.wait_for_url("**beside=block1.res1.sum&beside=block3.res2.sum**")
    dark = [page.evaluate(f"{canvas}.toDataURL()") for canvas in SHOWN]
    page.get_by_label("clusters of block1.res1.sum").hover()
    page.locator(".clusters .lit").wait_for()
    assert page.evaluate("explorer.active.found.layers[1].assigned.includes(explorer.active.lit)")
    page.wait_for_timeout(300)
    lit = [page.evaluate(f"{canvas}.toDataURL()") for canvas in SHOWN]
    assert all(one != two for one, two in zip(dark, lit, strict=True))
    expect(page.locator(".beside figcaption").first).to_contain_text("of places shared")
    page.get_by_role("button", name="take block1.res1.sum away").click()
    expect(page.locator(".beside figure")).to_have_count(1)


SHOWN = ["explorer.stage.canvas", "document.querySelectorAll('.beside canvas')[0]"]
SHOWN += ["document.querySelectorAll('.beside canvas')[1]", "explorer.active.scatter"]


def test_a_layer_is_patched_from_another_step(opened):
    page = opened(f"run={UNLOCK}&seed=1&step=5&tab=change")
    page.get_by_label("What to do").select_option("patch")
    page.locator("#panel").get_by_label("Layer", exact=True).select_option("fc.post")
    page.get_by_label("Value", exact=True).fill("0")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".changes li")).to_contain_text("patch:fc.post=0")
    expect(page.locator("#verdict")).to_contain_text("20 random changes of the same size")


def test_a_place_is_followed_by_saliency_along_the_episode(opened):
    page = opened(f"run={UNLOCK}&seed=1&step=3&tab=saliency&parts=8")
    expect(page.locator(".saliency img")).to_be_visible()
    page.get_by_role("button", name="Follow a place along the episode").click()
    top, left, bottom, right, _ = page.evaluate("explorer.episode.observed[3]")
    size = page.evaluate(
        "[explorer.stage.canvas.width / explorer.stage.scale, explorer.stage.canvas.height / explorer.stage.scale]"
    )
    page.mouse.click(*place_on_screen(page, (left + right) / 2, (top + bottom) / 2, size))
    expect(page.locator(".chip")).to_contain_text(re.compile(r"advantage at 0\.(49|50)"))
    page.wait_for_function("() => [...explorer.timeline.found.keys()].some(each => each.startsWith('saliency:'))")


def test_the_page_and_the_episode_are_taken_away(opened, chromium, tmp_path):
    page = opened(f"run={UNLOCK}&seed=1&step=3&point=conv2.post&unit=3&parts=8")
    page.locator(".tile").first.wait_for()
    page.get_by_role("tab", name="Take away").click()
    page.locator("pre:not(:empty)").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Episode as MP4").click()
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"
    with page.expect_download() as download:
        page.get_by_role("button", name="Page as one HTML file").click()
    kept = tmp_path / "kept.html"
    download.value.save_as(kept)
    context, asked = chromium.new_context(), []
    alone = context.new_page()
    alone.on("request", lambda request: asked.append(request.url))
    alone.on("console", lambda said: asked.append(said.text))
    alone.goto(kept.as_uri())
    expect(alone.locator("#where")).to_contain_text("step 3 of 8")
    expect(alone.locator(".tile.chosen")).to_have_count(1)
    assert alone.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert [each for each in asked if not each.startswith(("file:", "data:"))] == []
    context.close()


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
