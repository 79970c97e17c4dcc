// The list of runs, each with what can be done with it.
import {ask, trying} from "./server.js";

export async function runs(open) {
  const list = el("div", {class: "runs"}, note("Looking for runs …"));
  $("main").replaceChildren(el("h2", {}, "Choose an agent"), note("Watch it play, look at what its layers hold, change them, and watch what changes."), list);
  const found = await trying(() => ask("runs", {}));
  if (!found) return;
  const agents = found.runs.filter(each => !each.problem), others = found.runs.filter(each => each.problem);
  list.replaceChildren(...(agents.length ? agents.map(run => card(run, open)) : [note("No run of an agent was found here. Train one, as by rl-interp train impala, or name its folder: rl-interp explore FOLDER.")]),
    ...(others.length ? [el("details", {}, el("summary", {}, `${others.length} other ${others.length === 1 ? "run" : "runs"}`), el("ul", {}, others.map(({name, problem}) => el("li", {}, `${name}: ${problem}`))))] : []));
}
function card({name, kind, env, dictionaries, steps}, open) {
  const can = ["play", "layers", "change", "saliency", ...(dictionaries.length ? ["features"] : []), ...(env.startsWith("rl_interp/Maze") ? ["edit mazes"] : []),
    ...(/^(MiniGrid|Crafter|ALE\/MsPacman|rl_interp\/Sokoban)/.test(env) ? ["edit states"] : []), ...(env.startsWith("rl_interp/Sokoban") ? ["plan"] : []), ...(kind === "dreamerv3" ? ["imagination"] : [])];
  const node = el("button", {type: "button", class: "card"}, el("strong", {}, name), el("span", {}, `${kind} in ${env.replaceAll(",", ", ")}`), el("span", {class: "soft"}, can.join(" · ")),
    el("span", {class: "soft"}, `${steps.length === 1 ? "checkpoint" : steps.length + " checkpoints, newest"} ${steps.at(-1).toLocaleString("en")}`));
  node.onclick = () => open(name);
  return node;
}
