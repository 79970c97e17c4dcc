// The plan that probes read in this frame: arrows over it at one tick, a sheet of all ticks, and how well it is read.
import {shown} from "./episode.js";
import {ask, newest, numbers, trying} from "./server.js";
import {listen, set, state} from "./state.js";

const MOVES = [[-1, 0], [1, 0], [0, -1], [0, 1]], MOST = 16;
const READ = {  // as in the films: colour, and half the width of an arrow's shaft and of its head in cells
  box: {name: "pushes of boxes", counted: count => `${count} ${count === 1 ? "push" : "pushes"}`, what: "pushes of a box off a cell", colour: "200, 40, 160", shaft: .13, head: .3},
  agent: {name: "the player's steps", counted: count => `${count} ${count === 1 ? "step" : "steps"} of the player`, what: "the player's steps onto a cell", colour: "30, 110, 235", shaft: .05, head: .16},
};
const CONTROLS = {observation: "the board alone", shuffled_weights: "shuffled weights", shuffled_labels: "shuffled labels"};

export class Plan {
  constructor(page) {
    Object.assign(this, {page, newest: newest(), found: null, busy: null, tiles: new Map(), rows: new Map()});
    const select = (label, pairs, name, plain = value => value) => {
      const choice = el("select", {"aria-label": label}, pairs.map(([value, text]) => el("option", {value}, text)));
      Object.assign(choice, {value: state[name], onchange: () => set({[name]: plain(choice.value)})});
      return choice;
    };
    this.layer = el("select", {"aria-label": "Layer that is read"});
    this.layer.onchange = () => set({planned: this.layer.value});
    this.reads = select("Arrows", [["both", "both"], ["agent", "steps"], ["box", "pushes"]], "reads");
    this.kernel = select("Cells that a probe sees", [[1, "a cell"], [3, "3 × 3 cells"]], "kernel", Number);
    this.thinking = el("input", {type: "number", min: 0, max: MOST, value: state.thinking});
    this.thinking.onchange = () => set({thinking: Math.max(0, Math.min(MOST, Math.round(+this.thinking.value) || 0)), tick: null});
    this.on = Object.assign(el("button", {type: "button", title: "The agent goes on from here after these further looks"}, "Think, then play on"), {onclick: () => this.go()});
    this.slow = el("input", {type: "checkbox", ...(state.slow ? {checked: ""} : {})});
    this.slow.onchange = () => set({slow: this.slow.checked ? 1 : null});
    this.forms = el("div", {class: "controls"}, el("label", {}, "read at ", this.layer), el("label", {}, "arrows ", this.reads), el("label", {}, "probes of ", this.kernel),
      el("label", {title: "Thinking: how often the agent sees this board again before it acts"}, "further looks ", this.thinking), this.on, el("label", {title: "Play shows every tick of a frame before the next one"}, this.slow, " play tick by tick"));
    this.sheet = el("div", {});
    this.text = el("div", {});
    this.node = el("div", {class: "plan"}, this.forms, this.sheet, this.text);
  }
  start() {
    listen(["planned", "kernel", "thinking", "changes"], () => this.load());
    listen(["tick", "unchanged", "reads"], () => { this.show(); this.page.stage.draw(); });
    this.load();
  }
  async load() {
    const {episode} = this.page;
    if (episode.steps < 0) return;
    const step = Math.min(state.step, episode.steps), body = {...episode.about(step), layer: state.planned, kernel: state.kernel, thinking: Math.min(MOST, state.thinking), changes: state.changes};
    const mine = this.busy = {};
    const [found, bitmap] = await Promise.all([trying(() => this.newest(signal => ask("plan", body, signal)), "plan"), episode.frame(step).catch(() => null)]);
    if (this.busy === mine) this.busy = null;
    if (!found || !bitmap || episode !== this.page.episode) return;
    this.found = {...found, step, bitmap, ended: episode.ended && step === episode.steps};
    this.show();
    this.page.stage.draw();
  }

