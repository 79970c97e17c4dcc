const F = D.features.map((f, i) => ({...f, i, best: f.concepts[0] || null}));
const kindOf = f => f.density === 0 ? "dead" : f.density > .1 ? "dense" : f.density < 1e-4 ? "rare" : "live";

const logBins = new Array(25).fill(0);
F.filter(f => f.density > 0).forEach(f => logBins[Math.max(0, Math.min(24, Math.floor((Math.log10(f.density) + 5) * 5)))]++);
$("density").append(bars(logBins, ["0.001%", "100% of samples"], {title: "latents by density"}), note(`${F.filter(f => !f.density).length} dead latents are not shown.`));

const rate = new Map(D.concepts.map(c => [c.name, c.rate])), telling = f => f.best && f.best.precision >= Math.max(.75, 2*rate.get(f.best.concept));
const known = F.filter(f => f.clamp && telling(f)), useless = known.filter(f => f.clamp.changed <= f.clamp.changed_control);
if (known.length) $("metrics").append(el("tr", {}, el("td", {}, "tell a concept (it is there in 75% of the samples in which they", el("br", {}),
  "fire, and twice as often as in all), and clamped change no more", el("br", {}), `${D.continuous ? "of the action" : "actions"} than a random direction, as half of random ones would`), cell(`${useless.length} of ${known.length}`)));

// Of a continuous action, each of its numbers can be moved up or down.
const ways = D.continuous ? D.actions.flatMap(a => [`${a}, up`, `${a}, down`]) : D.actions, pushes = f => D.continuous ? f.clamp.towards.flatMap(v => [v, -v]) : f.clamp.towards;
const hue = a => `hsl(${Math.round(360*a/ways.length)} 65% 52%)`, favoured = f => pushes(f).indexOf(Math.max(...pushes(f)));
const placed = F.filter(f => f.place), side = 620;
const called = f => `feature ${f.i}${f.name ? ", " + f.name : f.best ? ", " + f.best.concept : ""}`;
const dot = f => svg("circle", {"data-f": f.i, tabindex: 0, role: "button", "aria-label": called(f), cx: 8 + f.place[0]*(side - 16), cy: 8 + f.place[1]*(side - 16), r: f.clamp ? 2.5 + 9*Math.sqrt(Math.min(1, f.clamp.changed)) : 3,
  fill: f.clamp && f.clamp.changed > .01 ? hue(favoured(f)) : "var(--soft)", "fill-opacity": ".75"}, svg("title", {}, called(f)));
const legend = (colour, r, text) => el("div", {}, svg("svg", {width: 14, height: 14}, svg("circle", {cx: 7, cy: 7, r, fill: colour})), " ", text);
if (placed.length) $("map").append(el("div", {class: "columns"},
  svg("svg", {width: side, height: side, role: "group", "aria-label": "map of the features"}, placed.map(dot)),
  F.some(f => f.clamp) ? el("div", {}, ways.map((a, i) => legend(hue(i), 6, a)), legend("var(--soft)", 4, D.continuous ? "moves the action by under 0.01 standard deviations" : "changes under 1% of actions")) : null));
else $("map").append(note("Too few living features for a map."));
const pick = e => { const at = e.target.closest("circle[data-f]"); if (at) { show(+at.dataset.f); $("browser").scrollIntoView({behavior: "smooth"}); } };
$("map").onclick = pick;
$("map").onkeydown = e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); pick(e); } };

const best = f => f.best ? f.best.concept : "–";
const ofConcepts = [["best concept", f => f.best ? f.best.concept : "", best], ["AUROC", f => f.best ? f.best.auroc : 0, f => f.best ? num(f.best.auroc, 2) : "–"]];
const columns = [["#", f => f.i, f => f.name ? `${f.i} ${f.name}` : f.i], ["density", f => f.density, f => pct(f.density, 2)], ["max", f => f.max, f => num(f.max, 2)],
  ...(D.concepts.length ? ofConcepts : []), ["clamp", f => f.clamp ? f.clamp.changed : 0, f => f.clamp ? changes(D, f.clamp.changed, 0) : "–"]];
