const gap = Math.max(85, Math.min(170, 1320/Math.max(1, D.nodes.length - 1))), height = 620, above = 50, widest = Math.max(...D.edges.map(e => Math.abs(e[4])), 1e-12);
const most = Math.max(...D.nodes.flatMap(n => n.units.map(u => u.importance)), 1e-12);
const at = (column, place) => [60 + gap*column, above + height*(place + .5)/D.nodes[column].units.length];
const share = score => Math.sqrt(Math.abs(score)/widest);
function curve([c1, u1, c2, u2, score], i) {
  const [x1, y1] = at(c1, u1), [x2, y2] = at(c2, u2), bend = (x2 - x1)/2;
  const line = svg("path", {d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`, fill: "none", "data-edge": i,
    stroke: score < 0 ? "var(--accent)" : "var(--blue)", "stroke-width": .4 + 3*share(score), "stroke-opacity": .15 + .75*share(score)});
  line.append(svg("title", {}, `${D.nodes[c1].node} ${D.nodes[c1].units[u1].unit} → ${D.nodes[c2].node} ${D.nodes[c2].units[u2].unit}: ${num(score, 5)}`));
  return line;
}
function name(column, place) {
  const node = D.nodes[column], unit = node.units[place].unit;
  return D.outputs[node.node] !== "value" && D.outputs[node.node] && D.actions[unit] ? `${node.node} ${unit} (${D.actions[unit]})` : `${node.node} ${unit}`;
}
const dots = D.nodes.flatMap((node, c) => node.units.map((unit, u) => {
  const [cx, cy] = at(c, u);
  const dot = svg("circle", {cx, cy, r: 3 + 6*Math.sqrt(unit.importance/most), fill: "var(--paper)", stroke: "var(--ink)", "data-c": c, "data-u": u, tabindex: 0, role: "button", "aria-label": name(c, u)});
  dot.append(svg("title", {}, name(c, u)));
  return dot;
}));
const headings = D.nodes.map((node, c) => [svg("text", {x: 60 + gap*c, y: c % 2 ? 16 : 32, "text-anchor": "middle", class: "value"}, node.node),
  svg("text", {x: 60 + gap*c, y: height + above + 16, "text-anchor": "middle"}, `${node.units.length} of ${node.of}`)]);
const lines = [...D.edges.keys()].sort((a, b) => Math.abs(D.edges[a][4]) - Math.abs(D.edges[b][4])).map(i => curve(D.edges[i], i));
$("drawing").append(svg("svg", {width: 120 + gap*(D.nodes.length - 1), height: height + above + 30, role: "group", "aria-label": "The circuit"}, lines, headings, dots));

function where(state) {
  const image = el("img", {src: "data:image/webp;base64," + D.pictures[state.picture], alt: "screen of the state"});
  if (!state.map) return image;
  const {rows, columns, values} = state.map, bytes = Uint8Array.from(atob(values), c => c.charCodeAt(0));
  const map = el("canvas", {width: columns, height: rows, role: "img", "aria-label": "where it is active"}), context = map.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  bytes.forEach((v, i) => pixels.data.set([255, 176, 59, v], 4*i));
  context.putImageData(pixels, 0, 0);
  return [image, map];
}
function neighbours(c, u, into) {
  const [here, there] = into ? [2, 0] : [0, 2];
  const found = D.edges.filter(e => e[here] === c && e[here + 1] === u).sort((a, b) => Math.abs(b[4]) - Math.abs(a[4]));
  return table([into ? "from" : "to", "score"], found.slice(0, 12).map(e => [name(e[there], e[there + 1]), num(e[4], 5)]), 0);
}
function show(c, u) {
  const unit = D.nodes[c].units[u];
  document.querySelectorAll("#drawing circle").forEach(dot => dot.classList.toggle("chosen", +dot.dataset.c === c && +dot.dataset.u === u));
  document.querySelectorAll("#drawing path").forEach(line => {
    const [c1, u1, c2, u2] = D.edges[+line.dataset.edge];
    line.classList.toggle("faint", !((c1 === c && u1 === u) || (c2 === c && u2 === u)));
  });
  $("detail").replaceChildren(el("h3", {}, name(c, u)), note(`importance ${num(unit.importance, 5)}` + (unit.top ? `; active in ${pct(unit.active)} of ${D.states} states, mean ${num(unit.mean)}` : "; it is no hook point of the agent, so only its edges are shown")),
    el("div", {class: "columns"}, el("section", {}, el("h4", {}, "What it hears"), neighbours(c, u, true)), el("section", {}, el("h4", {}, "What hears it"), neighbours(c, u, false)),
      unit.concepts && unit.concepts.length ? el("section", {}, el("h4", {}, "Concepts that its strength tells"), table(["concept", "AUROC"], unit.concepts.map(([k, v]) => [k, num(v)]), 0)) : null),
    ...(unit.top ? [el("h4", {}, "Strongest states"), el("div", {class: "frames"}, unit.top.map(t => el("figure", {}, where(t),
      el("figcaption", {}, `${num(t.value)} · ${D.actions[t.action]}`, el("br", {}), `episode ${t.episode}, step ${t.step}`))))] : []));
}
const chosen = e => { const dot = e.target.closest("circle"); if (dot) show(+dot.dataset.c, +dot.dataset.u); };
$("drawing").onclick = chosen;
$("drawing").onkeydown = e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); chosen(e); } };
