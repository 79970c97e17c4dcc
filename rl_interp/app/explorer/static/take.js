// What can be taken away: a link, pictures, and the lines that give the same.
import {ask, film, newest, trying} from "./server.js";
import {snapshot, styles} from "./snapshot.js";
import {listen, state, write} from "./state.js";

export class Take {
  constructor(page) {
    Object.assign(this, {page, newest: newest()});
    this.link = el("input", {type: "text", readonly: "", id: "link"});
    this.python = el("pre", {tabindex: 0, "aria-label": "Python lines"});
    this.command = el("pre", {tabindex: 0, "aria-label": "Command"});
    const button = (text, call) => Object.assign(el("button", {type: "button"}, text), {onclick: call});
    const copy = text => button("Copy", async event => { await navigator.clipboard.writeText(text()); event.target.textContent = "Copied"; });
    this.node = el("div", {}, el("div", {class: "controls"}, el("label", {for: "link"}, "link to this view"), this.link, copy(() => this.link.value)),
      el("div", {class: "controls"}, button("Frame as PNG", () => this.save(page.stage.canvas, "frame")), button("Timeline as PNG", () => this.save(page.timeline.canvas, "timeline")),
        button("Page as one HTML file", event => this.whole(event.target)), this.mp4 = button("Episode as MP4", () => this.film())),
      el("h3", {}, "Python lines that give the same"), this.python, copy(() => this.python.textContent), el("h3", {}, "Command"), this.command, copy(() => this.command.textContent));
  }
  start() {
    listen(Object.keys(state), () => this.tell());
    if (!this.before.started) this.page.fill(this.page.shown);
    this.load();
  }
  tell() { this.link.value = location.href.replace(/#.*/, "") + this.address; }
  async load() {
    const {episode} = this.page;
    this.tell();
    if (episode.steps < 0) return;
    const shows = {layer: "layer", features: "features", change: "change", saliency: "saliency", maze: "maze", clusters: "clusters", plan: "plan"}[this.page.shown] ?? "decision";
    const plan = this.page.panels.get("plan")?.found;
    const tab = shows === "features" && state.whole && state.feature !== null && this.page.info.sae ? "feature" : shows === "features" && !this.page.info.sae || shows === "change" && !state.changes.length || shows === "plan" && !plan?.looks ? "decision" : shows;
    const view = {step: Math.min(state.step, episode.steps), tab, point: shows === "plan" && plan?.looks ? plan.layer : state.point, changes: state.changes, method: state.method || this.page.info.methods[0],
      target: state.target || this.page.info.target, maze: state.edited, feature: state.feature ?? 0, clusters: state.clusters, beside: this.page.panels.get("clusters")?.others ?? [], plane: state.plane, kernel: state.kernel, thinking: state.thinking};
    const found = await trying(() => this.newest(signal => ask("lines", {...episode.about(), view}, signal)), "lines");
    if (!found) return;
    this.python.textContent = found.python;
    this.command.textContent = found.command;
  }
  // What is taken away is the tab that was looked at before this one: its address, and what it lays over the frame.
  get address() { return write({...state, tab: this.page.shown}); }
  get before() { return this.page.panelOf(this.page.shown); }
  get overlay() { return (...frame) => this.before.overlay?.(...frame); }
  get lays() { return this.before.lays; }
  save(canvas, what) { canvas.toBlob(blob => download(blob, `${state.run}-${what}-step${state.step}.png`)); }
  async whole(button) {
    const {page} = this, css = await trying(styles, "page");
    if (!css) return;
    page.face(page.shown);
    const text = snapshot(css, this.address, this.python.textContent);
    page.face(page.tab);
    button.focus();
    download(new Blob([text], {type: "text/html"}), `${state.run}-step${state.step}.html`);
  }
  // The episode, with the unit or feature that is chosen laid over it, if it has places.
  async film() {
    const {shown, info, episode} = this.page, spatial = at => info.points[at] === "spatial";
    const of = shown === "layer" && state.unit !== null && spatial(state.point) ? `unit:${state.point}:${state.unit}` : shown === "features" && state.feature !== null && spatial(info.sae?.hook) ? `feature:${state.feature}` : "";
    Object.assign(this.mp4, {disabled: true, textContent: "Drawing the film …"});
    const found = await trying(() => film({...episode.about(), of}), "film");
    Object.assign(this.mp4, {disabled: false, textContent: "Episode as MP4"});
    if (found) download(found, `${state.run}-episode.mp4`);
  }
}

function download(blob, name) {
  const link = el("a", {download: name});
  link.href = URL.createObjectURL(blob);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
