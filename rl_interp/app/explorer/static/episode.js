// An episode in the page: what is drawn along it, as far as it is recorded, and its frames.
import {ask, numbers, pictures} from "./server.js";

const CHUNK = 120, AHEAD = 8, KEPT = 400;
export const total = parts => parts.reduce((sum, part) => sum + part.steps, 0);

// The first `steps` of a recipe's parts.
export function cut(parts, steps) {
  const found = [];
  let left = steps;
  for (const part of parts) {
    const taken = Math.min(part.steps, left);
    if (taken) found.push({...part, steps: taken, actions: part.actions.slice(0, taken)});
    left -= taken;
  }
  return found;
}

export class Episode {
  constructor(base, {seed, maze, parts}) {
    Object.assign(this, {base, seed, maze, parts, steps: -1, ended: false, rewards: [], actions: [], preferences: [],
      values: [], observed: [], returns: [0], frames: new Map(), fetching: new Map()});
  }

  // What asks about it: the recipe as far as it is recorded.
  about(step = null) {
    return {...this.base, recipe: this.recipe(Math.max(0, this.steps)), ...(step === null ? {} : {step})};
  }
  recipe(steps) { return {seed: this.seed, maze: this.maze, parts: cut(this.parts, steps)}; }
  // What was done before a step is taken: edits of its state, and how often the agent has thought there.
  prepared(step) {
    let at = 0;
    for (const {steps, edits, thinking} of this.parts) { if (at === step && steps) return {edits, thinking}; at += steps; }
    return {edits: [], thinking: 0};
  }
  get wanted() { return total(this.parts); }
  get whole() { return this.ended || this.steps >= this.wanted; }

  // Has it recorded up to a step, or its end; `grown` is called on the way.
  async reach(step, signal, grown = () => {}) {
    while (this.steps < Math.min(step, this.wanted) && !this.ended || this.steps < 0) {
      const known = Math.max(0, this.steps), next = Math.min(this.wanted, known + CHUNK, Math.max(step, known + 1));
      this.take(await ask("episode", {...this.base, recipe: this.recipe(next), known}, signal), known);
      grown();
    }
  }
  take(found, known) {
    const rows = numbers(found.preferences), rectangles = numbers(found.observed), A = rows.shape[1];
    const rewards = numbers(found.rewards), actions = numbers(found.actions), values = numbers(found.values);
    for (let i = 0; i < rows.shape[0]; i++) {
      this.preferences[known + i] = rows.subarray(i * A, (i + 1) * A);
      this.values[known + i] = values[i];
      this.observed[known + i] = Array.from(rectangles.subarray(5 * i, 5 * i + 5));
      if (i < found.steps - known) {
        this.rewards[known + i] = rewards[i];
        this.actions[known + i] = actions.shape.length > 1 ? null : actions[i];
        this.returns[known + i + 1] = this.returns[known + i] + rewards[i];
      }
    }
    this.steps = found.steps;
    this.ended = found.ended;
    if (this.ended) this.values[this.steps] = NaN;  // nothing is decided after the end
  }

  // A frame, and, where one moves on step by step, a few after it.
  async frame(step) {
    if (!this.frames.has(step)) {
      if (!this.fetching.has(step)) {
        const steps = [], ahead = this.frames.has(step - 1) ? AHEAD : 0;
        for (let i = step; i <= Math.min(this.steps, step + ahead) && !this.frames.has(i); i++) steps.push(i);
        const coming = pictures({...this.about(), steps}).then(found => found.forEach((each, i) => this.keep(steps[i], each)));
        steps.forEach(each => this.fetching.set(each, coming));
        coming.catch(() => {}).finally(() => steps.forEach(each => this.fetching.delete(each)));
      }
      await this.fetching.get(step);
    }
    return this.frames.get(step);
  }
  keep(step, bitmap) {
    this.frames.set(step, bitmap);
    for (const old of this.frames.keys()) {
      if (this.frames.size <= KEPT) break;
      if (Math.abs(old - step) > 2 * AHEAD) this.frames.delete(old);
    }
  }

  // The same up to a step, and on by other parts.
  fork(step, ...parts) {
    const other = new Episode(this.base, {seed: this.seed, maze: this.maze, parts: [...cut(this.parts, step), ...parts]});
    const kept = Math.min(step, this.steps);
    for (const name of ["rewards", "actions"]) other[name] = this[name].slice(0, kept);
    for (const name of ["preferences", "values", "observed", "returns"]) other[name] = this[name].slice(0, kept + 1);
    for (const [at, bitmap] of this.frames) if (at <= kept) other.frames.set(at, bitmap);
    other.steps = kept;
    return other;
  }
}

export const agentPart = (steps, changes = [], control = 0) => ({steps, changes, control, actions: [], edits: [], thinking: 0});
export const ownPart = actions => ({steps: actions.length, changes: [], control: 0, actions, edits: [], thinking: 0});

// What is shown of each action: the probabilities of a policy, the advantages of Q-values (-Infinity of one that is ruled
// out, which the mean leaves out), or the numbers of a continuous action.
export function shown(kind, preferences) {
  if (kind === "logits") {
    const top = Math.max(...preferences), powers = Array.from(preferences, each => Math.exp(each - top));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map(each => each / sum);
  }
  if (kind === "q_values") {
    const possible = preferences.filter(Number.isFinite), mean = possible.reduce((a, b) => a + b, 0) / possible.length;
    return Array.from(preferences, each => each - mean);
  }
  return Array.from(preferences);
}
// How undecided it is: the entropy of a policy in nats, or the largest less the smallest Q-value.
export function spread(kind, preferences) {
  if (kind === "logits") return -shown(kind, preferences).reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0);
  return Math.max(...preferences) - Math.min(...preferences.filter(Number.isFinite));
}
