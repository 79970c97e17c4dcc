const D = JSON.parse($("data").textContent);
const button = text => el("button", {type: "button"}, text);  // of a table's row or heading, for the keyboard
function bars(values, labels, {width=300, height=120, title=""} = {}) {
  const top = Math.max(...values, 1e-12), w = width / values.length;
  return svg("svg", {width: width + 8, height: height + 36, role: "img", "aria-label": title},
    values.map((v, i) => svg("rect", {x: 4 + i*w + .5, width: Math.max(1, w - 1), y: 14 + height - height*v/top, height: height*v/top, fill: "var(--blue)"}, svg("title", {}, v))),
    svg("text", {x: 4, y: 10}, top >= 1 ? top.toLocaleString() : ""), svg("text", {x: 4, y: height + 30}, labels[0]),
    svg("text", {x: width + 4, y: height + 30, "text-anchor": "end"}, labels[1]));
}
function signed(values, labels, unit) {
  const top = Math.max(...values.map(Math.abs), 1e-9), h = 20, mid = 250;
  return svg("svg", {viewBox: `0 0 420 ${h*values.length + 4}`, width: 420, class: "signed"}, values.map((v, i) => {
    const w = 110*Math.abs(v)/top;
    return [svg("text", {x: 0, y: h*i + 14}, labels[i]),
      svg("rect", {x: v < 0 ? mid - w : mid, y: h*i + 4, width: w, height: 13, fill: v < 0 ? "var(--blue)" : "var(--accent)"}),
      svg("text", {class: "value", x: 415, y: h*i + 14, "text-anchor": "end"}, (v > 0 ? "+" : "") + unit(v))];
  }).flat());
}
const framed = (report, ...pictures) => el("div", {class: "frames" + (report.positions > 1 ? " large" : "")}, ...pictures);
// Screens lie in sheets, one below the other. A row of a layer with positions is about a part of its screen, which is
// framed, within a thinner frame of all that it sees; where a mask is given, what the feature does not fire on is darkened.
async function draw(node, report, sample, row, mask=null) {
  const {height, width, places, sheets} = report.screens, [sheet, place] = places[sample];
  report.decoded ??= [];
  const image = await (report.decoded[sheet] ??= decoded("data:image/webp;base64," + sheets[sheet]));
  const box = report.boxes[row % report.positions], context = node.getContext("2d");
  context.drawImage(image, 0, place*height, width, height, 0, 0, width, height);
  if (!box) return;
  if (mask) {
    context.fillStyle = "rgba(0, 0, 0, .7)";
    context.fillRect(0, 0, width, height);
    for (const [position, share] of mask) {
      const [x, y, w, h] = pixels(report.boxes[position], width, height);
      context.globalAlpha = share;
      context.drawImage(image, x, place*height + y, w, h, x, y, w, h);
    }
    context.globalAlpha = 1;
  }
  const line = Math.max(1, Math.round(height / 128)), [left, top, right, bottom] = box, [w, h] = report.reach;
  Object.assign(context, {lineWidth: line/2, strokeStyle: "rgba(255, 0, 200, .7)"}).strokeRect((left + right - w)/2, (top + bottom - h)/2, w, h);
  Object.assign(context, {lineWidth: line, strokeStyle: "rgb(255, 0, 200)"}).strokeRect(left + line/2, top + line/2, right - left - line, bottom - top - line);
}
// Left, top, width and height of a box, on whole pixels, so that neighbours neither overlap nor leave lines between them.
function pixels([left, top, right, bottom], width, height) {
  const [x, y] = [Math.max(0, Math.round(left)), Math.max(0, Math.round(top))];
  return [x, y, Math.min(width, Math.round(right)) - x, Math.min(height, Math.round(bottom)) - y];
}
// How often a feature fires at each position, over its strongest moment's screen.
function whereItFires(f, report) {
  const node = canvas(report, "where it fires"), shares = Uint8Array.from(atob(f.where.shares), c => c.charCodeAt(0));
  const {screens: {height, width, places}} = report, sample = Math.floor(f.top[0].frame / report.positions);
  draw(node, {...report, boxes: {}}, sample, 0).then(() => {
    const context = node.getContext("2d");
    context.fillStyle = "rgba(0, 0, 0, .65)";
    context.fillRect(0, 0, width, height);
    for (const [position, box] of Object.entries(report.boxes)) {
      context.fillStyle = `rgba(255, 176, 59, ${.9*shares[position]/255})`;
      context.fillRect(...pixels(box, width, height));
    }
  });
  return node;
}
async function decoded(source) { const image = new Image(); image.src = source; await image.decode(); return image; }
const canvas = (report, label) => el("canvas", {role: "img", "aria-label": label, width: report.screens.width, height: report.screens.height});
function still(report, row, mask) {
  const node = canvas(report, "game screen");
  draw(node, report, Math.floor(row / report.positions), row, mask);
  return node;
}
function clip(report, row, pace=100) {
  const node = canvas(report, "clip of the game"), samples = report.clips[row];
  let at = 0;
  const next = () => draw(node, report, samples[at++ % samples.length], row);
  const timer = setInterval(() => node.isConnected ? next() : clearInterval(timer), pace);
  next();
  return node;
}
// An action by its name, or a continuous one by its numbers; what clamping changes of it.
const taken = (action, report) => report.continuous ? action.map((v, i) => `${report.actions[i]} ${num(v, 2)}`).join(", ") : report.actions[action];
const changes = (report, v, digits) => report.continuous ? num(v, 2) : pct(v, digits);
const clamped = (f, report) => [el("h4", {}, `Clamped to ${num(f.clamp.level, 2)}${report.positions > 1 ? " at every position" : ""}: ${report.continuous
  ? `the action moves by ${num(f.clamp.changed, 2)} standard deviations in held-out states` : `the action changes in ${pct(f.clamp.changed)} of held-out states`}`, el("br", {}),
  `(a random direction of the same norm: ${changes(report, f.clamp.changed_control)}); ${report.continuous ? "move of each of its numbers" : "change in each action's share"}`),
  signed(f.clamp.towards, report.actions, v => changes(report, v))];
const frames = (f, report) => framed(report, f.top.map(t => el("figure", {}, still(report, t.frame, t.mask),
  el("figcaption", {}, `${num(t.activation, 2)} · ${taken(t.action, report)}`, el("br", {}), `episode ${t.episode}, step ${t.step}`))));
const conceptTable = (f, report) => table(["concept", "AUROC", "when it fires", "overall"],
  f.concepts.map(c => [c.concept, num(c.auroc), pct(c.precision, 0), pct((report.concepts.find(k => k.name === c.concept) || {}).rate, 0)]));
