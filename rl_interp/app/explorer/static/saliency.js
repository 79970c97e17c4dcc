// Where the agent looks in this frame, by any method and target, beside a test of the map.
import {ask, newest, numbers, png, trying, say} from "./server.js";
import {listen, set, state} from "./state.js";
import {bar} from "./layers.js";

export class Saliency {
  constructor(page) {
    Object.assign(this, {page, newest: newest()});
    const {actions, methods, sae} = page.info;
    const targets = ["advantage", "chosen", "value", "policy-change", "value-change", ...actions.map(each => "q:" + each)];
    this.method = el("select", {}, methods.map(each => el("option", {value: each}, each)));
    this.target = el("input", {type: "text", list: "targets", size: 18, spellcheck: "false"});
    const names = el("datalist", {id: "targets"}, [...targets, ...(state.point && state.unit !== null ? [`unit:${state.point}:${state.unit}`] : []), ...(sae && state.feature !== null ? [`feature:${state.feature}`] : [])].map(each => el("option", {value: each})));
    Object.assign(this.method, {value: state.method || methods[0], onchange: () => set({method: this.method.value})});
    Object.assign(this.target, {value: state.target || page.info.target, onchange: () => set({target: this.target.value.trim()})});
    this.stop = Object.assign(el("button", {type: "button", hidden: ""}, "Stop"), {onclick: () => this.cancel?.()});
    this.picture = el("div", {class: "saliency"});
    this.along = Object.assign(el("button", {type: "button", title: "A track of how much the place that you click in the frame matters, at up to 40 steps"}, "Follow a place along the episode"), {onclick: () => this.choose()});
    this.text = el("p", {});
    this.node = el("div", {}, el("div", {class: "controls"}, el("label", {}, "method ", this.method), el("label", {title: "What the map explains; unit:LAYER:N and feature:N too"}, "of ", this.target), names, this.stop), this.text, el("div", {class: "controls"}, this.along), this.picture);
  }
  start() {
    listen(["method", "target"], () => this.load());
    this.load();
  }
  // A track of the place that is clicked next in the frame.
  choose() {
    this.choosing = true;
    this.along.textContent = "Click the place in the frame";
  }
  get picked() {
    return (x, y, [top, left, bottom, right, turns]) => {
      if (!this.choosing || !this.page.info.observation[1]) return;
      this.choosing = false;
      this.along.textContent = "Follow a place along the episode";
      let [row, column] = [(y - top) / (bottom - top), (x - left) / (right - left)];
      for (let i = 0; i < (turns % 4 + 4) % 4; i++) [row, column] = [column, 1 - row];
      if ([row, column].every(each => each >= 0 && each <= 1)) this.page.timeline.add(`saliency:${this.method.value}:${this.target.value.trim()}:${row.toFixed(3)},${column.toFixed(3)}`);
    };
  }
  async load() {
    const {episode, info} = this.page;
    if (episode.steps < 0) return;
    const body = {...episode.about(Math.min(state.step, episode.steps)), method: this.method.value, target: this.target.value.trim()};
    this.text.textContent = "Computing the map of this frame …";
    this.stop.hidden = false;
    const found = await trying(() => this.newest(signal => {
      const own = new AbortController();
      signal.addEventListener("abort", () => own.abort());
      this.cancel = () => { own.abort(); this.text.textContent = "Stopped."; this.stop.hidden = true; };
      return ask("saliency", body, own.signal);
    }).catch(error => { this.clear(); throw error; }), "saliency");
    if (!found) return;
    this.stop.hidden = true;
    const test = found.alike === null ? "It can't be told here whether the map shows what was learned: a map is empty." :
      `Spearman correlation with the map of the same agent with its weights shuffled: ${num(found.alike, 2)}. ` + (found.alike > .7 ? "That is high: much of this map is the picture, not what the agent has learned." : "Near 0, it shows what was learned; near 1, the picture.");
    this.text.textContent = `${found.signed ? "Red speaks for" : "Violet matters to"} the ${found.name}${found.signed ? ", blue against" : ""}. ${test}`;
    if (found.png) {
      const image = el("img", {alt: `saliency map of the ${found.name} over the frame`});
      image.src = URL.createObjectURL(png(found.png));
      image.onload = () => URL.revokeObjectURL(image.src);
      this.picture.replaceChildren(image);
    } else {
      const values = numbers(found.values), top = Math.max(...Array.from(values, Math.abs), 1e-9);
      this.picture.replaceChildren(el("div", {class: "list"}, found.inputs.map((name, i) => el("div", {class: "row"}, el("span", {class: "name"}, name), bar(values[i], top, found.signed, !found.signed ? "matters" : values[i] > 0 ? "for" : "against"), el("span", {class: "number"}, num(values[i], 3))))));
    }
  }
  // Of what can't be mapped nothing is shown.
  clear() {
    this.text.textContent = "";
    this.stop.hidden = true;
    this.picture.replaceChildren();
  }
}
