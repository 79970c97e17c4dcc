// The sheet of keys.
const KEYS = [
  ["space", "play and stop"], ["← →", "one frame back, one on; ten with shift"], ["Home, End", "first frame, last one"],
  ["t", "take over: play yourself by arrow keys, space and Enter; t again hands back"], ["o", "let the agent play on from this frame, under the changes"],
  ["1 to 9", "the tabs"], ["u", "in an editor, undo"], [", .", "in a plan, one tick back, one on"], ["?", "this sheet"], ["Esc", "close it"],
];
const WORDS = [
  ["layer, unit, channel", "A layer is one place in the agent's network; a unit is one of its numbers, and a channel one that it has at every position of the frame."],
  ["advantage", "What an action is worth more than the mean of all actions."],
  ["entropy", "How undecided a policy is: 0 when one action is certain."],
  ["feature, dictionary", "A dictionary writes a layer as a sum of many features, few of which are active at once. They often mean one thing where a unit means several."],
  ["random control", "The same change in a random direction. An effect that random controls have too says nothing of the unit."],
  ["cluster", "Positions of a layer that hold alike values."],
  ["patch", "To put in what a layer, or one unit of it, holds in another step."],
  ["plan, tick", "What linear probes read of an agent's cells: where it will step, and which way it will push. A recurrent network computes its layers several times in one step; each time is a tick."],
  ["saliency", "How much each place of the frame matters to what the agent decides."],
];
export function sheet() {
  const dialog = $("sheet"), close = Object.assign(el("button", {type: "button"}, "Close"), {onclick: () => dialog.close()});
  const rows = pairs => el("dl", {}, pairs.map(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]));
  dialog.replaceChildren(el("h2", {id: "sheet-title"}, "Keys"), rows(KEYS), el("h2", {}, "Words"), rows(WORDS), close);
  dialog.showModal();
}
