// The episode along time: a row for each track, a line where the page stands; dragging scrubs.
import {spread} from "./episode.js";
import {called} from "./names.js";
import {pointed} from "./places.js";
import {ask, newest, numbers, trying} from "./server.js";
import {set, state} from "./state.js";

const ROW = 34, GAP = 6, LEFT = 150, FONT = "12px system-ui, sans-serif";
const COLOURS = ["--track-1", "--track-2", "--track-3", "--track-4", "--track-5"];

export class Timeline {
  constructor(page) {
    Object.assign(this, {page, found: new Map(), asked: new Map(), failed: new Map()});
    this.canvas = el("canvas", {id: "timeline", role: "img", "aria-label": "tracks along the episode"});
    this.scrub = el("input", {type: "range", id: "scrub", min: 0, max: 0, value: 0, "aria-label": "Step of the episode"});
    this.scrub.oninput = () => page.stage.go(+this.scrub.value);
    const drag = event => { if (event.buttons & 1) this.seek(event); };
    this.canvas.addEventListener("pointerdown", event => { this.canvas.setPointerCapture(event.pointerId); this.seek(event); });
    this.canvas.addEventListener("pointermove", drag);
    this.tracks = el("div", {class: "tracks", role: "group", "aria-label": "Tracks"});
    this.choice = el("select", {id: "track", "aria-label": "Add a track of the ground truth"}, el("option", {value: ""}, "+ ground truth …"),
      Object.entries(page.info.concepts).map(([name, meaning]) => el("option", {value: "concept:" + name, title: meaning}, name.replaceAll("_", " "))));
    this.choice.onchange = () => { if (this.choice.value) this.add(this.choice.value); this.choice.value = ""; };
    this.node = el("section", {id: "time", "aria-label": "Timeline"}, this.scrub, this.canvas, this.tracks);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.newest = newest();
  }

  add(track) { if (!state.tracks.includes(track)) set({tracks: [...state.tracks, track].slice(-8)}); }
  seek(event) {
    const [x] = pointed(event, this.canvas), ratio = this.canvas.width / this.canvas.clientWidth;
    const share = (x / ratio - LEFT) / (this.canvas.clientWidth - LEFT - 8);
    set({step: Math.max(0, Math.min(this.page.episode.steps, Math.round(share * this.span)))});
  }
  get span() { return Math.max(1, this.page.episode.whole ? this.page.episode.steps : this.page.episode.wanted); }

  // Tracks that the server knows are asked for once the episode is recorded, and again when it has changed.
  async load() {
    const {episode} = this.page, of = key(episode), wanted = state.tracks.filter(each => this.asked.get(each) !== of);
    if (!episode.whole || !wanted.length) return;
    this.failed.clear();
    await this.newest(async signal => {
      for (const track of wanted) {
        const failed = error => { if (!signal.aborted) this.failed.set(track, error.message); throw error; };
        const answer = await trying(() => ask("track", {...episode.about(), track}, signal).catch(failed), named(track));
        if (signal.aborted) return;
        if (answer) { this.found.set(track, numbers(answer.values)); this.asked.set(track, of); }
        this.draw();
      }
    });
  }