const words = D.concepts.length ? 3 : -1;
let sort = D.concepts.length ? 4 : 3, down = true, chosen = null;
function list() {
  const text = $("search").value.trim().toLowerCase(), kind = $("kind").value;
  const shown = F.filter(f => (kind === "all" || kindOf(f) === kind || (kind === "live" && f.density > 0)) &&
    (!text || String(f.i) === text || f.name.toLowerCase().includes(text) || f.concepts.some(c => c.concept.toLowerCase().includes(text))));
  const key = columns[sort][1];
  shown.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a.i - b.i) * (down ? -1 : 1));
  $("count").textContent = `${shown.length} of ${F.length}; "clamp" is ${D.continuous ? "how far the action moves, in standard deviations," : "the share of states whose action changes"} when the feature is clamped`;
  const top = heads(columns.map(([name], i) => button(name + (i === sort ? (down ? " ↓" : " ↑") : ""))), words);
  [...top.children].forEach((head, i) => { head.dataset.c = i; });
  top.children[sort].setAttribute("aria-sort", down ? "descending" : "ascending");
  $("list").replaceChildren(el("table", {}, top, shown.map(f => el("tr", {class: "row" + (f.i === chosen ? " chosen" : ""), "data-f": f.i},
    columns.map(([, , shows], i) => cell(i ? shows(f) : button(shows(f)), i === words))))));
  return shown;
}
$("list").onclick = e => {
  const head = e.target.closest("th"), row = e.target.closest("tr.row");
  if (head) { const c = +head.dataset.c; down = c === sort ? !down : c !== 0 && c !== words; sort = c; list(); $("list").querySelectorAll("th button")[c].focus(); }
  if (row) show(+row.dataset.f);
};
$("detail").onclick = e => { const link = e.target.closest("a[data-f]"); if (link) { e.preventDefault(); show(+link.dataset.f); } };
$("search").oninput = list; $("kind").onchange = list;

const titled = (title, ...content) => [el("h4", {}, title), ...content];
const webp = (alt, picture) => el("img", {alt, src: "data:image/webp;base64," + picture});
function show(i) {
  chosen = i;
  document.querySelectorAll("tr.row").forEach(r => r.classList.toggle("chosen", +r.dataset.f === i));
  $("detail").replaceChildren(el("h3", {}, `Feature ${i}${F[i].name ? ": " + F[i].name : ""}`), ...(F[i].note ? [note(F[i].note)] : []), ...(F[i].density ? described(F[i])
    : [note(`Dead: it fires in none of the ${D.samples.toLocaleString()} samples.`)]));
}
function described(f) {
  const looks = D.saliency[f.i];
  return [note(`fires in ${pct(f.density, 3)} of the samples, at most ${num(f.max, 2)}`),
    ...(D.clips[f.top[0].frame] ? titled("Around its strongest moment (loop)", framed(D, clip(D, f.top[0].frame))) : []),
    ...(looks ? titled("What it looks at there", looks.inputs
        ? signed(looks.inputs.map(([, v]) => v), looks.inputs.map(([name]) => name), v => num(v, 3))
        : el("div", {class: "frames large"}, webp("saliency of the feature", looks.image)),
      note(`${looks.inputs ? "By how much the feature falls where an input is set to its mean (of at most 12 inputs)." : "Red: blurring it lowers the feature; blue: raises it."} Rank correlation with the map of a network of shuffled weights: ${looks.control === null ? "none: there the feature stays at 0" : num(looks.control, 2)}.`)) : []),
    ...titled(`Strongest moments, each from a different episode${D.reach ? "; light: where it fires; framed: what the strongest position is about, and all that it sees" : ""}`, frames(f, D)),
    ...(f.where && D.reach ? titled(`Where it fires: at the brightest position in ${pct(f.where.most)} of the samples; a position sees ${D.sees}`,
      framed(D, whereItFires(f, D))) : []),
    el("div", {class: "columns"}, el("div", {}, fires(f)), el("div", {}, does(f)))];
}
const fires = f => [...titled("Activations where it fires", bars(f.histogram, ["0", num(f.max, 2)], {width: 260, height: 80, title: "activation histogram"})),
  ...(D.concepts.length ? titled("Best concepts, on held-out episodes", conceptTable(f, D)) : []),
  ...(f.alike.length ? titled("Features that fire with it", table(["feature", "cosine", "of its samples", ...(D.concepts.length ? ["best concept"] : [])],
    f.alike.map(([j, c, s]) => [el("a", {href: "#", "data-f": j}, j), num(c, 2), pct(s, 0), ...(D.concepts.length ? [best(F[j])] : [])]), 3)) : [])];
const does = f => [...(f.effects ? titled(`What it adds to ${D.continuous ? "each number of the action" : `each action's ${D.preferences}`} ${D.linear_head ? `at ${num(f.clamp.level, 2)}, its 99th percentile` : "where it fires, on average"}`,
    signed(f.effects, D.actions, v => num(v, 3))) : []),
  ...(f.clamp ? clamped(f, D)
    : [note("Between this layer and its actions the agent has a memory, so clamping is not shown.")])];
const first = list(); if (first.length) show(first[0].i);
