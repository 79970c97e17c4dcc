// The editor of a state, on its frame: what is in it is dragged, placed, coloured and taken away; the agent is asked at once.
import {agentPart, cut, ownPart} from "./episode.js";
import {pointed} from "./places.js";
import {ask, newest, trying} from "./server.js";
import {listen, state} from "./state.js";

const ON = 300, NEAR = 9;

export class Editor {
  constructor(page) {
    Object.assign(this, {page, newest: newest(), shown: null, undone: [], drag: null, tool: 0, chosen: {}, queue: Promise.resolve()});
    this.back = Object.assign(el("button", {type: "button", title: "Take the last edit back (u)"}, "Undo"), {onclick: () => this.undo()});
    this.tools = el("div", {class: "tools", role: "radiogroup", "aria-label": "What a click in the frame does"});
    this.numbers = el("div", {class: "controls"});
    this.text = el("p", {class: "soft"});
    this.list = el("ul", {class: "changes"});
    this.node = el("div", {}, el("div", {class: "controls"}, this.back, Object.assign(el("button", {type: "button"}, "Play on from here"), {onclick: () => page.stage.toggle(true)})),
      this.tools, this.numbers, this.text, this.list);
  }
  start() {
    listen(["seed"], () => { this.undone = []; });
    this.load();
  }
  async load() {
    const {episode} = this.page;
    if (episode.steps < 0 || this.drag) return;
    const step = Math.min(state.step, episode.steps);
    const found = await trying(() => this.newest(signal => ask("editing", episode.about(step), signal)), "edit");
    if (!found) return;
    this.shown = {...found, step};
    this.show();
    this.page.stage.draw();
  }
  show() {
    const {tools, caveat, lead} = this.shown, buttons = tools.filter(each => !each.value);
    this.back.disabled = !this.undone.length;
    this.tools.replaceChildren(...buttons.map((tool, i) => this.toolNode(tool, i)));
    this.numbers.replaceChildren(...tools.filter(each => each.value).map(tool => this.numberNode(tool)));
    this.text.textContent = `Drag things in the frame, or choose a tool and click there. ${caveat}${lead && state.step < lead ? ` An edit is seen ${lead} steps later here.` : ""}`;
    this.list.replaceChildren(...this.base().had.map(each => el("li", {}, el("code", {}, each))));
  }
  toolNode(tool, i) {
    const radio = el("input", {type: "radio", name: "tool", value: i, ...(this.tool === i ? {checked: ""} : {})}), here = /\{at\}/.test(tool.form);
    radio.onchange = () => { this.tool = i; };
    const choices = Object.entries(tool.choices).map(([name, values]) => {
      const choice = el("select", {"aria-label": name}, values.map(value => el("option", {value}, value.replaceAll("_", " "))));
      const key = `${tool.name} ${name}`;
      choice.value = this.chosen[key] ?? values[0];
      choice.onchange = () => { this.chosen[key] = choice.value; if (here) { this.tool = i; radio.checked = true; } else this.apply(this.filled(tool)); };
      return choice;
    });
    return el("div", {class: "controls"}, here ? el("label", {}, radio, " ", tool.name) : el("span", {}, tool.name), choices);
  }
  numberNode(tool) {
    const [min, max, now] = tool.value, input = el("input", {type: "number", min, max, value: now});
    input.onchange = () => this.apply(tool.form.replace("{value}", Math.max(min, Math.min(max, Math.round(+input.value) || 0))));
    return el("label", {}, tool.name + " ", input);
  }
  filled(tool, places = {}) {
    const given = {...places};
    for (const [name, values] of Object.entries(tool.choices)) given[name] = this.chosen[`${tool.name} ${name}`] ?? values[0];
    return tool.form.replace(/\{(\w+)\}/g, (_, name) => given[name]);
  }

