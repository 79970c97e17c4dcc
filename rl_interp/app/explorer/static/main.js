// The page: the list of runs, or one agent with its episode, decision, panels and timeline.
import {Changes} from "./changes.js";
import {ClusterView} from "./clusters.js";
import {Decision} from "./decision.js";
import {Editor} from "./editor.js";
import {Imagination} from "./dream.js";
import {Episode, ownPart} from "./episode.js";
import {Features} from "./features.js";
import {sheet} from "./help.js";
import {Layers} from "./layers.js";
import {MazeEditor} from "./maze.js";
import {take} from "./names.js";
import {Plan} from "./plan.js";
import {runs} from "./runs.js";
import {Saliency} from "./saliency.js";
import {ask, eager, newest, say, trying} from "./server.js";
import {Stage} from "./stage.js";
import {fresh, listen, read, set, silence, state, write} from "./state.js";
import {Take} from "./take.js";
import {Timeline} from "./timeline.js";

const TABS = {layer: ["Layers", Layers], features: ["Features", Features], clusters: ["Clusters", ClusterView], change: ["Change", Changes], saliency: ["Saliency", Saliency], plan: ["Plan", Plan], maze: ["Maze", MazeEditor], edit: ["Edit", Editor], dream: ["Imagination", Imagination], take: ["Take away", Take]};

const SOON = 250;  // milliseconds
const has = (info, tab) => ({maze: info.maze, plan: info.plan, edit: info.editable, clusters: Object.values(info.points).includes("spatial"), dream: info.kind === "dreamerv3"}[tab] ?? true);

