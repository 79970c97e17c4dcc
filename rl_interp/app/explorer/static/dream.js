// A world model's imagined future of this frame, beside what happened, under the same actions.
import {ask, newest, numbers, png, trying} from "./server.js";
import {state} from "./state.js";

const HORIZON = 12;

export class Imagination {
  constructor(page) {
    Object.assign(this, {page, newest: newest()});
    this.seed = el("input", {type: "number", min: 0, max: 1000000, value: 0});
    this.seed.onchange = () => this.load();
    this.text = note("");
    this.rows = el("div", {class: "dreams"});
    this.node = el("div", {}, el("div", {class: "controls"}, el("label", {title: "Another number, other random numbers"}, "dream ", this.seed)), this.text, this.rows);
  }
  start() { this.load(); }
  async load() {
    const {episode, info} = this.page, step = Math.min(state.step, episode.steps - 1);
    if (step < 0) return;
    const body = {...episode.about(step), horizon: HORIZON, seed: +this.seed.value || 0};
    const found = await trying(() => this.newest(signal => ask("imagined", body, signal)), "imagination");
    if (!found) return;
    const rewards = numbers(found.rewards);
    this.text.textContent = `What the world model imagines after step ${step} when it takes the actions that were taken, without seeing any further frame.`;
    this.rows.replaceChildren(...found.imagined.map((data, i) => {
      const action = episode.actions[step + i], happened = episode.rewards[step + i];
      return el("figure", {}, picture(found.happened[i], `what happened ${i + 1} steps on`), picture(data, `what was imagined ${i + 1} steps on`),
        el("figcaption", {}, `+${i + 1} ${info.actions[action].replaceAll("_", " ")}`, el("br", {}), `reward ${num(happened, 1)}, expected ${num(rewards[i], 1)}${found.goes_on[i] ? "" : ", end expected"}`));
    }));
  }
}
function picture(data, alt) {
  const image = el("img", {alt});
  image.src = URL.createObjectURL(png(data));
  image.onload = () => URL.revokeObjectURL(image.src);
  return image;
}
