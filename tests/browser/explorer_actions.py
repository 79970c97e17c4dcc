"""What the explorer shows of a decision: under changes, and of actions that are ruled out."""

from explorer_pages import MAZE, PACMAN, settled
from playwright.sync_api import expect


def test_the_bars_before_a_change_are_those_without_it_where_the_episode_was_played_under_it(opened):
    page = opened(
        f"run={MAZE}&seed=7&parts=4~20*clamp%253Apolicy%253A1%253D50&step=6&tab=change&changes=clamp%3Apolicy%3A1%3D50"
    )
    settled(page, "change")
    expect(page.locator("#verdict")).to_contain_text("99.6% of the probability moves")
    before, after = page.locator("#decision li", has_text="down").locator(".number").inner_text().split()
    assert (int(before.rstrip("%")), after) == (0, "100%")


def test_an_action_that_is_ruled_out_has_no_bar_and_the_others_keep_theirs(opened):
    page = opened(f"run={PACMAN}&seed=1&parts=5")
    given = "Float32Array.of(1, 3, -Infinity)"
    found = page.evaluate(
        f"import('/static/episode.js').then(m => [m.shown('q_values', {given}), m.spread('q_values', {given})])"
    )
    assert found == [[-1, 1, float("-inf")], 2]
    page.evaluate("explorer.episode.preferences[0][0] = -Infinity; explorer.decision.draw()")
    expect(page.locator("#decision .number").first).to_have_text("ruled out")
    widths = page.locator("#decision .bar").evaluate_all("bars => bars.map(each => parseFloat(each.style.width))")
    assert widths[0] == 0
    assert max(widths) == 50
