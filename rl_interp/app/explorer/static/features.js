// A dictionary's features in this frame; clicking in the frame asks which fire there.
import {about, bar, sortChoice} from "./layers.js";
import {frame, lay, nearest} from "./places.js";
import {ask, newest, numbers, trying} from "./server.js";
import {FeaturePage} from "./feature.js";
import {called} from "./names.js";
import {listen, set, state} from "./state.js";

export class Features {
  constructor(page) {
    Object.assign(this, {page, newest: newest(), where: newest(), found: null, fires: null, rows: new Map(), said: note("")});
    this.choice = el("select", {"aria-label": "Dictionary"}, el("option", {value: ""}, "none"), page.info.dictionaries.map(({name, hook}) => el("option", {value: name}, `${name} (${hook})`)));
    this.choice.value = state.sae ?? "";
    this.choice.onchange = () => page.reopen({sae: this.choice.value || null, feature: null, place: null, changes: state.changes.filter(each => !/:f\d+/.test(each))});
    this.list = el("div", {class: "list"});
    this.one = el("div", {class: "one"});
    this.anywhere = Object.assign(el("button", {type: "button", hidden: ""}, "Anywhere in the frame"), {onclick: () => set({place: null})});
    this.whole = new FeaturePage(page);
    this.node = el("div", {}, el("div", {class: "controls"}, el("label", {}, "dictionary ", this.choice), sortChoice("sorted by", page.info.discrete), this.anywhere), this.one, this.whole.node, this.list);
  }
  start() {
    listen(["feature"], () => this.follow());
    listen(["whole"], () => this.show());
    listen(["sort", "place"], () => this.load());
    this.load();
  }
  async load() {
    const {episode, info} = this.page;
    if (!info.sae) {
      this.list.replaceChildren(note(info.dictionaries.length ? "Choose a dictionary of this agent above: its features are what the layer is made of." :
        "No dictionary of this agent was found. Fit one: rl-interp collect, then rl-interp sae fit."));
      return;
    }
    if (episode.steps < 0) return;
    const body = {...episode.about(Math.min(state.step, episode.steps)), effects: state.sort === "effect", changes: state.changes, ...(state.place === null ? {} : {place: state.place})};
    const found = await trying(() => this.newest(signal => ask("features", body, signal)), "features");
    if (!found) return;
    this.found = found;
    this.follow();
  }
  // Where the chosen feature fires in this frame.
  async follow() {
    const {episode} = this.page;
    this.show();
    if (state.feature === null || !this.page.info.sae) this.fires = null;
    else {
      const body = {...episode.about(Math.min(state.step, episode.steps)), feature: state.feature, changes: state.changes};
      const answer = await trying(() => this.where(signal => ask("feature", body, signal)), "feature");
      if (!answer) return;
      this.fires = {...answer, step: body.step, values: numbers(answer.values)};
    }
    this.show();
    this.page.stage.draw();
  }
  show() {
    if (!this.found) return;
    const {firing} = this.found, features = state.sort === "number" ? [...this.found.features].sort((a, b) => a.feature - b.feature) : this.found.features;
    const top = Math.max(...features.map(each => each.activation), 1e-9), {sae} = this.page.info;
    this.anywhere.hidden = state.place === null;
    const listed = firing > features.length ? `; the ${features.length} ${state.sort === "effect" ? "of the largest effect" : "strongest"} are listed` : "";
    this.said.textContent = `${firing} of ${sae.features} features of ${sae.hook} fire ${state.place === null ? "in this frame" : "at the place that is framed"}${listed}${this.found.grid && state.place === null ? "; click in the frame to see which fire there" : ""}.`;
    put(this.list, [this.said, ...features.map(each => this.row(each, top))]);
    const now = this.fires ? Math.max(...this.fires.values) : 0;
    const one = state.feature === null ? [] : about(this.page, called(state.feature), `feature:${state.feature}`, sae.hook, "f" + state.feature,
      this.fires ? (now > 0 ? `fires here at ${num(now, 2)}` : "does not fire in this frame") : "…");
    one.at(-1)?.append(Object.assign(el("button", {type: "button", "aria-pressed": Boolean(state.whole)}, "All about it"), {onclick: () => set({whole: state.whole ? null : 1})}));
    put(this.one, one);
    this.whole.node.hidden = state.feature === null || !state.whole;
    if (!this.whole.node.hidden) this.whole.load();
  }
  // A feature's button, which stays the same from frame to frame.
  row({feature, activation, effect}, top) {
    const chosen = state.feature === feature, node = this.rows.get(feature) ?? el("button", {type: "button"});
    this.rows.set(feature, node);
    node.className = "row" + (chosen ? " chosen" : "");
    node.setAttribute("aria-pressed", chosen);
    node.replaceChildren(el("span", {class: "name"}, called(feature)), bar(activation, top, false), el("span", {class: "number"}, num(activation, 2)),
      effect === null ? "" : el("span", {class: "number soft"}, `effect ${num(effect, 3)}`));
    node.onclick = () => set({feature: chosen ? null : feature});
    return node;
  }
  get lays() { return Boolean(this.fires?.grid) && state.feature !== null; }
  get overlay() {
    return (context, scale, observed, step) => {
      if (this.lays && this.fires.step === step) lay(context, scale, observed, this.fires, this.fires.values);
      if (this.found?.grid && state.place !== null) frame(context, scale, observed, this.found, state.place, "rgb(255, 255, 255)");
    };
  }
  get picked() {
    return (x, y, observed) => { if (this.found?.grid) set({place: nearest(observed, this.found, x, y)}); };
  }
}
