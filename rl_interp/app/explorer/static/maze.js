// The maze editor: draw walls, drag the mouse and the cheese; the field of what the agent would do follows at once.
import {agentPart} from "./episode.js";
import {pointed} from "./places.js";
import {ask, eager, newest, numbers, png, trying} from "./server.js";
import {listen, set, state} from "./state.js";

const WORLD = 25, CELL = 16, MARGIN = 48, SIDE = 512, STEPS = 200;

export class MazeEditor {
  constructor(page) {
    Object.assign(this, {page, undone: [], drag: null, field: null, newest: newest(), follow: eager(() => this.ask())});
    this.canvas = el("canvas", {id: "maze", width: SIDE, height: SIDE, role: "img", "aria-label": "maze editor: the arrows are what the agent would do from each cell"});
    const button = (text, label, call) => Object.assign(el("button", {type: "button", title: label}, text), {onclick: call});
    this.back = button("Undo", "Take the last edit back (u)", () => this.undo());
    this.text = el("p", {class: "soft"}, "Asking the agent in every cell …");
    for (const kind of ["down", "move", "up"]) this.canvas.addEventListener("pointer" + kind, event => this[kind](event));
    this.node = el("div", {}, el("div", {class: "controls"}, button("From this frame", "Take the maze of this frame", () => this.fromFrame()), this.back,
      button("Play from here", "Let the agent play the edited maze", () => this.play())), this.canvas, this.text);
  }
  start() {
    listen(["changes"], () => { if (this.page.active === this) this.load(); });
    listen(["edited"], () => this.take());
    this.take();
    this.load();
  }
  take() {
    this.maze = state.edited ? decoded(state.edited) : null;  // in another episode, that of its frame is asked for
    if (this.maze) this.follow();
    else this.undone = [];
  }
  // Once it has a maze, that is its own, whatever frame is shown.
  load() {
    if (!this.maze) this.fromFrame();
    else if (this.changes !== state.changes) this.follow();
  }

  async fromFrame() {
    const {episode} = this.page;
    if (episode.steps < 0) return;
    const found = await trying(() => this.newest(signal => ask("maze", episode.about(Math.min(state.step, episode.steps)), signal)), "maze");
    if (found && episode.seed === state.seed) this.edit(decoded(found.maze));
  }
  edit(maze) {
    if (this.maze && encoded(maze) !== encoded(this.maze)) this.undone.push(encoded(this.maze));
    this.maze = maze;
    set({edited: encoded(maze)});
  }
  undo() { if (this.undone.length) { this.maze = decoded(this.undone.pop()); set({edited: encoded(this.maze)}); } }

  async ask() {
    if (!this.maze) return;
    const text = encoded(this.maze);
    this.changes = state.changes;
    const found = await trying(() => ask("field", {...this.page.episode.base, seed: state.seed, maze: text, changes: state.changes}), "maze");
    if (!found) { this.draw(); return; }
    const bitmap = await createImageBitmap(png(found.png));
    this.field = {text, bitmap, cells: numbers(found.cells), before: numbers(found.before), after: numbers(found.after), corner: found.corner, decision: found.decision};
    this.draw();
  }
  // The maze and a cell around it, of the whole world, fill the canvas.
  get view() {
    const cells = Math.min(WORLD + 2, this.maze.side + 2), start = MARGIN + CELL * ((WORLD - cells) / 2);
    return {start, scale: SIDE / (CELL * cells)};
  }
  draw() {
    if (!this.maze) return;
    const context = this.canvas.getContext("2d"), {field, view: {start, scale}} = this;
    context.setTransform(scale, 0, 0, scale, -start * scale, -start * scale);
    context.imageSmoothingEnabled = false;
    if (field) context.drawImage(field.bitmap, 0, 0);
    if (encoded(this.maze) !== field?.text) this.sketch(context);
    else this.arrows(context);
    this.back.disabled = !this.undone.length;
    this.canvas.dataset.maze = field?.text ?? "";
    const changed = state.changes.length ? ` Orange arrows: under the ${state.changes.length} changes of the tab Change; blue: as it is.` : "";
    this.text.textContent = `Click or drag across cells to draw or clear walls; drag the mouse and the cheese. An arrow is the mean step that the agent would take from there.${changed}`;
  }
  // While the field is on its way, and where the maze is none: the cells alone.
  sketch(context) {
    for (let i = 0; i < WORLD * WORLD; i++) {
      const [row, column] = [Math.floor(i / WORLD), i % WORLD];
      context.fillStyle = at(this.maze.cheese, row, column) ? "rgb(248, 190, 24)" : at(this.maze.mouse, row, column) ? "rgb(88, 104, 196)" : this.maze.walls[i] ? "rgb(54, 44, 60)" : "rgb(214, 200, 178)";
      context.fillRect(MARGIN + CELL * column, MARGIN + CELL * row, CELL, CELL);
    }
  }
  arrows(context) {
    const {cells, before, after} = this.field, both = state.changes.length > 0;
    for (let i = 0; i < cells.shape[0]; i++) {
      const y = MARGIN + CELL * (cells[2 * i] + .5), x = MARGIN + CELL * (cells[2 * i + 1] + .5);
      arrow(context, x, y, before[2 * i + 1], before[2 * i], both ? "rgba(0, 80, 180, .55)" : "rgb(150, 30, 0)");
      if (both) arrow(context, x, y, after[2 * i + 1], after[2 * i], "rgb(190, 60, 0)");
    }
    const [row, column] = this.field.decision;
    if (row >= 0) Object.assign(context, {strokeStyle: "rgb(255, 0, 200)", lineWidth: 2}).strokeRect(MARGIN + CELL * column, MARGIN + CELL * row, CELL, CELL);
  }

