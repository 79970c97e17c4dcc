// What the positions of a layer are about: clusters of their values over the episode, on the frame and on a scatter plot.
import {box, nearest, pointed} from "./places.js";
import {ask, newest, numbers, trying} from "./server.js";
import {listen, set, state} from "./state.js";

// Safe for the colour-blind (Okabe and Ito 2008), then lighter and darker ones.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999", "#ffd27f", "#bfe3ff", "#7fd9c0", "#fff7a0", "#6fa8dc", "#ffb08a", "#eac1d8", "#dddddd", "#a87400", "#2b6f99", "#00593f", "#8f8a1d"];
const SIDE = 320;

export class ClusterView {
  constructor(page) {
    Object.assign(this, {page, newest: newest(), found: null, lit: null});
    const spatial = Object.entries(page.info.points).filter(([, kind]) => kind === "spatial").map(([name]) => name);
    this.point = el("select", {"aria-label": "Layer"}, spatial.map(name => el("option", {value: name}, name)));
    this.point.value = spatial.includes(state.point) ? state.point : spatial[0] ?? "";
    this.point.onchange = () => set({point: this.point.value});
    this.count = el("input", {type: "number", min: 2, max: 20, value: state.clusters});
    this.count.onchange = () => set({clusters: Math.max(2, Math.min(20, Math.round(+this.count.value) || 8))});
    this.text = note("");
    this.scatter = el("canvas", {class: "scatter", role: "img", "aria-label": "positions on the two main axes of the layer", width: SIDE, height: SIDE});
    this.scatter.onpointermove = event => this.light(this.pointAt(event));
    this.scatter.onpointerleave = () => this.light(null);
    page.stage.canvas.addEventListener("pointermove", event => { if (page.active === this) this.over(event); });
    page.stage.canvas.addEventListener("pointerleave", () => { if (page.active === this) this.light(null); });
    this.list = el("div", {class: "clusters"});
    this.node = el("div", {}, el("div", {class: "controls"}, el("label", {}, "layer ", this.point), el("label", {}, "clusters ", this.count)), this.text, el("div", {class: "columns"}, this.scatter, this.list));
  }
  start() {
    listen(["point", "clusters"], () => this.load());
    this.load();
  }
  async load() {
    const {episode} = this.page;
    if (!this.point.value) { this.text.textContent = "This agent has no layer with positions."; return; }
    if (!episode.whole) { this.text.textContent = "The clusters are found once the episode is recorded."; setTimeout(() => { if (this.page.active === this) this.load(); }, 500); return; }
    if ([...this.point.options].some(each => each.value === state.point)) this.point.value = state.point;
    const body = {...episode.about(Math.min(state.step, episode.steps)), point: this.point.value, count: state.clusters};
    if (!this.found) this.text.textContent = "Finding clusters …";
    const found = await trying(() => this.newest(signal => ask("clusters", body, signal)), "clusters");
    if (!found) return;
    this.found = {...found, step: body.step, points: numbers(found.points), others: numbers(found.others)};
    this.show();
  }
  show() {
    const {share, assigned} = this.found;
    this.text.textContent = `Positions that hold alike values have one colour, found over the whole episode (k-means). The plot has the layer's two main axes, with ${pct(share, 0)} of its variance: large points are of this frame. Point at one, or at the frame.`;
    const counts = Array.from({length: state.clusters}, (_, i) => assigned.filter(each => each === i).length);
    if (!this.list.contains(document.activeElement)) this.list.replaceChildren(...counts.map((count, i) => this.row(i, count)));
    this.draw();
    this.page.stage.draw();
  }
  row(i, count) {
    const name = el("input", {type: "text", maxlength: 40, size: 8, value: this.nameOf(i), "aria-label": `name of cluster ${i}`, placeholder: `cluster ${i}`});
    const colour = el("input", {type: "color", value: this.colourOf(i), "aria-label": `colour of cluster ${i}`});
    name.onchange = () => this.keep(i, name.value, this.colourOf(i));
    colour.oninput = () => this.keep(i, this.nameOf(i), colour.value);
    const row = el("div", {class: "controls"}, colour, name, el("span", {class: "soft"}, `${count} here`));
    row.onpointerenter = () => this.light(i);
    row.onpointerleave = () => this.light(null);
    name.onfocus = () => this.light(i);
    return row;
  }
  // Names and colours are in the address: "3 #ff0000 walls" of cluster 3.
  given(i) { return state.named.find(each => each.startsWith(`${i} `))?.split(" ").slice(1) ?? []; }
  nameOf(i) { return this.given(i).slice(1).join(" "); }
  colourOf(i) { const [colour] = this.given(i); return /^#[0-9a-f]{6}$/i.test(colour ?? "") ? colour : COLOURS[i]; }
  keep(i, name, colour) {
    set({named: [...state.named.filter(each => !each.startsWith(`${i} `)), `${i} ${colour} ${name.trim()}`]});
    this.draw();
    this.page.stage.draw();
  }
  light(cluster) {
    if (cluster === this.lit) return;
    this.lit = cluster;
    [...this.list.children].forEach((row, i) => row.classList.toggle("lit", i === cluster));
    this.draw();
    this.page.stage.draw();
  }
  over(event) {
    const {stage, episode} = this.page;
    if (!this.found?.grid) return;
    const [x, y] = pointed(event, stage.canvas).map(each => each / stage.scale);
    this.light(this.found.assigned[nearest(episode.observed[this.found.step], this.found, x, y)]);
  }
  // From the plane to the plot.
  get at() {
    const {others, points} = this.found, all = [others, points];
    const low = [0, 1].map(axis => Math.min(...all.flatMap(each => Array.from(each).filter((_, i) => i % 2 === axis)))), high = [0, 1].map(axis => Math.max(...all.flatMap(each => Array.from(each).filter((_, i) => i % 2 === axis))));
    return (x, y) => [10 + (x - low[0]) / (high[0] - low[0] || 1) * (SIDE - 20), SIDE - 10 - (y - low[1]) / (high[1] - low[1] || 1) * (SIDE - 20)];
  }
  draw() {
    const {others, of_others: of, points, assigned} = this.found, context = this.scatter.getContext("2d"), place = this.place = this.at;
    context.clearRect(0, 0, SIDE, SIDE);
    const dot = (x, y, cluster, size) => {
      context.globalAlpha = this.lit === null || this.lit === cluster ? 1 : .12;
      context.fillStyle = this.colourOf(cluster);
      context.beginPath();
      context.arc(...place(x, y), size, 0, 2 * Math.PI);
      context.fill();
      if (size > 3) Object.assign(context, {strokeStyle: "rgb(40, 40, 40)", lineWidth: 1}).stroke();
    };
    of.forEach((cluster, i) => dot(others[2 * i], others[2 * i + 1], cluster, 1.8));
    assigned.forEach((cluster, i) => dot(points[2 * i], points[2 * i + 1], cluster, 4));
    context.globalAlpha = 1;
  }
  pointAt(event) {
    if (!this.found) return null;
    const [x, y] = pointed(event, this.scatter), {others, of_others: of, points, assigned} = this.found;
    let best = null, least = 100;
    const look = (list, clusters) => clusters.forEach((cluster, i) => {
      const [px, py] = this.place(list[2 * i], list[2 * i + 1]), far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least) [best, least] = [cluster, far];
    });
    look(points, assigned);
    look(others, of);
    return best;
  }
  get overlay() {
    return (context, scale, observed, step) => {
      if (!this.found?.grid || this.found.step !== step) return;
      const {grid: [, columns], assigned, first, stride} = this.found;
      assigned.forEach((cluster, i) => {
        const row = Math.floor(i / columns), column = i % columns;
        const around = [first[0] + stride[0] * (row - .5), first[1] + stride[1] * (column - .5), first[0] + stride[0] * (row + .5), first[1] + stride[1] * (column + .5)];
        const [left, top, right, bottom] = box(observed, around).map(each => Math.round(each * scale));
        context.globalAlpha = this.lit === null ? .45 : this.lit === cluster ? .7 : .08;
        context.fillStyle = this.colourOf(cluster);
        context.fillRect(left, top, right - left, bottom - top);
      });
      context.globalAlpha = 1;
    };
  }
}
