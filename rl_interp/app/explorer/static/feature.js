// A feature's own page: its name and note, when it fires most, what it tells, what it does, and what was tested of it.
import {called, named, rename} from "./names.js";
import {ask, newest, png, trying} from "./server.js";
import {bar} from "./layers.js";
import {state} from "./state.js";

export class FeaturePage {
  constructor(page) {
    Object.assign(this, {page, newest: newest(), of: null, shown: null});
    this.name = el("input", {type: "text", maxlength: 80, size: 24, id: "name"});
    this.text = el("textarea", {maxlength: 2000, rows: 2, id: "note"});
    this.saved = el("span", {class: "soft", role: "status"});
    const form = el("form", {class: "naming"}, el("label", {for: "name"}, "name"), this.name, el("label", {for: "note"}, "note"), this.text,
      el("div", {class: "controls"}, el("button", {type: "submit"}, "Save name and note"), this.saved));
    form.onsubmit = event => { event.preventDefault(); this.save(); };
    this.rest = el("div", {});
    this.node = el("section", {class: "feature", "aria-label": "About the feature"}, form, this.rest);
  }
  async load() {
    const {feature} = state;
    if (this.of !== feature) {  // no more than once: they may be half typed
      const {name, note: text} = named(feature);
      this.of = feature;
      this.name.value = name;
      this.text.value = text;
      this.saved.textContent = "";
    }
    if (this.shown === feature) return;
    this.shown = feature;
    this.rest.replaceChildren(note("Looking through the recorded episodes …"));
    const found = await trying(() => this.newest(signal => ask("described", {...this.page.episode.base, feature}, signal)), called(feature));
    if (found === undefined) return;
    if (!found) { this.rest.replaceChildren(note("This can't be shown, for the reason above.")); this.shown = null; return; }
    this.rest.replaceChildren(...this.describe(found));
  }
  async save() {
    const given = {feature: state.feature, name: this.name.value, note: this.text.value};
    const found = await trying(() => ask("named", {...this.page.episode.base, ...given}), "name");
    if (!found) return;
    rename(found.feature, found);
    this.saved.textContent = "Saved in the dictionary's run.";
    this.page.renamed();
  }
  describe(found) {
    if (!found.density) return [note("It fires in none of the recorded decisions.")];
    const {actions} = this.page.info, top = Math.max(...found.histogram, 1);
    const bars = found.histogram.map((count, i) => svg("rect", {x: 12 * i, y: 60 - 60 * count / top, width: 11, height: 60 * count / top, fill: "var(--before)"}, svg("title", {}, `${count}`)));
    return [
      note(`Fires in ${pct(found.density, 2)} of the recorded decisions, at most ${num(found.largest, 2)}.`),
      el("h3", {}, "Strongest moments"), el("div", {class: "peaks"}, found.peaks.map(peak => this.peak(peak, found.hook))),
      el("h3", {}, "How strongly it fires, where it does"), svg("svg", {width: 12 * bars.length, height: 62, role: "img", "aria-label": "histogram of its activations"}, bars),
      note(`from 0 to ${num(found.largest, 2)}`),
      ...(found.concepts.length ? [el("h3", {}, "What it tells"), table(["concept", "how often it is there when it fires", "AUROC"], found.concepts.map(each =>
        [each.concept.replaceAll("_", " "), each.precision === null ? "–" : pct(each.precision, 0), num(each.auroc, 2)])),
        note("Chosen in the training episodes, measured in others. AUROC 0.5 is chance, 1 tells it always.")] : []),
      ...this.effect(found, actions), ...this.statements(found.statements),
    ];
  }
  peak({episode, step, activation, png: data}, hook) {
    const image = el("img", {alt: `episode ${episode}, step ${step}`});
    image.src = URL.createObjectURL(png(data));
    image.onload = () => URL.revokeObjectURL(image.src);
    const node = el("button", {type: "button", class: "peak", title: "Open this episode here"}, image, el("span", {}, `${num(activation, 2)} · episode ${episode}, step ${step}`));
    node.onclick = () => this.page.restore(JSON.stringify([hook, episode]), step);
    return node;
  }
  effect({clamp, level}, actions) {
    if (!clamp) return [note("Between this layer and its actions the agent has a memory, so what holding it does is not shown here; see the tab Change.")];
    const top = Math.max(...clamp.towards.map(Math.abs), 1e-9), continuous = !this.page.info.discrete, changes = v => continuous ? num(v, 2) : pct(v), held = `Held at ${num(level, 2)}, its 99th percentile, it`;
    return [el("h3", {}, "What it does"), note(continuous
      ? `${held} moves the action by ${num(clamp.changed, 2)} standard deviations in other states; a random direction of the same size by ${num(clamp.changed_control, 2)}. By how much each of its numbers moves:`
      : `${held} changes the most preferred action in ${pct(clamp.changed)} of other states; a random direction of the same size in ${pct(clamp.changed_control)}. How much more often each action is then preferred:`),
      el("div", {class: "list"}, actions.map((name, i) => el("div", {class: "row"}, el("span", {class: "name"}, name.replaceAll("_", " ").toLowerCase()), bar(clamp.towards[i], top), el("span", {class: "number"}, changes(clamp.towards[i])))))];
  }
  statements(tested) {
    if (!tested.length) return [];
    return [el("h3", {}, "What was tested of it"), el("ul", {}, tested.map(each => el("li", {}, `${each.hypothesis}: ${each.passed ? "passed" : "did not pass"} (effect ${num(each.effect, 3)}, random directions ${num(each.control, 3)})`)))];
  }
}