class Page {
  constructor(info) {
    take(info.sae?.names);
    Object.assign(this, {info, shown: "layer", growing: null, panels: new Map(), latest: newest()});
    const base = {run: state.run, ...(state.checkpoint === null ? {} : {checkpoint: state.checkpoint}), ...(state.sae === null ? {} : {sae: state.sae})};
    this.episode = new Episode(base, state);
    if (!state.point || !(state.point in info.points)) state.point = firstPoint(info.points);
    Object.assign(this, {stage: new Stage(this), timeline: new Timeline(this), decision: new Decision(this)});
    this.tabs = el("div", {role: "tablist", "aria-label": "Views"}, Object.entries(TABS).filter(([name]) => has(info, name)).map(([name, [text]], i) =>
      Object.assign(el("button", {type: "button", role: "tab", id: "tab-" + name, "aria-controls": "panel", title: `${text} (${i + 1})`}, text), {onclick: () => set({tab: name})})));
    this.panel = el("section", {id: "panel", role: "tabpanel", tabindex: 0});
    this.seed = el("input", {type: "number", min: 0, max: 1073741823, value: state.seed, id: "seed"});
    this.seed.onchange = () => this.again(+this.seed.value || 0);
    this.stop = Object.assign(el("button", {type: "button"}, "Stop recording"), {onclick: () => this.growing?.abort()});
    this.stored = el("select", {"aria-label": "Recorded episodes", hidden: ""}, el("option", {value: ""}, "recorded episodes …"));
    this.stored.onchange = () => this.restore(this.stored.value);
    const more = el("div", {class: "controls"}, el("label", {for: "seed", title: "Another number, another episode"}, "episode"), this.seed, this.stored, this.stop);
    this.stage.node.append(more);
    $("main").replaceChildren(el("div", {class: "top"}, this.stage.node, el("div", {class: "right"}, this.decision.node, el("section", {id: "views", "aria-label": "Views"}, this.tabs, this.panel))), this.timeline.node);
    this.refresh = eager(() => this.look());
  }
  start() {
    listen(["step"], () => this.moved());
    listen(["tab"], () => this.open());
    listen(["tracks"], () => { this.timeline.draw(); this.timeline.load(); });
    listen(["changes"], () => { if (state.tab !== "change") { this.decision.effect = null; this.panelOf("change").load(); } });
    this.open();
    this.grow();
    this.list();
  }
  // Episodes of the agent's activation stores, which are played again from their seeds and actions.
  async list() {
    const found = await trying(() => ask("stored", this.episode.base), "recorded episodes");
    if (!found?.episodes.length) return;
    this.stored.append(...found.episodes.map(each => el("option", {value: JSON.stringify([each.hook, each.episode])}, `${each.hook}: episode ${each.episode}, ${each.steps} steps`)));
    this.stored.hidden = false;
  }
  async restore(which, step = 0) {
    if (!which) return;
    const [hook, episode] = JSON.parse(which);
    const found = await trying(() => this.latest(signal => ask("stored", {...this.episode.base, hook, episode}, signal)), "recorded episode");
    if (!found) return;
    set({seed: found.seed, maze: "", fork: null});
    this.seed.value = found.seed;
    await this.replay([ownPart(found.actions)], step, "", true);
  }
  renamed() {
    this.timeline.draw();
    this.panels.get("features")?.show();
  }
  panelOf(name) {
    if (!this.panels.has(name)) this.panels.set(name, new TABS[name][1](this));
    return this.panels.get(name);
  }
  get tab() { return state.tab in TABS && has(this.info, state.tab) ? state.tab : "layer"; }
  open() {
    const name = this.tab, panel = this.panelOf(name);
    if (name !== "take") this.shown = name;
    this.face(name);
    this.active = panel;
    Object.assign(this.stage, {overlay: panel.overlay ?? null, picked: panel.picked ?? null, editor: name === "edit" ? panel : null});
    this.fill(name);
    this.stage.draw();
  }
  // The tab that is marked, and its panel below.
  face(name) {
    for (const tab of this.tabs.children) tab.setAttribute("aria-selected", tab.id === "tab-" + name);
    this.panel.setAttribute("aria-labelledby", "tab-" + name);
    this.panel.replaceChildren(this.panelOf(name).node);
  }
  // A panel begins, or is brought up to date.
  fill(name) {
    const panel = this.panelOf(name);
    if (panel.started) return panel.load();
    panel.started = true;
    return panel.start();
  }
  // A frame is drawn with what is laid over it, when the server has answered, or soon.
  moved() {
    clearTimeout(this.late);
    if (this.active.lays) this.late = setTimeout(() => this.stage.draw(), SOON);
    else this.stage.draw();
    this.decision.draw();
    this.timeline.point();
    this.refresh();
  }
  async look() {
    await this.active.load();
    if (this.tab === "take") await this.fill(this.shown);  // which is what is taken away
    if (state.changes.length && this.active !== this.panels.get("change")) await this.panelOf("change").load();
  }

  // Records the episode on, while it is looked at already.
  async grow() {
    this.growing?.abort();
    const mine = this.growing = new AbortController(), {episode} = this;
    const grown = first => {
      if (this.episode !== episode) return;
      this.stop.hidden = episode.whole;
      this.timeline.draw();
      if (first) this.moved();
      this.panels.get("change")?.split();
      this.stage.tell();
    };
    this.stop.hidden = false;
    let first = true;
    await trying(() => episode.reach(Infinity, mine.signal, () => { if (state.step > episode.steps && episode.whole) set({step: episode.steps}); grown(first || state.step >= episode.steps - 120); first = false; }).catch(error => {
      if (error.name !== "AbortError") throw error;
      episode.parts = episode.recipe(Math.max(1, episode.steps)).parts;
    }), "recording");
    if (mine !== this.growing) return;
    this.stop.hidden = true;
    state.parts = episode.parts;
    this.timeline.draw();
    this.timeline.load();
  }
  // Another episode in place of this one, the same up to where the parts differ; unless a third was asked for meanwhile.
  async replay(parts, step, maze = state.maze, anew = false) {
    if (page !== this) return false;  // it was left meanwhile
    const same = maze === this.episode.maze && state.seed === this.episode.seed && !anew ? common(parts, this.episode.parts) : 0;
    const other = same ? this.episode.fork(Math.min(same, this.episode.steps)) : new Episode(this.episode.base, {seed: state.seed, maze, parts});
    Object.assign(other, {parts, seed: state.seed, maze});
    const edits = [...parts, ...this.episode.parts].some(part => part.edits.length || part.thinking);
    if (edits) other.frames.delete(other.steps);  // it may look otherwise now
    const until = parts.at(-1)?.actions.length && !anew ? Infinity : edits ? Math.max(step, other.steps + 1) : step;
    if (!await trying(() => this.latest(signal => other.reach(until, signal).then(() => true)), "recording")) return false;
    this.episode = other;
    this.timeline.draw();
    set({parts, maze, step: Math.min(step, other.steps), fork: state.fork > step ? null : state.fork});
    this.moved();
    this.grow();
    return true;
  }
  again(seed) {
    set({seed, maze: "", step: 0, fork: null, edited: ""});
    this.stage.own = false;
    this.replay(structuredClone(fresh("").parts), 0, "");
  }
  reopen(changes) {
    set(changes);
    history.replaceState(null, "", write());
    show();
  }
  // What it still waits for is given up.
  leave() {
    this.stage.toggle(false);
    this.growing?.abort();
    this.growing = null;
    this.latest(() => null);
  }
}

