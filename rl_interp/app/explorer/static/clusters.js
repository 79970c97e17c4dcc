// What the positions of layers are about: clusters of their values over the episode, on the frame, on small frames of
// other layers beside it, and on a scatter plot.
import {box, nearest, pointed} from "./places.js";
import {ask, newest, numbers, trying} from "./server.js";
import {listen, set, state} from "./state.js";

// Safe for the colour-blind (Okabe and Ito 2008), then lighter and darker ones.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999", "#ffd27f", "#bfe3ff", "#7fd9c0", "#fff7a0", "#6fa8dc", "#ffb08a", "#eac1d8", "#dddddd", "#a87400", "#2b6f99", "#00593f", "#8f8a1d"];
const SIDE = 320, BESIDE = 3;
const PLANES = {pca: "PCA", umap: "UMAP"};

export class ClusterView {
  constructor(page) {
    Object.assign(this, {page, newest: newest(), found: null, lit: null, small: new Map()});
    this.spatial = Object.entries(page.info.points).filter(([, kind]) => kind === "spatial").map(([name]) => name);
    this.point = el("select", {"aria-label": "Layer"}, this.spatial.map(name => el("option", {value: name}, name)));
    this.point.value = this.spatial.includes(state.point) ? state.point : this.spatial[0] ?? "";
    this.point.onchange = () => set({point: this.point.value});
    this.more = el("select", {"aria-label": "Another layer beside it", title: "Its clusters are numbered as those whose places they share"});
    this.more.onchange = () => set({beside: [...this.others, this.more.value]});
    this.count = el("input", {type: "number", min: 2, max: 20, value: state.clusters});
    this.count.onchange = () => set({clusters: Math.max(2, Math.min(20, Math.round(+this.count.value) || 8))});
    this.plane = el("select", {"aria-label": "Plot", title: "PCA: the layer's two main axes. UMAP: alike positions near each other; needs pip install 'rl-interp[umap]'"}, Object.entries(PLANES).map(([name, text]) => el("option", {value: name, ...(page.info.planes.includes(name) ? {} : {disabled: ""})}, text)));
    this.plane.onchange = () => set({plane: this.plane.value});
    this.text = note("");
    this.scatter = el("canvas", {class: "scatter", role: "img", "aria-label": "positions of the layer on a plane", width: SIDE, height: SIDE});
    this.scatter.onpointermove = event => this.light(this.pointAt(event));
    this.scatter.onpointerleave = () => this.light(null);
    page.stage.canvas.addEventListener("pointermove", event => { if (page.active === this && this.found) this.light(this.under(event, page.stage.canvas, page.stage.scale, this.found.layers[0])); });
    page.stage.canvas.addEventListener("pointerleave", () => { if (page.active === this) this.light(null); });
    this.list = el("div", {class: "clusters"});
    this.beside = el("div", {class: "beside"});
    this.node = el("div", {}, el("div", {class: "controls"}, el("label", {}, "layer ", this.point), el("label", {}, "clusters ", this.count), el("label", {}, "plot ", this.plane), this.more), this.text, this.beside, el("div", {class: "columns"}, this.scatter, this.list));
  }
  start() {
    listen(["point", "clusters", "beside", "plane"], () => this.load());
    this.load();
  }
  get others() { return [...new Set(state.beside)].filter(name => this.spatial.includes(name) && name !== this.point.value).slice(0, BESIDE); }
  async load() {
    const {episode} = this.page;
    if (!this.point.value) { this.text.textContent = "This agent has no layer with positions."; return; }
    if (!episode.whole) { this.text.textContent = "The clusters are found once the episode is recorded."; setTimeout(() => { if (this.page.active === this) this.load(); }, 500); return; }
    if (this.spatial.includes(state.point)) this.point.value = state.point;
    this.plane.value = state.plane in PLANES ? state.plane : "pca";
    const left = this.spatial.filter(name => name !== this.point.value && !this.others.includes(name));
    this.more.replaceChildren(el("option", {value: ""}, "another layer beside it …"), ...left.map(name => el("option", {value: name}, name)));
    this.more.hidden = !left.length || this.others.length === BESIDE;
    const body = {...episode.about(Math.min(state.step, episode.steps)), point: this.point.value, beside: this.others, count: state.clusters, plane: this.plane.value};
    const asked = JSON.stringify([body.point, body.beside, body.count, body.plane]);
    if (asked !== this.asked) this.text.textContent = body.plane === "umap" ? "Finding clusters, and laying positions out: half a minute at first …" : "Finding clusters …";
    const found = await trying(() => this.newest(signal => ask("clusters", body, signal)), "clusters");
    if (!found) return;
    const layers = found.layers.map(each => ({...each, alike: numbers(each.alike)}));
    this.asked = asked;
    this.key = `${body.point} ${body.count} ${short(JSON.stringify(body.recipe))}`;
    this.found = {...found, layers, step: body.step, points: numbers(found.points), others: numbers(found.others)};
    this.show();
  }
  show() {
    const {share, layers: [first, ...others]} = this.found;
    const plot = share === null ? "The plot has alike positions near each other (distances between groups mean little)" : `The plot has the layer's two main axes, ${pct(share, 0)} of its variance`;
    this.text.textContent = `Positions that hold alike values have one colour (k-means over the episode). ${plot}; large points are of this frame.${others.length ? " Clusters of other layers have the colours of those whose places they share." : " Point at one, or at the frame."}`;
    const counts = Array.from({length: state.clusters}, (_, i) => first.assigned.filter(each => each === i).length);
    if (this.listed !== this.key || !this.list.contains(document.activeElement)) this.list.replaceChildren(...counts.map((count, i) => this.row(i, count)));
    this.listed = this.key;
    this.small = new Map(others.map(({point}) => [point, this.small.get(point) ?? this.figure(point)]));
    const nodes = [...this.small.values()].map(({node}) => node);
    if (nodes.length !== this.beside.children.length || nodes.some(node => !this.beside.contains(node))) this.beside.replaceChildren(...nodes);
    this.again();
  }
  // A layer beside the first: the frame, small, with the layer's clusters over it.
  figure(point) {
    const canvas = el("canvas", {role: "img", "aria-label": `clusters of ${point}`, width: 1, height: 1}), said = el("span", {class: "soft", title: "Of the places that a cluster of this layer or that of the same colour in the first has, those that both have"});
    const remove = Object.assign(el("button", {type: "button", "aria-label": `take ${point} away`}, "×"), {onclick: () => set({beside: this.others.filter(each => each !== point)})});
    canvas.onpointermove = event => this.light(this.under(event, canvas, this.page.stage.scale, this.found.layers.find(each => each.point === point)));
    canvas.onpointerleave = () => this.light(null);
    return {node: el("figure", {}, canvas, el("figcaption", {}, point, " ", remove, el("br", {}), said)), canvas, said};
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
  // Names and colours are in the address: "conv1.post 8 1x2y3z 3 #ff0000 walls" of cluster 3 of 8 of a layer in an episode.
  given(i) {
    const start = `${this.key} ${i} `;
    return state.named.find(each => each.startsWith(start))?.slice(start.length).split(" ") ?? [];
  }
  nameOf(i) { return this.given(i).slice(1).join(" "); }
  colourOf(i) { const [colour] = this.given(i); return /^#[0-9a-f]{6}$/i.test(colour ?? "") ? colour : COLOURS[i]; }
  keep(i, name, colour) {
    set({named: [...state.named.filter(each => !each.startsWith(`${this.key} ${i} `)), `${this.key} ${i} ${colour} ${name.trim()}`]});
    this.again();
  }
  light(cluster) {
    if (cluster === this.lit) return;
    this.lit = cluster;
    [...this.list.children].forEach((row, i) => row.classList.toggle("lit", i === cluster));
    this.again();
  }
  again() {
    this.draw();
    this.drawBeside();
    this.page.stage.draw();
  }
  // The cluster of the position of a layer that is under the pointer, on a frame.
  under(event, canvas, scale, layer) {
    if (!layer?.grid) return null;
    const [x, y] = pointed(event, canvas).map(each => each / scale);
    return layer.assigned[nearest(this.page.episode.observed[this.found.step], layer, x, y)];
  }
  // From the plane to the plot.
  get at() {
    const {others, points} = this.found, all = [others, points];
    const low = [0, 1].map(axis => Math.min(...all.flatMap(each => Array.from(each).filter((_, i) => i % 2 === axis)))), high = [0, 1].map(axis => Math.max(...all.flatMap(each => Array.from(each).filter((_, i) => i % 2 === axis))));
    return (x, y) => [10 + (x - low[0]) / (high[0] - low[0] || 1) * (SIDE - 20), SIDE - 10 - (y - low[1]) / (high[1] - low[1] || 1) * (SIDE - 20)];
  }
  draw() {
    const {others, of_others: of, points, layers: [{assigned}]} = this.found, context = this.scatter.getContext("2d"), place = this.place = this.at;
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
  async drawBeside() {
    const {step} = this.found, {episode, stage} = this.page;
    if (!this.small.size) return;
    const bitmap = await trying(() => episode.frame(step), "frame");
    if (!bitmap || step !== this.found.step) return;
    for (const layer of this.found.layers.slice(1)) {
      const {canvas, said} = this.small.get(layer.point);
      const context = Object.assign(canvas, {width: bitmap.width * stage.scale, height: bitmap.height * stage.scale}).getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      this.paint(context, stage.scale, episode.observed[step], layer);
      const alike = this.lit === null ? layer.alike.reduce((sum, each) => sum + each, 0) / layer.alike.length : layer.alike[this.lit];
      said.textContent = layer.grid ? `${pct(alike, 0)} of places shared${this.lit === null ? " (mean)" : ""}` : "has no places on the frame";
    }
  }
  pointAt(event) {
    if (!this.found) return null;
    const [x, y] = pointed(event, this.scatter), {others, of_others: of, points, layers: [{assigned}]} = this.found;
    let best = null, least = 100;
    const look = (list, clusters) => clusters.forEach((cluster, i) => {
      const [px, py] = this.place(list[2 * i], list[2 * i + 1]), far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least) [best, least] = [cluster, far];
    });
    look(points, assigned);
    look(others, of);
    return best;
  }
  paint(context, scale, observed, {grid, assigned, first, stride}) {
    if (!grid) return;
    const columns = grid[1];
    assigned.forEach((cluster, i) => {
      const row = Math.floor(i / columns), column = i % columns;
      const around = [first[0] + stride[0] * (row - .5), first[1] + stride[1] * (column - .5), first[0] + stride[0] * (row + .5), first[1] + stride[1] * (column + .5)];
      const [left, top, right, bottom] = box(observed, around).map(each => Math.round(each * scale));
      context.globalAlpha = this.lit === null ? .45 : this.lit === cluster ? .7 : .08;
      context.fillStyle = this.colourOf(cluster);
      context.fillRect(left, top, right - left, bottom - top);
    });
    context.globalAlpha = 1;
  }
  get overlay() {
    return (context, scale, observed, step) => {
      if (this.found?.step === step) this.paint(context, scale, observed, this.found.layers[0]);
    };
  }
}

// A few letters that stand for a text.
const short = text => (Array.from(text).reduce((sum, each) => Math.imul(sum, 31) + each.codePointAt(0) | 0, 0) >>> 0).toString(36);
