"""What the explorer keeps in links, reloads and pages that are taken away, in a real browser; as `explorer.py`."""

import re

import pytest
from explorer_pages import MAZE, PACMAN, UNLOCK, VIEWS, at_step, settled
from playwright.sync_api import expect

FRAME = "explorer.stage.canvas.toDataURL()"
CHANGED = f"run={MAZE}&seed=7&step=2&tab=change&changes=ablate:policy:1"


def test_futures_are_shown_by_a_link_and_end_with_their_episode(opened):
    page = opened(f"{CHANGED}&fork=2")
    expect(page.locator(".futures figure")).to_have_count(3)
    expect(page.locator("figcaption", has_text="changed: step")).to_be_visible()
    page.locator("#before").click()
    at_step(page, 1)
    page.get_by_role("button", name="Play on").click()
    expect(page.get_by_role("button", name="Show both futures from this frame")).to_be_visible()
    expect(page.locator(".futures figure")).to_have_count(0)
    page.wait_for_function("() => !location.hash.includes('fork')")


def test_futures_that_an_episode_does_not_reach_are_closed(opened):
    page = opened(f"{CHANGED}&fork=500")
    expect(page.get_by_role("button", name="Show both futures from this frame")).to_be_visible()


def test_the_link_the_frame_and_the_page_are_of_the_tab_before(opened, chromium, tmp_path):
    page = opened(f"run={UNLOCK}&seed=1&step=3&point=conv2.post&unit=3&parts=8")
    page.locator(".tile").first.wait_for()
    page.wait_for_function("() => explorer.stage.overlay && explorer.active.held.step === 3")
    page.wait_for_timeout(500)
    laid = page.evaluate(FRAME)
    page.get_by_role("tab", name="Take away").click()
    page.locator("pre:not(:empty)").first.wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate(FRAME) == laid
    with page.expect_download() as download:
        page.get_by_role("button", name="Page as one HTML file").click()
    expect(page.get_by_role("button", name="Page as one HTML file")).to_be_focused()
    expect(page.get_by_role("tab", name="Take away")).to_have_attribute("aria-selected", "true")
    download.value.save_as(tmp_path / "kept.html")
    context = chromium.new_context()
    alone = context.new_page()
    alone.goto((tmp_path / "kept.html").as_uri())
    assert alone.locator("#frame").get_attribute("src") == laid
    expect(alone.locator("[role=tab][aria-selected=true]")).to_have_text("Layers")
    shown = "node => [getComputedStyle(node).imageRendering, getComputedStyle(node.parentNode).opacity]"
    assert alone.locator(".tile img").first.evaluate(shown) == ["pixelated", "1"]
    assert "tab=take" not in alone.locator("main").inner_text()
    context.close()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => explorer.panels.get('layer').held.step === 4")
    page.wait_for_timeout(300)
    page.locator("#track").select_option(index=1)
    expect(page.locator("#link")).to_have_value(re.compile(r"step=4.*tracks=concept"))
    on = page.evaluate(FRAME)
    page.get_by_role("tab", name="Layers").click()
    page.wait_for_timeout(500)
    assert page.evaluate(FRAME) == on


@pytest.mark.parametrize("view", ["clusters", "saliency"])
def test_a_link_opens_the_tab_that_was_looked_at(opened, view):
    page = opened(VIEWS[view])
    settled(page, view)
    page.get_by_role("tab", name="Take away").click()
    expect(page.locator("#link")).to_have_value(re.compile(f"tab={view}"))


def test_every_seed_that_the_box_allows_is_kept_in_the_address(opened):
    page = opened(f"run={UNLOCK}&seed=1073741823&parts=2")
    assert page.evaluate("explorer.episode.seed") == 1073741823
    expect(page.locator("#seed")).to_have_value("1073741823")


def test_a_clusters_name_is_of_its_layer_count_and_episode(opened):
    page = opened(VIEWS["clusters"].partition("&beside")[0])
    settled(page, "clusters")
    name, layer = page.get_by_label("name of cluster 0"), page.locator("#panel").get_by_label("Layer", exact=True)
    name.fill("walls of the maze")
    name.press("Enter")
    layer.select_option("block1.res1.sum")
    expect(name).to_have_value("")
    layer.select_option("block2.res1.sum")
    expect(name).to_have_value("walls of the maze")
    page.get_by_label("clusters", exact=True).fill("5")
    page.get_by_label("clusters", exact=True).press("Enter")
    expect(page.locator(".clusters .controls")).to_have_count(5)
    expect(name).to_have_value("")
    page.get_by_label("clusters", exact=True).fill("6")
    page.get_by_label("clusters", exact=True).press("Enter")
    expect(name).to_have_value("walls of the maze")
    page.locator("#seed").fill("8")
    page.locator("#seed").press("Enter")
    expect(name).to_have_value("")


def test_sorted_by_number_is_by_number(opened):
    page = opened(f"run={PACMAN}&seed=1&step=80&sae=pacman-features&tab=features&sort=number")
    page.locator(".list .row").first.wait_for()
    shown = [int(re.search(r"\d+", text)[0]) for text in page.locator(".list .row .name").all_text_contents()]
    assert len(shown) > 2
    assert shown == sorted(shown)
    page.evaluate("import('/static/state.js').then(m => m.set({tab: 'layer', point: 'fc.post'}))")
    expect(page.locator(".list .note")).to_have_text("452 more.")
