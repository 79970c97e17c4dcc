// Asking the server. Every question says all that it is about, and is given up when its `signal` says so.
const PAGE = Array.from(crypto.getRandomValues(new Uint8Array(8)), each => each.toString(16).padStart(2, "0")).join("");
const AGAIN = [300, 1000, 2000, 4000];

export class Refused extends Error {}

async function post(name, body, signal) {
  for (const wait of [...AGAIN, null]) {
    try {
      const answer = await fetch("/api/" + name, {
        method: "POST", signal, headers: {"Content-Type": "application/json", "X-Page": PAGE}, body: JSON.stringify(body),
      });
      if (answer.ok) return answer;
      throw new Refused((await answer.json().catch(() => ({}))).error ?? `the server answered with ${answer.status}.`);
    } catch (error) {
      if (error instanceof Refused || error.name === "AbortError") throw error;
      if (wait === null) throw new Refused("the server does not answer; start rl-interp explore again, and this page goes on.");
      await new Promise(done => setTimeout(done, wait));  // it may be about to be started again
    }
  }
}

// A page that is left makes room for another.
addEventListener("pagehide", () => { fetch("/api/left", {method: "POST", keepalive: true, headers: {"Content-Type": "application/json", "X-Page": PAGE}, body: "{}"}).catch(() => {}); });

export const ask = async (name, body, signal) => (await post(name, body, signal)).json();

export const film = async (body, signal) => (await post("film", body, signal)).blob();

// PNGs, each after its length in four bytes.
export async function pictures(body, signal) {
  const bytes = await (await post("frames", body, signal)).arrayBuffer(), view = new DataView(bytes), found = [];
  for (let at = 0; at < bytes.byteLength;) {
    const length = view.getUint32(at, true);
    found.push(createImageBitmap(new Blob([bytes.slice(at + 4, at + 4 + length)], {type: "image/png"})));
    at += 4 + length;
  }
  return Promise.all(found);
}

// An array of the server's: its numbers in one row, with `shape`.
export function numbers({shape, data}) {
  const values = new Float32Array(Uint8Array.from(atob(data), each => each.charCodeAt(0)).buffer);
  return Object.assign(values, {shape});
}
export const png = data => new Blob([Uint8Array.from(atob(data), each => each.charCodeAt(0))], {type: "image/png"});

// Of questions that follow each other quickly the last alone is answered: `newest(call)` gives up the one before.
export function newest() {
  let last = null;
  return async call => {
    last?.abort();
    const mine = last = new AbortController();
    try {
      const found = await call(mine.signal);
      return mine === last ? found : undefined;
    } catch (error) {
      if (error.name === "AbortError" || mine !== last) return undefined;
      throw error;
    }
  };
}

// One after the other, skipping all but the last of those that wait: for what follows a pointer.
export function eager(call) {
  let busy = false, next = null;
  return async function wanted(...given) {
    if (busy) { next = given; return; }
    busy = true;
    try { await call(...given); } finally {
      busy = false;
      if (next) { const again = next; next = null; wanted(...again); }
    }
  };
}

export function say(text, kind = "", about = "") {
  const node = document.getElementById("said");
  node.textContent = text;
  node.className = kind;
  node.dataset.about = about;
}
// Runs what may fail, and says why in the page: null. What was given up has not failed: undefined, as of `newest`.
export async function trying(call, about = "") {
  try {
    const found = await call();
    mended(about);
    return found;
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Refused)) console.warn(error);
    say((about ? about + ": " : "") + error.message, "wrong", about);
    return null;
  }
}
// Takes back what was said to be wrong; what went wrong elsewhere stays.
export function mended(about) {
  const said = document.getElementById("said");
  if (said.className === "wrong" && said.dataset.about === about) say("");
}
