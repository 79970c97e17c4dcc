const S = D.sides, ordinal = ["first", "second"];
const concept = (s, f) => { const best = S[s].features[f].concepts[0]; return best ? [best.concept, " ", el("span", {class: "soft"}, num(best.auroc, 2))] : "–"; };
const told = (s, f) => [S[s].features[f].name, ...S[s].features[f].concepts.map(c => c.concept)].join(" ").toLowerCase();
const called = (s, f) => S[s].features[f].name ? `${f} ${S[s].features[f].name}` : f;
function entries() {
  const kind = $("kind").value;
  if (kind === "pairs") return D.pairs;
  const s = +kind;
  return D.best[s].map(([g, r], f) => s ? [g, f, r] : [f, g, r]).filter(e => S[s].features[e[s]].density > 0 && e[2] < D.alike);
}
let shown = [];
function list() {
  const text = $("search").value.trim().toLowerCase(), sign = $("order").value === "down" ? -1 : 1;
  const all = entries();
  shown = all.filter(([f, g]) => !text || [f, g].some((x, s) => String(x) === text || told(s, x).includes(text))).sort((a, b) => sign*(a[2] - b[2]));
  $("count").textContent = `${shown.length} of ${all.length}`;
  const top = heads(["first", "best concept", "correlation", "second", "best concept"], 1, 4);
  $("list").replaceChildren(el("table", {}, top, shown.map(([f, g, r], i) => el("tr", {class: "row", "data-i": i},
    cell(button(called(0, f))), cell(concept(0, f), true), cell(num(r, 2)), cell(called(1, g)), cell(concept(1, g), true)))));
  if (shown.length) show(0); else $("detail").replaceChildren(note("There is none."));
}
function half(s, i) {
  const R = S[s], f = R.features[i], head = el("h3", {}, `${ordinal[s]}: feature ${i}${f.name ? ", " + f.name : ""}`);
  if (!f.density) return el("div", {}, head, note("Dead: it fires in none of its samples."));
  return el("div", {}, head, note(`fires in ${pct(f.density, 2)} of its samples`), frames(f, R),
    el("h4", {}, "Best concepts, on held-out episodes"), conceptTable(f, R),
    f.clamp ? clamped(f, R) : null);
}
function show(i) {
  document.querySelectorAll("tr.row").forEach(r => r.classList.toggle("chosen", +r.dataset.i === i));
  const [f, g, r] = shown[i];
  $("detail").replaceChildren(note(`correlation ${num(r, 3)}`), el("div", {class: "columns halves"}, half(0, f), half(1, g)));
}
$("list").onclick = e => { const row = e.target.closest("tr.row"); if (row) show(+row.dataset.i); };
$("search").oninput = list; $("kind").onchange = () => { $("order").value = $("kind").value === "pairs" ? "down" : "up"; list(); }; $("order").onchange = list;
list();