  async go() {
    const looks = state.thinking;
    set({thinking: 0, tick: null});
    await this.page.stage.think(looks);
  }
  get lays() { return Boolean(this.found?.looks) && !this.found.ended; }
  get count() { return this.found.looks.length * this.found.looks[0].length; }
  // Ticks are counted on through the looks; the one chosen, by default the last.
  get at() { return Math.min(state.tick ?? Infinity, this.count - 1); }
  get unchanged() { return state.unchanged !== null || !this.found.changed; }
  arrows(at, looks = this.unchanged ? this.found.looks : this.found.changed) { return looks.flat()[at]; }
  get read() { return Object.keys(READ).filter(each => ["both", each].includes(state.reads)); }
  get overlay() {
    return (context, scale, [top, left, bottom, right], step) => {
      if (this.lays && this.found.step === step) this.lay(context, this.arrows(this.at), [left, top, right, bottom].map(each => each * scale));
    };
  }
  lay(context, arrows, [left, top, right, bottom]) {
    const [rows, columns] = this.found.size, side = [(right - left) / columns, (bottom - top) / rows];
    for (const name of this.read)
      for (const [row, column, direction, sure] of arrows[name]) draw(context, left + side[0] * (column + .5), top + side[1] * (row + .5), side[0], direction, sure, READ[name]);
  }
  // Another tick of this frame, if there is one: by keyboard, and while it plays tick by tick.
  turn(by) {
    if (!this.lays) return;
    const to = this.at + by;
    if (to >= 0 && to < this.count) set({tick: to});
  }
  onward() {
    if (!state.slow || !this.lays) return false;
    if (this.busy) return true;
    const last = this.at === this.count - 1;
    set({tick: last ? 0 : this.at + 1});
    return !last;
  }