// How many steps two lists of parts have in common.
function common(one, two) {
  const flat = parts => parts.flatMap(({steps, changes, control, actions, edits, thinking}) => Array.from({length: steps}, (_, i) => JSON.stringify([changes, control, actions[i] ?? null, ...i ? [[], 0] : [edits, thinking]])));
  const [a, b] = [flat(one), flat(two)], differ = a.findIndex((each, i) => each !== b[i]);
  return differ < 0 ? a.length : differ;
}
const firstPoint = points => {
  const names = Object.keys(points), spatial = names.filter(name => points[name] === "spatial");
  return spatial.find(name => name.endsWith(".post")) ?? spatial.findLast(name => name.endsWith(".c")) ?? spatial[0] ?? names[0] ?? "";
};

let page = null;
const opening = newest();
async function show() {
  silence();
  page?.leave();
  page = null;
  say("");
  $("back").hidden = !state.run;
  document.title = state.run ? `${state.run} – explorer` : "rl-interp explorer";
  $("title").textContent = state.run || "Explorer";
  $("about").textContent = "";
  if (!state.run) {
    opening(() => null);  // gives up what is still being opened
    return runs(run => { Object.assign(state, fresh(run)); history.pushState(null, "", write()); show(); });
  }
  $("main").replaceChildren(note(`Opening ${state.run} …`));
  const wanted = {run: state.run, ...(state.checkpoint === null ? {} : {checkpoint: state.checkpoint}), ...(state.sae === null ? {} : {sae: state.sae})};
  const info = await trying(() => opening(signal => ask("open", wanted, signal)), state.run);
  if (info === undefined) return;  // something else was opened meanwhile
  if (!info) { $("main").replaceChildren(note("This can't be opened, for the reason above. Choose another run.")); return; }
  $("about").textContent = `${info.kind} in ${info.env}, checkpoint ${info.checkpoint.toLocaleString("en")}`;
  page = new Page(info);
  globalThis.explorer = page;  // for whoever drives the page by a script
  page.start();
}

$("back").onclick = () => { Object.assign(state, fresh("")); history.pushState(null, "", location.pathname); show(); };
$("help").onclick = sheet;
addEventListener("hashchange", () => { Object.assign(state, read()); show(); });  // going back and forward too
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  if (event.key === "?") return sheet();
  if (!page) return;
  const tab = [...page.tabs.children][+event.key - 1];
  if (/^[1-9]$/.test(event.key) && tab) tab.click();
  else if (event.key === "u" && page.active.undo) page.active.undo();
  else if ([",", "."].includes(event.key) && page.active.turn) page.active.turn(event.key === "," ? -1 : 1);
  else if ([" ", "Enter"].includes(event.key) && event.target.closest("button, summary, a")) return;
  else if (!page.stage.key(event)) return;
  event.preventDefault();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page?.timeline.draw());

Object.assign(state, read());
show();
