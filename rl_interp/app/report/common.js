const pct = (x, d=1) => x == null ? "–" : (100*x).toFixed(d) + "%", num = (x, d=3) => x == null ? "–" : (+x).toFixed(d);
const esc = s => String(s).replace(/[&<>"]/g, c => ({"&":"&amp;","<":"&lt;",">":"&gt;",'"':"&quot;"}[c]));
function bars(values, labels, {width=300, height=120, title=""} = {}) {
  const top = Math.max(...values, 1e-12), w = width / values.length;
  return `<svg width="${width + 8}" height="${height + 36}" role="img" aria-label="${title}">` + values.map((v, i) =>
    `<rect x="${4 + i*w + .5}" width="${Math.max(1, w - 1)}" y="${14 + height - height*v/top}" height="${height*v/top}" fill="var(--blue)"><title>${v}</title></rect>`).join("") +
    `<text x="4" y="10">${top >= 1 ? top.toLocaleString() : ""}</text><text x="4" y="${height + 30}">${labels[0]}</text><text x="${width + 4}" y="${height + 30}" text-anchor="end">${labels[1]}</text></svg>`;
}
function signed(values, labels, unit) {
  const top = Math.max(...values.map(Math.abs), 1e-9), h = 20, mid = 250;
  return `<svg viewBox="0 0 420 ${h*values.length + 4}" width="420" style="max-width:100%">` + values.map((v, i) => { const w = 110*Math.abs(v)/top;
    return `<text x="0" y="${h*i + 14}">${esc(labels[i])}</text><rect x="${v < 0 ? mid - w : mid}" y="${h*i + 4}" width="${w}" height="13" fill="${v < 0 ? "var(--blue)" : "var(--accent)"}"/>` +
      `<text class="value" x="415" y="${h*i + 14}" text-anchor="end">${(v > 0 ? "+" : "") + unit(v)}</text>`; }).join("") + "</svg>";
}
const framed = report => `<div class="frames${report.positions > 1 ? " large" : ""}">`;
const frames = (f, report) => framed(report) + f.top.map(t => `<figure><img loading="lazy" alt="game screen" src="data:image/png;base64,${report.frames[t.frame]}">` +
  `<figcaption>${num(t.activation, 2)} · ${esc(report.actions[t.action])}<br>episode ${t.episode}, decision ${t.step}</figcaption></figure>`).join("") + "</div>";
const conceptTable = (f, report) => "<table><tr><th>concept</th><th>AUROC</th><th>when it fires</th><th>overall</th></tr>" + f.concepts.map(c =>
  `<tr><td>${esc(c.concept)}</td><td>${num(c.auroc)}</td><td>${pct(c.precision, 0)}</td><td>${pct((report.concepts.find(k => k.name === c.concept) || {}).rate, 0)}</td></tr>`).join("") + "</table>";