  show() {
    const {found} = this;
    if (document.activeElement !== this.thinking) this.thinking.value = state.thinking;  // not while it is typed in
    this.on.disabled = !state.thinking || !this.lays;
    if (!found) return;
    this.forms.hidden = Boolean(found.missing);
    this.sheet.hidden = Boolean(found.missing || found.ended);
    if (found.missing) return this.text.replaceChildren(note(`Linear probes read the plan, and a command fits them: ${found.missing} It is read here from the next frame on.`));
    if (found.layers.join() !== [...this.layer.options].map(each => each.value).join()) this.layer.replaceChildren(...found.layers.map(layer => el("option", {value: layer}, layer)));
    this.layer.value = found.layer;
    if (found.ended) return this.text.replaceChildren(note("The episode has ended: nothing is planned."));
    const rows = found.changed ? [["under the changes", found.changed, null], ["as it is", found.looks, 1]] : [["", found.looks, null]];
    put(this.sheet, rows.map(([title, looks, unchanged]) => this.row(title, looks, unchanged)));
    this.text.replaceChildren(...[this.said(), this.effect(), this.thought(), ...this.scored()].filter(each => each));
  }
  row(title, looks, unchanged) {
    const ticks = looks[0].length, chosen = (unchanged !== null) === this.unchanged || !this.found.changed;
    const tiles = looks.flat().map((arrows, at) => {
      const name = (looks.length > 1 ? `look ${Math.floor(at / ticks) + 1}, ` : "") + `tick ${at % ticks + 1}`;
      return this.tile(`${title} ${at}`, name, arrows, chosen && at === this.at, () => set({tick: at, unchanged}));
    });
    if (unchanged !== null || !this.found.changed) tiles.push(this.tile("came", "what it then did", this.found.came, null));
    const row = this.rows.get(title) ?? el("div", {}, title ? el("h3", {}, title) : null, el("div", {class: "tiles", role: "group", "aria-label": title || "ticks"}));
    this.rows.set(title, row);
    put(row.lastChild, tiles);
    return row;
  }
  // The board with the arrows of a tick, on the canvas that it had in the frame before; chosen by a click.
  tile(key, name, arrows, chosen, call) {
    const node = this.tiles.get(key) ?? el(call ? "button" : "figure", call ? {type: "button"} : {}, el("canvas", {"aria-hidden": "true"}), el("span", {})), {bitmap} = this.found, canvas = node.firstChild;
    this.tiles.set(key, node);
    node.className = "tile" + (chosen ? " chosen" : "");
    node.lastChild.textContent = name;
    if (call) { node.onclick = call; node.setAttribute("aria-pressed", chosen); node.setAttribute("aria-label", `${name}: ${counted(arrows, this.read)}`); }
    Object.assign(canvas, {width: bitmap.width, height: bitmap.height});
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    this.lay(context, arrows, [0, 0, bitmap.width, bitmap.height]);
    return node;
  }
  said() {
    const ticks = this.found.looks[0].length, look = Math.floor(this.at / ticks);
    const legend = this.read.map((name, i) => [Object.assign(el("span", {class: "swatch", "aria-hidden": "true"}), {style: `background:rgb(${READ[name].colour})`}), READ[name].what + (i < this.read.length - 1 ? ", " : ".")]);
    return el("p", {}, `After ${look ? `look ${look + 1}, ` : ""}tick ${this.at % ticks + 1} of ${ticks}: ${counted(this.arrows(this.at), this.read)}, the surer the more opaque. `, legend.flat());
  }
  // Of how many cells the plan differs under the changes, beside random changes.
  effect() {
    if (!this.found.changed) return null;
    const differ = this.found.differ.flat()[this.at], controls = this.found.controls.map(each => each.flat()[this.at]), beyond = controls.every(each => each < differ);
    return el("p", {class: beyond ? "beyond" : "within"}, `The changes give ${differ} ${differ === 1 ? "cell" : "cells"} another class at this tick; ${controls.length} random changes of the same size ${Math.min(...controls)} to ${Math.max(...controls)}. ` +
      (beyond ? "The plan changes more than under every random change." : "That lies within the random changes: no evidence that the plan depends on what is changed."));
  }
  // What further looks do to the decision.
  thought() {
    const rows = numbers(this.found.preferences), [looks, count] = rows.shape;
    if (looks < 2) return null;
    const before = shown("logits", rows.subarray(0, count)), after = shown("logits", rows.subarray((looks - 1) * count)), best = after.indexOf(Math.max(...after)), was = before.indexOf(Math.max(...before));
    const {actions} = this.page.info;
    return el("p", {}, `After ${looks - 1} further ${looks > 2 ? "looks" : "look"} it would go ${actions[best]} (${pct(after[best], 0)}); at the first, ${actions[was]} (${pct(before[was], 0)}). How well probes read was measured without further looks.`);
  }
  // How well the probes of this tick read, beside their controls.
  scored() {
    const tick = this.at % this.found.looks[0].length, better = [], worse = [];
    const rows = this.read.map(name => {
      const {f1, interval, controls} = this.found.scores[name][tick];
      (interval && interval[0] > Math.max(...Object.values(controls)) ? better : worse).push(READ[name].name);
      return [READ[name].name, `${num(f1, 2)}${interval ? ` [${num(interval[0], 2)}, ${num(interval[1], 2)}]` : ""}`, ...Object.keys(CONTROLS).map(each => num(controls[each], 2))];
    });
    const sentence = [better.length ? `More of ${better.join(" and of ")} is read from the agent than from any control.` : "", worse.length ? `Of ${worse.join(" and of ")} it is not clearly more: those arrows may say no more than the board does.` : ""].join(" ");
    return [el("h3", {}, "How well it is read"), table(["what", "this tick", ...Object.values(CONTROLS)], rows, 0),
      el("p", {class: "soft"}, "Macro-F1 on levels that the probes were not fitted on, with its 95% interval, beside the same probes of what has no plan. " + sentence)];
  }
}

const counted = (arrows, names) => names.map(name => READ[name].counted(arrows[name].length)).reverse().join(" and ");
function draw(context, x, y, side, direction, sure, {colour, shaft, head}) {
  const [down, right] = MOVES[direction], corners = [[-.36, shaft], [.04, shaft], [.04, head], [.38, 0], [.04, -head], [.04, -shaft], [-.36, -shaft]];
  Object.assign(context, {fillStyle: `rgba(${colour}, ${.35 + .65 * sure})`, strokeStyle: `rgba(255, 255, 255, ${.3 + .6 * sure})`, lineWidth: Math.max(1, side / 32), lineJoin: "round"});
  context.beginPath();
  for (const [along, across] of corners) context.lineTo(x + side * (along * right - across * down), y + side * (along * down + across * right));
  context.closePath();
  context.fill();
  context.stroke();
}
