"""What the explorer keeps in links, reloads and pages that are taken away, in a real browser; as `explorer.py`."""

import re

from explorer_pages import MAZE, PACMAN, at_step
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


def test_sorted_by_number_is_by_number(opened):
    page = opened(f"run={PACMAN}&seed=1&step=80&sae=pacman-features&tab=features&sort=number")
    page.locator(".list .row").first.wait_for()
    shown = [int(re.search(r"\d+", text)[0]) for text in page.locator(".list .row .name").all_text_contents()]
    assert len(shown) > 2
    assert shown == sorted(shown)
    page.evaluate("import('/static/state.js').then(m => m.set({tab: 'layer', point: 'fc.post'}))")
    expect(page.locator(".list .note")).to_have_text("452 more.")
