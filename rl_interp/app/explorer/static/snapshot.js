// The page as it stands as one HTML file that needs nothing else: pictures in place of canvases, and no script.
const STYLES = ["style.css", "explorer.css"];
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

// The page's style, for pictures in place of canvases, and buttons that are off because nothing runs.
export async function styles() {
  const texts = await Promise.all(STYLES.map(async name => (await fetch("/static/" + name)).text()));
  return texts.join("\n").replaceAll(" canvas", " img") + "\nbutton:disabled { opacity:1 }";
}

export function snapshot(css, address, python) {
  const inert = document.implementation.createHTMLDocument("");  // in which nothing is loaded and nothing runs
  const shown = inert.importNode(document.documentElement, true);
  const pictures = [...document.querySelectorAll("canvas, img")].map(each => each instanceof HTMLCanvasElement ? each.toDataURL() : drawn(each));
  [...shown.querySelectorAll("canvas, img")].forEach((copy, i) => {
    const image = inert.createElement("img");
    for (const name of ["id", "class", "alt"]) if (copy.hasAttribute(name)) image.setAttribute(name, copy.getAttribute(name));
    if (copy.hasAttribute("aria-label")) image.setAttribute("alt", copy.getAttribute("aria-label"));
    image.style.cssText = copy.style.cssText;  // as an attribute the page's policy would refuse it
    image.setAttribute("src", pictures[i]);
    copy.replaceWith(image);
  });
  const selects = [...document.querySelectorAll("select")], fields = [...document.querySelectorAll("input, textarea")];
  [...shown.querySelectorAll("select")].forEach((copy, i) => [...copy.options].forEach((option, k) => option.toggleAttribute("selected", k === selects[i].selectedIndex)));
  [...shown.querySelectorAll("input, textarea")].forEach((copy, i) => { if (copy.tagName === "INPUT") copy.setAttribute("value", fields[i].value); else copy.textContent = fields[i].value; });
  shown.querySelectorAll("button, input, select, textarea").forEach(node => node.setAttribute("disabled", ""));
  shown.querySelectorAll("script, link, dialog, noscript").forEach(node => node.remove());
  shown.querySelector("main").append(...about(inert, address, python));
  return "<!doctype html>\n" + shown.outerHTML.replace("</head>", () => `<meta http-equiv="Content-Security-Policy" content="${POLICY}"><style>${css}</style></head>`);
}
function about(inert, address, python) {
  const node = (name, text) => Object.assign(inert.createElement(name), {textContent: text});
  return [node("h2", "Where this is from"), node("p", "The address of this view in rl-interp explore, and the Python lines that give the same:"), node("pre", address), node("pre", python)];
}
function drawn(image) {
  const canvas = el("canvas", {width: image.naturalWidth || 1, height: image.naturalHeight || 1});
  if (image.naturalWidth) canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL();
}
