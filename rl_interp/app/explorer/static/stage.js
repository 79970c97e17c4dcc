// The frame, and what moves through the episode: play, step, play on, and taking over by keyboard.
import {agentPart, cut, ownPart} from "./episode.js";
import {pointed} from "./places.js";
import {eager, trying} from "./server.js";
import {set, state} from "./state.js";

const LENGTH = 420, ON = 300;
const KEYS = {ArrowUp: ["up", "forward", "move_up"], ArrowDown: ["down", "move_down"], ArrowLeft: ["left", "move_left"],
  ArrowRight: ["right", "move_right"], " ": ["stay", "noop", "fire", "done"], Enter: ["toggle", "do", "pickup"]};

// Drawn, as fonts seldom have these signs: a triangle to a side, and a line that it stops at.
const ICONS = {first: "M3 2v12 M14 2v12L5 8z", before: "M12 2v12L4 8z", play: "M4 2v12l9-6z", stop: "M4 2h3v12H4z M9 2h3v12H9z", after: "M4 2v12l8-6z", last: "M2 2v12l9-6z M13 2v12"};
const icon = name => svg("svg", {viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true"}, svg("path", {d: ICONS[name]}));

export class Stage {
  // `page` has the agent's `info`, the `episode`, and `replay(parts, step)`, by which another episode takes its place.
  constructor(page) {
    Object.assign(this, {page, overlay: null, picked: null, editor: null, playing: 0, own: false, timer: 0});
    this.canvas = el("canvas", {id: "frame", role: "img", "aria-label": "game screen", width: 1, height: 1, tabindex: -1});
    this.canvas.addEventListener("click", event => this.pick(event));
    for (const kind of ["down", "move", "up"]) this.canvas.addEventListener("pointer" + kind, event => this.editor?.[kind](event));
    const button = (id, content, title, call) => Object.assign(el("button", {id, type: "button", title, ...(typeof content === "string" ? {} : {"aria-label": title})}, content), {onclick: call});
    this.play = button("play", icon("play"), "Play (space)", () => this.toggle());
    this.on = button("on", "Play on", "Let the agent decide anew from this frame, under the changes that are switched on", () => this.playOn());
    this.take = button("take", "Take over", "Play yourself from this frame, by arrow keys or the bars (t)", () => this.takeOver());
    this.take.disabled = !page.info.discrete;
    this.where = el("output", {id: "where", for: "frame"});
    this.node = el("section", {id: "stage", "aria-label": "Episode"}, el("div", {class: "screen"}, this.canvas), el("div", {class: "controls"},
      button("first", icon("first"), "First frame (Home)", () => this.go(0)), button("before", icon("before"), "Frame before (left arrow)", () => this.go(state.step - 1)),
      this.play, button("after", icon("after"), "Next frame (right arrow)", () => this.go(state.step + 1)),
      button("last", icon("last"), "Last recorded frame (End)", () => this.go(page.episode.steps)), this.on, this.take), this.where);
    this.draw = eager(() => this.show());
  }

  go(step) {
    set({step: Math.max(0, Math.min(step, this.page.episode.steps))});
  }
  async show() {
    const {episode} = this.page, step = Math.min(state.step, episode.steps);
    if (step < 0) return;
    const bitmap = await trying(() => episode.frame(step), "frame");
    if (!bitmap || episode !== this.page.episode) return;
    this.scale = Math.max(1, Math.round(LENGTH / bitmap.height));
    const [width, height] = [bitmap.width * this.scale, bitmap.height * this.scale], context = this.canvas.getContext("2d");
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, {width, height});
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap, 0, 0, width, height);
    this.overlay?.(context, this.scale, episode.observed[step], step);
    this.canvas.dataset.step = step;
    this.tell();
  }
  tell() {
    const {episode, info} = this.page, step = state.step, done = episode.actions[step], part = this.partAt(step);
    const early = info.env.startsWith("ALE/") && part?.edits.length && part.actions.length;  // a console's state is edited some steps before
    const who = early ? "as before the edit" : part?.actions.length ? "you" : part?.control ? "agent under a random control" : part?.changes.length ? "agent under changes" : "agent", {thinking} = episode.prepared(step);
    const what = step < episode.steps && done != null ? `${who}${thinking ? `, after ${thinking} further ${thinking === 1 ? "look" : "looks"}` : ""}: ${info.actions[done]}` : episode.ended && step === episode.steps ? "the episode has ended" : "";
    this.where.textContent = `step ${step} of ${episode.steps}${episode.whole ? "" : " so far"} · return ${num(episode.returns[step] ?? 0, 2)}${what ? " · " + what : ""}`;
    this.take.textContent = this.own ? "Hand back" : "Take over";
    this.take.setAttribute("aria-pressed", this.own);
  }
  partAt(step) {
    let end = 0;
    return this.page.episode.parts.find(part => (end += part.steps) > step);
  }
  pick(event) {
    const [x, y] = pointed(event, this.canvas);
    this.picked?.(x / this.scale, y / this.scale, this.page.episode.observed[state.step]);
  }

  toggle(playing = !this.playing) {
    clearInterval(this.timer);
    this.playing = playing;
    this.play.replaceChildren(icon(playing ? "stop" : "play"));
    this.play.setAttribute("aria-pressed", playing);
    if (!playing) return;
    if (state.step >= this.page.episode.steps && this.page.episode.whole) this.go(0);
    this.timer = setInterval(() => this.tick(), 1000 / this.page.info.pace);
  }
  tick() {
    const {episode} = this.page;
    if (!this.canvas.isConnected) this.toggle(false);
    else if (this.page.active.onward?.()) return;
    else if (state.step < episode.steps) this.go(state.step + 1);
    else if (episode.whole) this.toggle(false);
  }

  async playOn() {
    this.own = false;
    await this.think(0);
  }
  // The agent decides anew from this frame, after it has looked at it so many more times.
  async think(looks) {
    const {episode} = this.page, {edits, thinking} = episode.prepared(state.step);
    if (await this.page.replay([...cut(episode.parts, state.step), {...agentPart(ON, [...state.changes]), edits, thinking: thinking + looks}], state.step)) this.toggle(true);
  }
  takeOver() {
    if (this.own) { this.own = false; this.playOn(); return; }
    this.toggle(false);
    this.own = true;
    this.tell();
    this.canvas.focus({preventScroll: true});  // a button that has the focus keeps its keys
    this.canvas.scrollIntoView({block: "nearest"});
  }
  // What a person does instead of the agent, one action after the other, however quickly keys are pressed.
  act(action) {
    this.acting = (this.acting ?? Promise.resolve()).then(() => this.done(action));
    return this.acting;
  }
  async done(action) {
    const {episode} = this.page;
    if (!this.own || !this.page.info.discrete || (episode.ended && state.step === episode.steps)) return;
    const parts = cut(episode.parts, state.step), last = parts.at(-1), prepared = episode.prepared(state.step);
    if (prepared.edits.length || prepared.thinking) parts.push({...ownPart([action]), ...prepared});
    else if (last?.actions.length && !last.edits.length) parts[parts.length - 1] = {...ownPart([...last.actions, action]), thinking: last.thinking};
    else parts.push(ownPart([action]));
    await this.page.replay(parts, state.step + 1);
  }
  key(event) {
    const names = KEYS[event.key];
    if (this.own && names) {
      const action = this.page.info.actions.findIndex(each => names.includes(each.toLowerCase()));
      if (action >= 0) { this.act(action); return true; }
    }
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (step && !this.own) this.go(state.step + step * (event.shiftKey ? 10 : 1));
    else if (event.key === "Home") this.go(0);
    else if (event.key === "End") this.go(this.page.episode.steps);
    else if (event.key === " " && !this.own) this.toggle();
    else if (event.key === "t") this.takeOver();
    else if (event.key === "o") this.playOn();
    else return false;
    return true;
  }
}
