// A layer in this frame: channels as small maps, vectors as bars; a unit chosen is laid over the frame.
import {lay} from "./places.js";
import {ask, newest, numbers, trying} from "./server.js";
import {listen, set, state} from "./state.js";

const BARS = 60, TILE = 56;

export class Layers {
  constructor(page) {
    Object.assign(this, {page, newest: newest(), held: null, nodes: new Map(), rest: note("")});
    this.choice = pointChoice(page, () => set({point: this.choice.value, unit: null}));
    this.sort = sortChoice("sorted by", page.info.discrete);
    this.list = el("div", {class: "tiles"});
    this.one = el("div", {class: "one"});
    this.node = el("div", {}, el("div", {class: "controls"}, el("label", {}, "layer ", this.choice), this.sort), this.one, this.list);
  }
  start() {
    listen(["unit"], () => { this.show(); this.page.stage.draw(); });
    listen(["point", "sort"], () => this.load());
    this.choice.value = state.point;
    this.load();
  }
  async load() {
    this.choice.value = state.point;
    const {episode, info} = this.page;
    if (episode.steps < 0) return;
    const effects = state.sort === "effect" && info.discrete, body = {...episode.about(Math.min(state.step, episode.steps)), point: state.point, effects, changes: state.changes};
    const found = await trying(() => this.newest(signal => ask("layer", body, signal)), "layer");
    if (!found) return;
    const values = numbers(found.values), [positions, units] = values.shape;
    this.held = {...found, step: body.step, values, positions, units, effects: numbers(found.effects)};
    this.show();
    this.page.stage.draw();
  }
  // A unit's values at the positions.
  of(unit) {
    const {values, positions, units} = this.held;
    return Float32Array.from({length: positions}, (_, i) => values[i * units + unit]);
  }
  order() {
    const {units, effects} = this.held, all = Array.from({length: units}, (_, i) => i);
    const strength = all.map(unit => this.of(unit).reduce((most, each) => Math.max(most, Math.abs(each)), 0));
    if (state.sort === "number") return all;
    const by = state.sort === "effect" && effects.length === units ? Array.from(effects, Math.abs) : strength;
    return all.sort((a, b) => by[b] - by[a]);
  }
  show() {
    if (!this.held) return;
    const {positions, units, grid, effects} = this.held, order = this.order(), maps = positions > 1;
    const last = this.page.info.repeated.includes(state.point) ? " The layer is computed several times in a step; this is the last." : "";
    this.list.className = maps ? "tiles" : "list";
    const signed = order.some(unit => this.of(unit)[0] < 0);
    const listed = maps ? order : order.slice(0, BARS), top = maps ? 0 : Math.max(...order.map(unit => Math.abs(this.of(unit)[0])), 1e-9);
    const nodes = listed.map(unit => maps ? this.tile(unit, grid ?? square(positions)) : this.row(unit, top, signed, effects));
    const rest = {number: "", effect: ", whose effects are smaller"}[state.sort] ?? ", which are smaller";
    this.rest.textContent = `${units - listed.length} more${rest}.`;
    if (units > listed.length) nodes.push(this.rest);
    put(this.list, nodes);
    put(this.one, (state.unit === null || state.unit >= units ? [note(maps ? `${units} channels at ${positions} positions. Choose one to lay it over the frame.${last}` : `${units} units. Choose one to follow it along the episode or to change it.${last}`)]
      : about(this.page, `unit ${state.unit} of ${state.point}`, `unit:${state.point}:${state.unit}`, state.point, String(state.unit), `largest value here ${num(Math.max(...this.of(state.unit)), 3)}`)));
  }
  // A channel as a small map, on the canvas that it had in the frame before.
  tile(unit, grid) {
    const node = this.button(unit, "tile", () => [el("canvas", {"aria-hidden": "true"}), el("span", {}, unit)]);
    paint(node.firstChild, this.of(unit), grid);
    return node;
  }
  row(unit, top, signed, effects) {
    const value = this.of(unit)[0], all = effects.length === this.held.units;
    const node = this.button(unit, "row", () => []);
    node.replaceChildren(...[el("span", {class: "name"}, `unit ${unit}`), bar(value, top, signed), el("span", {class: "number"}, num(value, 3)),
      all ? el("span", {class: "number soft"}, `effect ${num(effects[unit], 3)}`) : ""]);
    return node;
  }
  // A unit's button, which stays the same from frame to frame.
  button(unit, kind, content) {
    const key = `${kind} ${unit}`, node = this.nodes.get(key) ?? el("button", {type: "button", "aria-label": `unit ${unit}`}, content()), chosen = state.unit === unit;
    this.nodes.set(key, node);
    node.className = kind + (chosen ? " chosen" : "");
    node.setAttribute("aria-pressed", chosen);
    node.onclick = () => set({unit: chosen ? null : unit});
    return node;
  }
  get lays() { return Boolean(this.held?.grid) && state.unit !== null && state.unit < this.held.units; }
  get overlay() {
    return (context, scale, observed, step) => {
      if (this.lays && this.held.step === step) lay(context, scale, observed, this.held, this.of(state.unit));
    };
  }
}

