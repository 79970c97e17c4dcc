// What the agent thinks of its actions in this frame; with changes, before and after, and how far random controls go.
import {shown} from "./episode.js";
import {state} from "./state.js";

export class Decision {
  constructor(page) {
    Object.assign(this, {page, effect: null, rows: []});
    this.value = el("p", {class: "soft"});
    this.list = el("ol", {class: "bars"});
    this.node = el("section", {id: "decision", "aria-label": "Decision"}, el("h2", {}, "What it would do here"), this.list, this.value);
  }
  draw() {
    const {episode, info} = this.page;
    if (!episode.preferences[state.step]) return;
    if (episode.ended && state.step >= episode.steps) {
      this.list.replaceChildren();
      this.value.textContent = "The episode has ended: there is nothing to decide.";
      return;
    }
    const effect = this.effect?.step === state.step ? this.effect : null;  // of another frame until the server has answered
    const {before: plain, value} = effect ?? {before: episode.preferences[state.step], value: episode.values[state.step]};
    const kind = info.preferences, before = shown(kind, plain), after = effect && shown(kind, effect.after);
    const controls = effect ? effect.controls.map(each => shown(kind, each)) : [];
    const all = [...before, ...(after ?? []), ...controls.flat()], top = kind === "logits" ? 1 : Math.max(...all.map(Math.abs).filter(Number.isFinite), 1e-9);
    const likely = info.discrete ? before.indexOf(Math.max(...before)) : null;
    put(this.list, info.actions.map((name, i) => {
      const now = this.bar(before[i], top, kind, "before"), range = controls.map(each => each[i]).filter(Number.isFinite);
      const row = this.rows[i] ??= el(info.discrete ? "button" : "div", info.discrete ? {type: "button", title: "Do this, when you have taken over"} : {});
      row.replaceChildren(
        el("span", {class: "name" + (i === likely ? " likely" : "")}, name.replaceAll("_", " ").toLowerCase()),
        el("span", {class: "track"}, now, after && this.bar(after[i], top, kind, "after"), range.length ? this.range(range, top, kind) : null),
        el("span", {class: "number"}, this.text(before[i], kind), after ? el("br", {}) : null, after ? this.text(after[i], kind) : null));
      if (info.discrete) row.onclick = () => this.page.stage.act(i);
      return row.parentNode ?? el("li", {}, row);
    }));
    const what = {logits: "Probability of each action", q_values: "Advantage of each action: its Q-value less their mean", mean: "Mean of each number of the action", actions: "Sample of each number of the action"}[kind];
    this.value.textContent = what + (Number.isNaN(value) ? "." : `. ${kind === "q_values" ? "Largest Q-value" : "Value of the state"} ${num(value, 2)}.`);
  }
  bar(value, top, kind, name) {
    const bar = el("span", {class: `bar ${name}${value < 0 ? " below" : ""}`}), share = Number.isFinite(value) ? Math.abs(value) / top : 0;
    if (kind === "logits") Object.assign(bar.style, {left: "0", width: `${100 * share}%`});
    else Object.assign(bar.style, {left: `${value < 0 ? 50 - 50 * share : 50}%`, width: `${50 * share}%`});
    return bar;
  }
  range(values, top, kind) {
    const at = value => kind === "logits" ? 100 * value / top : 50 + 50 * value / top, low = at(Math.min(...values)), high = at(Math.max(...values));
    const node = el("span", {class: "range", title: "between the smallest and the largest of the random controls"});
    Object.assign(node.style, {left: `${low}%`, width: `${Math.max(.5, high - low)}%`});
    return node;
  }
  text(value, kind) { return value === -Infinity ? "ruled out" : kind === "logits" ? pct(value, 0) : (value > 0 ? "+" : "") + num(value, 2); }
}
