// What can be taken away: a link, pictures, and the lines that give the same.
import {ask, newest, trying} from "./server.js";
import {state, write} from "./state.js";

export class Take {
  constructor(page) {
    Object.assign(this, {page, newest: newest()});
    this.link = el("input", {type: "text", readonly: "", id: "link"});
    this.python = el("pre", {tabindex: 0, "aria-label": "Python lines"});
    this.command = el("pre", {tabindex: 0, "aria-label": "Command"});
    const button = (text, call) => Object.assign(el("button", {type: "button"}, text), {onclick: call});
    const copy = text => button("Copy", async event => { await navigator.clipboard.writeText(text()); event.target.textContent = "Copied"; });
    this.node = el("div", {}, el("div", {class: "controls"}, el("label", {for: "link"}, "link to this view"), this.link, copy(() => this.link.value)),
      el("div", {class: "controls"}, button("Frame as PNG", () => this.save(page.stage.canvas, "frame")), button("Timeline as PNG", () => this.save(page.timeline.canvas, "timeline"))),
      el("h3", {}, "Python lines that give the same"), this.python, copy(() => this.python.textContent), el("h3", {}, "Command"), this.command, copy(() => this.command.textContent));
  }
  start() { this.load(); }
  async load() {
    const {episode} = this.page;
    this.link.value = location.href.replace(/#.*/, "") + write();
    if (episode.steps < 0) return;
    const shows = {layer: "layer", features: "features", change: "change", saliency: "saliency", maze: "maze"}[this.page.shown] ?? "decision";
    const tab = shows === "features" && !this.page.info.sae || shows === "change" && !state.changes.length ? "decision" : shows;
    const view = {step: Math.min(state.step, episode.steps), tab, point: state.point, changes: state.changes, method: state.method || this.page.info.methods[0],
      target: state.target || (this.page.info.discrete ? "advantage" : "value"), maze: state.edited};
    const found = await trying(() => this.newest(signal => ask("lines", {...episode.about(), view}, signal)), "lines");
    if (!found) return;
    this.python.textContent = found.python;
    this.command.textContent = found.command;
  }
  save(canvas, what) {
    canvas.toBlob(blob => {
      const link = el("a", {download: `${state.run}-${what}-step${state.step}.png`});
      link.href = URL.createObjectURL(blob);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
}
