// Places: of a pointer on a canvas, and of a layer's positions on a screen.

// Where a pointer is on a canvas, in the canvas' own pixels. Rectangles of elements are measured in the same pixels as
// `clientX`, after zoom and CSS transforms; `offsetX` is not.
export function pointed(event, canvas) {
  const {left, top, width, height} = canvas.getBoundingClientRect();
  return [(event.clientX - left) / width * canvas.width, (event.clientY - top) / height * canvas.height];
}

// A part of the observation, given in shares of its height and width, on the screen: left, top, right, bottom.
export function box([top, left, bottom, right, turns], [t, l, b, r]) {
  for (let i = 0; i < (turns % 4 + 4) % 4; i++) [t, l, b, r] = [1 - r, t, 1 - l, b];
  return [left + l * (right - left), top + t * (bottom - top), left + r * (right - left), top + b * (bottom - top)];
}
const around = ({first, stride}, row, column, size = stride) => [first[0] + stride[0] * row - size[0] / 2,
  first[1] + stride[1] * column - size[1] / 2, first[0] + stride[0] * row + size[0] / 2, first[1] + stride[1] * column + size[1] / 2];

// Colours of values: orange for above 0, blue for below; they differ in brightness too.
export const ABOVE = "255, 159, 28", BELOW = "86, 180, 255";

// A layer's positions laid over a screen, coloured by `values`, with the strongest one framed and, thinner, all that it sees.
export function lay(context, scale, observed, places, values) {
  if (!places.grid) return;
  const [rows, columns] = places.grid, top = values.reduce((most, each) => Math.max(most, Math.abs(each)), 1e-12);
  let strongest = 0;
  context.fillStyle = "rgba(0, 0, 0, .45)";
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  for (let i = 0; i < rows * columns; i++) {
    if (Math.abs(values[i]) > Math.abs(values[strongest])) strongest = i;
    const strength = Math.abs(values[i]) / top;
    if (strength < .02) continue;
    context.fillStyle = `rgba(${values[i] > 0 ? ABOVE : BELOW}, ${.8 * strength})`;
    fill(context, scale, box(observed, around(places, Math.floor(i / columns), i % columns)));
  }
  if (values[strongest]) frame(context, scale, observed, places, strongest, "rgb(255, 0, 200)");
}
export function frame(context, scale, observed, places, position, colour) {
  const [row, column] = [Math.floor(position / places.grid[1]), position % places.grid[1]];
  for (const [size, line] of [[places.stride, 3], [places.field, 1]]) {
    const [left, top, right, bottom] = box(observed, around(places, row, column, size)).map(each => each * scale);
    Object.assign(context, {strokeStyle: colour, lineWidth: line}).strokeRect(left, top, right - left, bottom - top);
  }
}
function fill(context, scale, corners) {
  const [left, top, right, bottom] = corners.map(each => Math.round(each * scale));
  context.fillRect(left, top, right - left, bottom - top);
}

// The position whose place is nearest to a point of the screen.
export function nearest(observed, places, x, y) {
  const [rows, columns] = places.grid;
  let best = 0, least = Infinity;
  for (let i = 0; i < rows * columns; i++) {
    const [left, top, right, bottom] = box(observed, around(places, Math.floor(i / columns), i % columns));
    const far = Math.hypot((left + right) / 2 - x, (top + bottom) / 2 - y);
    if (far < least) [best, least] = [i, far];
  }
  return best;
}
