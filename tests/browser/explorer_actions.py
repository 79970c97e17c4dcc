"""What the explorer shows of a decision: under changes, of actions that are ruled out, and of continuous ones."""

from explorer_pages import MAZE, PACMAN, WAYS, at_step, settled
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


def test_a_policy_that_samples_continuous_actions_is_shown_mapped_and_changed(opened):
    page = opened(f"run={WAYS}&seed=1&parts=10&step=3&tab=saliency", refusals=True)
    at_step(page, 3)
    expect(page.locator("#decision")).to_contain_text("Sample of each number of the action.")
    expect(page.locator("#decision .likely")).to_have_count(0)
    rows = page.locator(".saliency .row")
    expect(rows.first).to_be_visible()
    red, blue = ("rgb(255, 64, 48)", "rgb(64, 156, 255)")
    for row in rows.all():
        colour = row.locator(".bar").evaluate("bar => getComputedStyle(bar).backgroundColor")
        assert colour == (red if float(row.locator(".number").inner_text()) > 0 else blue)
    target = page.get_by_label("of", exact=True)
    target.fill("value")
    target.press("Enter")
    expect(page.locator("#said.wrong")).to_contain_text("neither a value nor q_values")
    expect(page.locator("#panel")).not_to_contain_text("Computing the map")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    expect(rows).to_have_count(0)
    page.get_by_role("tab", name="Change").click()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#verdict")).to_contain_text("is how far the action moves; under the 20 random changes")