  rows() {
    const {episode, info} = this.page, value = episode.values.some(each => !Number.isNaN(each));
    const rows = [{name: "reward", values: episode.rewards, bars: true}];
    if (value) rows.push({name: info.preferences === "q_values" ? "largest Q-value" : "value", values: episode.values});
    if (info.discrete) rows.push({name: info.preferences === "logits" ? "entropy of the policy" : "spread of Q-values",
      values: episode.preferences.map((each, step) => episode.ended && step === episode.steps ? NaN : spread(info.preferences, each))});
    const of = key(episode), waits = episode.whole ? "computing …" : "after recording";
    return [...rows, ...state.tracks.map(track => {
      if (this.asked.get(track) === of) return {name: named(track), values: this.found.get(track)};
      const failed = this.failed.get(track);  // what was found of another episode is not shown for this one
      return {name: named(track), values: [], failed, waits: failed ? "" : waits};
    })];
  }
  // All but what depends on the step, which is drawn anew when the episode, the tracks or the page's width change.
  draw() {
    const rows = this.rows(), ratio = devicePixelRatio, width = this.canvas.clientWidth;
    const height = rows.length * (ROW + GAP) + GAP, style = getComputedStyle(document.documentElement);
    const colour = name => style.getPropertyValue(name).trim(), sizes = {width: Math.round(width * ratio), height: Math.round(height * ratio)};
    this.canvas.style.height = height + "px";
    Object.assign(this.canvas, sizes);
    const ground = el("canvas", sizes), context = ground.getContext("2d"), x = step => LEFT + step / this.span * (width - LEFT - 8);
    context.scale(ratio, ratio);
    context.font = FONT;
    const drawn = rows.map((row, i) => this.row(context, row, GAP + i * (ROW + GAP), x, width, colour(COLOURS[i % COLOURS.length]), colour));
    this.parts(context, x, height, colour("--soft"));
    this.drawn = {ground, rows: drawn, x, height, soft: colour("--soft"), accent: colour("--accent")};
    this.tracks.replaceChildren(this.choice, ...state.tracks.map(track => Object.assign(
      el("button", {type: "button", class: "chip", "aria-label": `Remove the track ${named(track)}`}, named(track) + " ×"),
      {onclick: () => set({tracks: state.tracks.filter(each => each !== track)})})));
    this.point();
  }
  // Where the page stands, and each track's value there.
  point() {
    const {ground, rows, x, height, soft, accent} = this.drawn, context = this.canvas.getContext("2d"), {episode} = this.page;
    Object.assign(this.scrub, {max: this.span, value: state.step});
    this.scrub.setAttribute("aria-valuetext", `step ${state.step} of ${episode.steps}`);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, ground.width, ground.height);
    if (ground.width) context.drawImage(ground, 0, 0);  // it has none while the list of runs is shown instead
    context.scale(devicePixelRatio, devicePixelRatio);
    Object.assign(context, {font: FONT, fillStyle: soft});
    for (const {values, top, low, high, known, waits} of rows) {
      const now = values[state.step];
      context.fillText(known ? `${Number.isFinite(now) ? short(now) : "–"}  (${short(low)} to ${short(high)})` : waits ?? "–", 4, top + 29);
    }
    context.fillStyle = accent;
    context.fillRect(x(state.step) - 1, 0, 2, height);
  }
  row(context, {name, values, bars, waits, failed}, top, x, width, ink, colour) {
    const known = Array.from(values).filter(Number.isFinite), low = Math.min(0, ...known), high = Math.max(...known, low + 1e-9);
    const y = value => top + ROW - (value - low) / (high - low) * ROW;
    context.fillStyle = colour("--tint");
    context.fillRect(LEFT, top, width - LEFT - 8, ROW);
    context.fillStyle = colour("--ink");
    context.fillText(fitting(context, name, LEFT - 12), 4, top + 14);
    if (failed) context.fillText(fitting(context, failed, width - LEFT - 24), LEFT + 8, top + 22);
    Object.assign(context, {strokeStyle: ink, fillStyle: ink, lineWidth: 1.5});
    if (bars) values.forEach((value, step) => { if (value) context.fillRect(x(step) - 1, Math.min(y(value), y(0)), 2.5, Math.abs(y(value) - y(0)) + 1); });
    else {
      context.beginPath();
      for (let step = 0; step < values.length; step++) Number.isFinite(values[step]) && context.lineTo(x(step), y(values[step]));
      context.stroke();
    }
    return {values, top, low, high, known: known.length > 0, waits};
  }
  // Where somebody else begins to decide.
  parts(context, x, height, ink) {
    let at = 0;
    for (const part of this.page.episode.parts.slice(0, -1)) {
      at += part.steps;
      Object.assign(context, {strokeStyle: ink, lineWidth: 1}).setLineDash([3, 3]);
      context.beginPath();
      context.moveTo(x(at), 0);
      context.lineTo(x(at), height);
      context.stroke();
      context.setLineDash([]);
    }
  }
}

export const named = track => {
  const [kind, ...rest] = track.split(":");
  if (kind === "saliency") return `${rest[1] ?? ""} at ${rest.at(-1)} (${rest[0]})`;
  return kind === "concept" ? rest.join(":").replaceAll("_", " ") : kind === "feature" ? called(rest[0]) : `${rest.slice(0, -1).join(":")}, unit ${rest.at(-1)}`;
};
const key = episode => JSON.stringify([episode.about(), episode.steps]);
const short = value => Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) < .005 ? "0" : value.toFixed(2);
function fitting(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  while (text && context.measureText(text + "…").width > width) text = text.slice(0, -1);
  return text + "…";
}
