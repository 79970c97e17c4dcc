// Changes of the agent: what they do to this decision, beside random controls, and the futures that they lead to.
import {agentPart} from "./episode.js";
import {pointChoice} from "./layers.js";
import {ask, eager, mended, newest, numbers, trying} from "./server.js";
import {listen, set, state} from "./state.js";

const CONTROLS = 20, AHEAD = 150;
const KINDS = {clamp: "hold at", scale: "multiply by", add: "add", ablate: "switch off", patch: "patch from step"};

export class Changes {
  constructor(page) {
    Object.assign(this, {page, newest: newest(), made: null, futures: [], of: null, drawing: eager(() => this.frames())});
    const kinds = {...KINDS, ...(page.info.maze ? {cheese: "add the cheese vector times", corner: "add the corner vector times"} : {})};
    this.kind = el("select", {"aria-label": "What to do"}, Object.entries(kinds).map(([value, text]) => el("option", {value}, text)));
    this.point = pointChoice(page, () => {});
    this.unit = el("input", {type: "text", inputmode: "numeric", size: 5, value: "0", "aria-label": "Unit, channel, or f and a feature's number", title: "A unit's or channel's number; f12 for feature 12 of the dictionary"});
    this.value = el("input", {type: "number", step: "any", value: "1", "aria-label": "Value"});
    this.list = el("ul", {class: "changes"});
    this.verdict = el("p", {id: "verdict"});
    this.side = el("div", {class: "futures"});
    const form = el("form", {class: "controls"}, this.kind, el("label", {}, "layer ", this.point), el("label", {}, "unit ", this.unit), this.value, el("button", {type: "submit"}, "Add"));
    form.onsubmit = event => { event.preventDefault(); this.add(); };
    this.kind.onchange = () => this.fit();
    this.both = Object.assign(el("button", {type: "button"}, "Show both futures from this frame"), {onclick: () => set({fork: state.fork === null ? state.step : null})});
    this.node = el("div", {}, form, this.list, this.verdict, el("div", {class: "controls"}, this.both), this.side);
  }
  start() {
    this.point.value = state.point;
    if (state.unit !== null) this.unit.value = state.unit;
    listen(["changes"], () => this.load());
    listen(["fork"], () => this.split());
    this.fit();
    this.load();
  }
  fit() {
    const kind = this.kind.value;
    this.value.hidden = kind === "ablate";
    this.unit.parentNode.hidden = kind === "cheese" || kind === "corner";
    this.unit.title = kind === "patch" ? "A unit's or channel's number; empty: the whole layer. What it holds before that step of the agent's own episode is put in" : "A unit's or channel's number; f12 for feature 12 of the dictionary";
    if (kind === "patch") this.unit.value = "";
  }
  add() {
    const kind = this.kind.value, unit = kind === "cheese" || kind === "corner" || kind === "patch" && !this.unit.value.trim() ? "" : ":" + this.unit.value.trim();
    set({changes: [...state.changes, `${kind}:${this.point.value}${unit}${kind === "ablate" ? "" : "=" + +this.value.value}`]});
  }
  async load() {
    this.list.replaceChildren(...state.changes.map((text, i) => el("li", {}, el("code", {}, text), Object.assign(
      el("button", {type: "button", "aria-label": `Remove ${text}`}, "Remove"), {onclick: () => set({changes: state.changes.filter((_, k) => k !== i)})}))));
    const {episode, decision} = this.page;
    this.both.disabled = !state.changes.length;
    this.split();
    if (!state.changes.length || episode.steps < 0) {
      this.newest(() => null);
      mended("change");
      decision.effect = null;
      this.verdict.className = "";
      this.verdict.textContent = "Change a unit, channel or feature, and see at once how the decision changes, beside 20 random changes of the same size.";
      decision.draw();
      return;
    }
    const body = {...episode.about(Math.min(state.step, episode.steps)), changes: state.changes, controls: CONTROLS};
    const found = await trying(() => this.newest(signal => ask("effect", body, signal)), "change");
    if (found === undefined) return;
    this.made = found && body.changes;
    this.split();
    if (!found) {
      decision.effect = null;
      Object.assign(this.verdict, {className: "", textContent: `${state.changes.length > 1 ? "These changes" : "This change"} can't be made, for the reason above.`});
      decision.draw();
      return;
    }
    const controls = numbers(found.controls.preferences), count = controls.shape[1];
    decision.effect = {step: body.step, before: numbers(found.before.preferences), value: numbers(found.before.values)[0], after: numbers(found.after.preferences), controls: Array.from({length: controls.shape[0]}, (_, i) => controls.subarray(i * count, (i + 1) * count))};
    decision.draw();
    this.judge(found);
    this.judged = body.changes[0];
  }
  judge(found) {
    const sizes = Array.from(numbers(found.control_sizes)), [before, after] = [numbers(found.before.values)[0], numbers(found.after.values)[0]];
    const kind = this.page.info.preferences, size = value => kind === "logits" ? pct(value, 1) : num(value, 3);
    const what = {logits: "of the probability moves to other actions", q_values: "is the largest change of an advantage", mean: "is how far the action moves", actions: "is how far the action moves"}[kind];
    const value = Number.isNaN(before) ? "" : ` The value goes from ${num(before, 2)} to ${num(after, 2)}.`;
    this.verdict.className = found.within_controls ? "within" : "beyond";
    this.verdict.textContent = `${size(found.size)} ${what}; under the ${sizes.length} random changes of the same size it is ${size(Math.min(...sizes))} to ${size(Math.max(...sizes))}. ` +
      (found.within_controls ? `The effect lies within the random controls (larger than ${found.larger_than} of ${sizes.length}): no evidence that ${state.changes.length > 1 ? "these units matter" : "this unit matters"} here.` : "The effect is larger than that of every random control.") + value;
  }