  // The episode before the edits of this frame, those that it has, and the actions that are played again after them.
  base(step = state.step) {
    const {episode} = this.page, lead = Math.min(this.shown.lead, step), start = step - lead;
    let at = 0, had = [];
    for (const part of episode.parts) { if (at === start) had = part.edits; at += part.steps; }
    return {parts: cut(episode.parts, start), had, again: episode.actions.slice(start, step)};
  }
  // One after the other, each on what the one before has left.
  queued(call) { return this.queue = this.queue.then(call, call); }
  apply(edit) {
    const {step} = state;
    return this.queued(async () => {
      const before = this.page.episode.parts;
      if (!await this.edit(edit, this.base(step), step)) return;
      this.undone.push(before);
      await this.load();
    });
  }
  edit(edit, {parts, had, again}, step) {
    const edits = [...had, edit], next = agentPart(ON, [...state.changes]);
    return this.page.replay([...parts, ...(again.length ? [{...ownPart(again), edits}, next] : [{...next, edits}])], step);
  }
  undo() {
    return this.queued(async () => {
      if (!this.undone.length) return;
      await this.page.replay(this.undone.pop(), state.step);
      await this.load();
    });
  }

  // Where a pointer is: a cell as COLUMN,ROW, or a pixel of the screen; null outside of the cells.
  at(event) {
    const [x, y] = pointed(event, this.page.stage.canvas).map(each => each / this.page.stage.scale), {grid} = this.shown;
    if (!grid) return `${Math.round(x)},${Math.round(y)}`;
    const column = Math.floor((x - grid.left) / grid.side), row = Math.floor((y - grid.top) / grid.side);
    if (column < 0 || row < 0 || column >= grid.columns || row >= grid.rows) return null;
    const cell = [column + grid.first[0], row + grid.first[1]];
    return cell.some(each => each < 0) ? null : cell.join();
  }
  thingAt(event, place) {
    const {things, grid} = this.shown;
    if (grid) return things.find(each => each.key === place);
    const [x, y] = pointed(event, this.page.stage.canvas).map(each => each / this.page.stage.scale);
    return things.find(each => Math.hypot(each.x - x, each.y - y) < NEAR);
  }
  down(event) {
    const place = this.shown && this.at(event);
    if (!place) return;
    const tools = this.shown.tools.filter(each => !each.value), tool = tools[this.tool], drags = tools.find(each => /\{from\}/.test(each.form)), thing = this.thingAt(event, place);
    if (thing && tool === drags) {
      this.page.stage.canvas.setPointerCapture(event.pointerId);
      this.drag = {tool: drags, from: thing.key, place, step: state.step};
    } else if (tool !== drags && /\{at\}/.test(tool.form)) this.apply(this.filled(tool, {at: place}));
  }
  move(event) {
    const {drag} = this, place = drag && this.at(event);
    if (!place || place === drag.place) return;
    drag.place = place;
    this.queued(() => this.follow(drag, place));
  }
  // Of a drag, only the place where the pointer is now counts.
  async follow(drag, place) {
    if (place !== drag.place) return;
    drag.before ??= {...this.base(drag.step), all: this.page.episode.parts};
    drag.made = await this.edit(this.filled(drag.tool, {from: drag.from, at: place}), drag.before, drag.step) || drag.made;
  }
  up() {
    const {drag} = this;
    if (!drag) return;
    this.drag = null;
    this.queued(() => { if (drag.made) this.undone.push(drag.before.all); return this.load(); });
  }
  get overlay() {
    return (context, scale, observed, step) => {
      if (this.shown?.step !== step) return;
      const {things, grid} = this.shown, side = grid ? grid.side : 12;
      Object.assign(context, {strokeStyle: "rgba(255, 255, 255, .85)", lineWidth: 2});
      for (const {x, y} of things) context.strokeRect((x - side / 2) * scale + 1, (y - side / 2) * scale + 1, side * scale - 2, side * scale - 2);
    };
  }
}