  cellAt(event) {
    const {start, scale} = this.view, [x, y] = pointed(event, this.canvas).map(each => each / scale + start);
    const cell = [Math.floor((y - MARGIN) / CELL), Math.floor((x - MARGIN) / CELL)];
    return cell.every(each => each >= 0 && each < WORLD) ? cell : null;
  }
  down(event) {
    const cell = this.maze && this.cellAt(event);
    if (!cell) return;
    this.canvas.setPointerCapture(event.pointerId);
    const name = ["mouse", "cheese"].find(each => at(this.maze[each], ...cell));
    this.drag = {name, wall: !this.maze.walls[cell[0] * WORLD + cell[1]], before: encoded(this.maze)};
    if (!name) this.put(cell);
  }
  move(event) {
    const cell = this.drag && this.cellAt(event);
    if (cell) this.put(cell);
  }
  up() {  // one edit for the whole drag
    if (!this.drag) return;
    const {before} = this.drag;
    this.drag = null;
    if (before !== encoded(this.maze)) { this.undone.push(before); this.draw(); }
  }
  put([row, column]) {
    const maze = structuredClone(this.maze), {name, wall} = this.drag, index = row * WORLD + column;
    const taken = at(maze.mouse, row, column) || at(maze.cheese, row, column);
    if (name) { if (maze.walls[index] || taken) return; maze[name] = [row, column]; }
    else { if (taken || maze.walls[index] === wall) return; maze.walls[index] = wall; }
    this.maze = maze;
    set({edited: encoded(maze)});
  }
  async play() {
    if (!this.maze) return;
    const maze = encoded(this.maze);
    if (await this.page.replay([agentPart(STEPS, [...state.changes])], 0, maze)) this.page.stage.toggle(true);
  }
}

const at = ([r, c], row, column) => r === row && c === column;
function arrow(context, x, y, right, down, colour) {
  const length = Math.hypot(right, down), reach = CELL * .48;
  if (length < .04) return;
  const [dx, dy] = [right * reach, down * reach], [ux, uy] = [right / length, down / length];
  Object.assign(context, {strokeStyle: colour, lineWidth: 1.8});
  context.beginPath();
  context.moveTo(x - dx * .8, y - dy * .8);
  context.lineTo(x + dx * .8, y + dy * .8);
  for (const turn of [1, -1]) {
    context.moveTo(x + dx * .8, y + dy * .8);
    context.lineTo(x + dx * .8 - 4 * (ux - turn * .7 * uy), y + dy * .8 - 4 * (uy + turn * .7 * ux));
  }
  context.stroke();
}

// As `maze_text` writes it.
export function decoded(text) {
  const [side, ...rest] = text.split("."), [a, b, c, d] = rest.slice(0, 4).map(Number);
  const bytes = Uint8Array.from(atob((rest[4] ?? "").replaceAll("-", "+").replaceAll("_", "/")), each => each.charCodeAt(0));
  return {side: +side, mouse: [a, b], cheese: [c, d], walls: Array.from({length: WORLD * WORLD}, (_, i) => Boolean(bytes[i >> 3] >> (7 - i % 8) & 1))};
}
export function encoded({side, mouse, cheese, walls}) {
  const bytes = new Uint8Array(Math.ceil(walls.length / 8));
  walls.forEach((wall, i) => { if (wall) bytes[i >> 3] |= 1 << (7 - i % 8); });
  const bits = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return [side, ...mouse, ...cheese, bits].join(".");
}