// A unit or feature that is chosen: follow it along the episode, or change it.
export function about(page, name, track, point, unit, ...facts) {
  const button = (text, call) => Object.assign(el("button", {type: "button"}, text), {onclick: call});
  const change = (kind, value) => () => set({changes: [...state.changes, `${kind}:${point}:${unit}${value}`], tab: "change"});
  return [el("h3", {}, name), el("p", {class: "soft"}, facts.join(" · ")), el("div", {class: "controls"},
    button("Follow along the episode", () => page.timeline.add(track)), button("Switch it off", change("ablate", "")), button("Double it", change("scale", "=2")))];
}

export function pointChoice(page, call) {
  const kinds = {spatial: "with positions", vector: "vectors", recurrent: "memory", categorical: "categories"};
  const choice = el("select", {"aria-label": "Layer"}, Object.entries(kinds).map(([kind, name]) => {
    const points = Object.entries(page.info.points).filter(([, each]) => each === kind);
    return points.length ? el("optgroup", {label: name}, points.map(([point]) => el("option", {value: point}, point))) : null;
  }));
  choice.onchange = call;
  return choice;
}
export function sortChoice(label, discrete) {
  const ways = [["activation", "activation"], ["effect", "effect on the action"], ["number", "number"]].filter(([value]) => discrete || value !== "effect");
  const choice = el("select", {}, ways.map(([value, text]) => el("option", {value}, text)));
  choice.value = ways.some(([value]) => value === state.sort) ? state.sort : "activation";
  choice.onchange = () => set({sort: choice.value});
  return el("label", {title: "The effect is activation times gradient: what the chosen action's advantage would lose, to first order, without it"}, label + " ", choice);
}

// A bar from the middle, or from the left where no value is below 0.
export function bar(value, top, signed = true, kind = "before") {
  const inner = el("span", {class: "bar " + kind}), share = Math.abs(value) / top, [zero, whole] = signed ? [50, 50] : [0, 100];
  Object.assign(inner.style, {left: `${value < 0 ? zero - whole * share : zero}%`, width: `${whole * share}%`});
  return el("span", {class: "track"}, inner);
}
function paint(canvas, values, [rows, columns]) {
  if (canvas.width !== columns || canvas.height !== rows) {
    Object.assign(canvas, {width: columns, height: rows});
    Object.assign(canvas.style, {width: `${TILE}px`, height: `${TILE * rows / columns}px`});
  }
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  const top = values.reduce((most, each) => Math.max(most, Math.abs(each)), 1e-9);
  for (let i = 0; i < rows * columns; i++) {
    const share = values[i] / top, colour = share >= 0 ? [255, 159, 28] : [86, 180, 255];
    colour.forEach((each, c) => { image.data[4 * i + c] = each * Math.abs(share); });
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}
const square = positions => { const side = Math.round(Math.sqrt(positions)); return side * side === positions ? [side, side] : [1, positions]; };
