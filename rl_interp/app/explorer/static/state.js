// What the page shows is what its address says: `state` is read from what follows the # and written back to it, so that a
// link, a reload or a server that was started again shows the same.
const FIRST = 600;
const DEFAULTS = {
  run: "", checkpoint: null, sae: null, seed: 0, maze: "", parts: [{steps: FIRST, changes: [], control: 0, actions: [], edits: [], thinking: 0}],
  step: 0, tab: "layer", point: "", unit: null, sort: "activation", feature: null, place: null, changes: [], tracks: [],
  method: "", target: "", fork: null, edited: "", whole: null, clusters: 8, named: [], beside: [], plane: "pca",
  planned: "", kernel: 3, tick: null, unchanged: null, reads: "both", thinking: 0, slow: null,
};
const NUMBERS = ["checkpoint", "seed", "step", "unit", "feature", "place", "fork", "whole", "clusters", "kernel", "tick", "unchanged", "thinking", "slow"], LISTS = ["changes", "tracks", "named", "beside"];

export const state = {...structuredClone(DEFAULTS)};
const listeners = [];

// `listen(names, call)`: `call` after a change of one of the names.
export function listen(names, call) { listeners.push([new Set(names), call]); }
export function silence() { listeners.length = 0; }

export function set(changes) {
  const changed = Object.keys(changes).filter(name => JSON.stringify(state[name]) !== JSON.stringify(changes[name]));
  Object.assign(state, changes);
  if (!changed.length) return;
  remember();
  for (const [names, call] of listeners) if (changed.some(name => names.has(name))) call(changed);
}

export const fresh = run => ({...structuredClone(DEFAULTS), run});

export function read(address = location.hash) {
  const given = new URLSearchParams(address.replace(/^#/, "")), found = structuredClone(DEFAULTS);
  for (const name of Object.keys(DEFAULTS)) {
    if (!given.has(name)) continue;
    const text = given.get(name);
    if (LISTS.includes(name)) found[name] = given.getAll(name);
    else if (name === "parts") found.parts = text.split("~").map(partOf).filter(part => part) ;
    else if (NUMBERS.includes(name)) found[name] = /^\d{1,10}$/.test(text) ? +text : DEFAULTS[name];
    else found[name] = text;
  }
  if (!found.parts.length) found.parts = structuredClone(DEFAULTS.parts);
  return found;
}

export function write(from = state) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(from)) {
    if (JSON.stringify(value) === JSON.stringify(DEFAULTS[name])) continue;
    if (LISTS.includes(name)) value.forEach(each => given.append(name, each));
    else given.set(name, name === "parts" ? value.map(textOf).join("~") : value);
  }
  return "#" + given;
}

let waiting = 0;
function remember() {  // browsers refuse an address that is written too often
  clearTimeout(waiting);
  waiting = setTimeout(() => history.replaceState(null, "", write()), 150);
}

// A part of an episode: "200" is the agent's for 200 steps, "200*CHANGE*CHANGE" under changes, "200!3*CHANGE" under their
// third random control, "k0.3.3" what a person did; "@EDIT" are edits of the state before its first step, and
// "200;4" is what the agent does after it has looked four more times.
const textWithout = ({steps, changes, control, actions}) => actions.length ? "k" + actions.join(".")
  : steps + (control ? "!" + control : "") + changes.map(each => "*" + encodeURIComponent(each)).join("");
const textOf = part => textWithout(part) + (part.thinking ? ";" + part.thinking : "") + part.edits.map(each => "@" + encodeURIComponent(each)).join("");
const plain = text => { try { return decodeURIComponent(text); } catch { return text; } };
function partOf(given) {
  const [said, ...edited] = given.split("@"), edits = edited.map(plain), [text, thought] = said.split(/;(\d{1,2})$/), thinking = +(thought ?? 0);
  if (/^k\d+(\.\d+)*$/.test(text)) {
    const actions = text.slice(1).split(".").map(Number);
    return {steps: actions.length, changes: [], control: 0, actions, edits, thinking};
  }
  const found = /^(\d{1,6})(?:!(\d{1,6}))?((?:\*[^*]*)*)$/.exec(text);
  return found && {steps: +found[1], control: +(found[2] ?? 0), actions: [], edits, thinking, changes: found[3].split("*").slice(1).map(plain)};
}
