"use strict";
const $ = id => document.getElementById(id);
const pct = (x, d=1) => x == null ? "–" : (100*x).toFixed(d) + "%", num = (x, d=3) => x == null ? "–" : (+x).toFixed(d);

// All that a page shows of its data is made by these: what is no node becomes a text node, so nothing is read as HTML.
const el = (name, attributes, ...children) => filled(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) => filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.flat(Infinity).filter(child => child != null));
  return node;
}
const note = text => el("p", {class: "note"}, text);
const cell = (content, words=false, name="td") => el(name, words ? {class: "text"} : {}, content);
// `words`: the columns that hold words, which are set to the left.
const heads = (names, ...words) => el("tr", {}, names.map((name, i) => cell(name, words.includes(i), "th")));
const table = (names, rows, ...words) => el("table", {}, heads(names, ...words), rows.map(row => el("tr", {}, row.map((content, i) => cell(content, words.includes(i))))));
// Other children for a node. Those that are there already stay, and the focus stays where it is, or with what says the same.
function put(parent, nodes) {
  if (nodes.length === parent.children.length && nodes.every((each, i) => each === parent.children[i])) return;
  const had = parent.contains(document.activeElement) ? document.activeElement : null;
  parent.replaceChildren(...nodes);
  if (had) (had.isConnected ? had : [...parent.querySelectorAll(had.tagName)].find(each => each.textContent === had.textContent))?.focus({preventScroll: true});
}