  // Futures from a frame on, with the same random numbers: as it is, under the changes, and under a random control. They
  // are made once the changes are known to be possible and the episode has come to the frame, and anew where it changes.
  split() {
    const {episode} = this.page, {fork, changes} = state;
    if (this.page.active !== this) return;
    this.both.textContent = fork === null || !changes.length ? "Show both futures from this frame" : "Close the futures";
    if (fork !== null && episode.whole && episode.steps < fork) return set({fork: null});
    const can = fork !== null && this.made === changes && episode.steps >= fork, of = JSON.stringify(can && [episode.recipe(fork), episode.prepared(fork), changes]);
    if (of === this.of) return;
    this.of = of;
    this.futures = !can ? [] : [
      ["as it is", agentPart(AHEAD)], ["changed", agentPart(AHEAD, [...changes])], ["random control", agentPart(AHEAD, [...changes], 1)],
    ].map(([name, part]) => ({name, episode: episode.fork(fork, {...part, ...episode.prepared(fork)}), canvas: el("canvas", {role: "img", "aria-label": `future ${name}`, width: 1, height: 1}), text: el("figcaption", {}, name)}));
    this.at = el("input", {type: "range", min: 0, max: AHEAD, value: 0, "aria-label": "Steps after the frame"});
    this.at.oninput = () => this.drawing();
    this.side.replaceChildren(...(this.futures.length ? [el("label", {}, `steps after step ${fork} `, this.at), this.futures.map(({canvas, text}) => el("figure", {}, canvas, text))].flat() : []));
    if (this.futures.length) this.record();
  }
  async record() {
    const mine = this.futures;
    await Promise.all(mine.map(each => trying(() => each.episode.reach(Infinity), each.name)));
    if (mine !== this.futures) return;
    this.at.value = Math.min(40, AHEAD);
    this.drawing();
  }
  async frames() {
    for (const {name, episode, canvas, text} of this.futures) {
      const step = Math.min(state.fork + +this.at.value, episode.steps), bitmap = await trying(() => episode.frame(step), name);
      if (!bitmap) continue;
      Object.assign(canvas, {width: bitmap.width, height: bitmap.height}).getContext("2d").drawImage(bitmap, 0, 0);
      text.textContent = `${name}: step ${step}${episode.ended && step === episode.steps ? ", ended" : ""} · return ${num(episode.returns[step], 2)}`;
    }
  }
}
