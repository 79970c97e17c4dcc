"""Finding an agent's graph by running it: where each operation's operands come from, and where its result goes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rl_interp.circuits.follow import HEADS, OBS, OUTPUT, Followed, state_name
from rl_interp.circuits.graph import Graph, Link, Node, Reader
from rl_interp.circuits.units import Units, through
from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.errors import HookError
from rl_interp.core.gradients import through_numpy
from rl_interp.core.hooks import hook_point
from rl_interp.core.parts import leaves


def trace(
    agent: Agent, obs: Tensor, state: State = None, *, first: Tensor | None = None, points: Sequence[str] | None = None
) -> Graph:
    """The graph of one step of an agent.

    Args:
        obs: `[B, ...]`, of which the first is looked at.
        state: `[B, ...]`; None for the initial one.
        points: hook points at which nodes are seen, with `obs` for the observation; by default those that the agent
            names as `graph_points`, or all of them. What is computed before the first of them is not in the graph.

    Raises:
        HookError: no such point; or what two nodes have in common can't be told: a value that is read is mixed of
            several nodes, or is a sum that no hook point names.
        NoGradientError: an agent that makes NumPy arrays of what requires a gradient.
    """
    if points is None:
        points = agent.graph_points or (OBS, *agent.hook_points)
    with torch.enable_grad(), through_numpy():
        with_grad = Followed(agent, obs, state, first, points)
        with_grad.follow()
    with torch.no_grad():
        followed = Followed(agent, obs, state, first, points)
        return _graph(followed, followed.follow(), with_grad)


def _graph(followed: Followed, out: PolicyOutput, with_grad: Followed) -> Graph:
    """The graph, where `with_grad` has followed a step with gradients."""
    calls = dict(zip(followed.readers, with_grad.readers, strict=False))
    theirs = [(r.name, r.origins) for r in with_grad.readers.values()]
    if [(r.name, r.origins) for r in followed.readers.values()] != theirs:
        raise HookError("the agent computes in other ways where gradients are on, so its graph can't be told.")
    nodes, node_of = _nodes(followed, out)
    # What is read for a result that reaches no point is no part of the graph.
    readers = [reading for reading in followed.readers.values() if reading.dests]
    number = {reading.call: i for i, reading in enumerate(readers)}
    keys = _keys(followed, node_of)
    telling = Units(followed)
    units, rows_of = telling.read(), telling.made()
    root_unit = telling.roots(units)
    # An output that is made of what is seen alone, by no reader, is no node's.
    widths = {node.name: len(root_unit[node.faces[0]]) for node in nodes if node.faces[0] in root_unit}
    links: list[Link] = []
    for reading in readers:
        for face in reading.dests:
            dest, rows = node_of[face], torch.empty(0, dtype=torch.int64)
            if reading.dense:
                rows = through(rows_of[reading.call, face], root_unit[face])
            for operand, origins in reading.origins.items():
                for origin in sorted(origins):
                    source = node_of[origin]
                    of_unit = through(units[origin][reading.call, operand], root_unit[origin])
                    shape = (widths[dest], widths[source]) if reading.dense else (widths[source],)
                    key = keys[reading.call, operand]
                    links.append(
                        Link(source, dest, number[reading.call], operand, key, reading.dense, of_unit, rows, shape)
                    )
    named = _named(links)
    read = {link.source for link in named} | {link.dest for link in named}
    heads = {head: node_of.get(f"{head}{OUTPUT}") for head in HEADS}
    outputs = {head: node for head, node in heads.items() if node in widths}
    return Graph(
        nodes={n.name: replace(n, units=widths[n.name]) for n in nodes if n.name in read | set(outputs.values())},
        links=tuple(named),
        readers=tuple(
            Reader((r.call, calls[r.call]), r.kind, r.name, {i: keys[r.call, i] for i in r.origins}) for r in readers
        ),
        outputs=outputs,
        paths=tuple(dict.fromkeys(hook_point(followed.agent, point).path for point in followed.points)),
        calls=(followed.count, with_grad.count),
        unread=tuple(dict.fromkeys(followed.unread)),
    )


def _nodes(followed: Followed, out: PolicyOutput) -> tuple[list[Node], dict[str, str]]:
    """The nodes, and the name of the node of each face. A face made of another alone is the same node."""
    root: dict[str, str] = {}
    for name, face in followed.faces.items():
        for call in face.pending:
            followed.readers[call].dests.append(name)
        if face.pending and face.origins:
            raise HookError(
                f"{name!r} is a mixture of {', '.join(sorted(face.origins))} and of a sum that no hook point "
                "names; name a hook point on the sum."
            )
        # An encoder may make of an observation what it likes, so its units are those of what is seen first.
        alone = len(face.origins) == 1 and face.origins != {OBS}
        root[name] = root[next(iter(face.origins))] if alone else name
    groups: dict[str, list[str]] = {}
    for name, first in root.items():
        groups.setdefault(first, []).append(name)
    memory = {
        state_name(place): root[next(iter(made))]
        for place, leaf in leaves(out.state)
        if len(made := followed.origins_of(leaf)) == 1
    }
    nodes: list[Node] = []
    node_of: dict[str, str] = {}
    for faces in groups.values():
        named = [face for face in faces if not face.endswith(OUTPUT)] or faces
        name = named[-1].removesuffix(OUTPUT)
        nodes.append(Node(name, 0, tuple(named), width=followed.faces[named[0]].width))
        node_of |= dict.fromkeys(faces, name)
    renamed = {leaf: f"{node_of[of]}[-1]" for leaf, of in memory.items() if of in node_of and leaf in node_of}
    nodes = [
        replace(n, name=renamed[n.faces[0]], memory=node_of[memory[n.faces[0]]]) if n.faces[0] in renamed else n
        for n in nodes
    ]
    node_of = {face: renamed.get(face, name) for face, name in node_of.items()}
    return nodes, node_of


def _keys(followed: Followed, node_of: Mapping[str, str]) -> dict[tuple[int, int], str]:
    """A name for each operand that is read: of the nodes that it holds, and of what reads it where that is not
    enough. Operands that are one tensor have one."""
    by_tensor: dict[int, list[tuple[int, int]]] = {}
    for reading in followed.readers.values():
        for operand, tensor in reading.tensors.items():
            by_tensor.setdefault(tensor, []).append((reading.call, operand))
    keys: dict[tuple[int, int], str] = {}
    for places in by_tensor.values():
        reading = followed.readers[places[0][0]]
        name = "+".join(dict.fromkeys(node_of[origin] for origin in sorted(reading.origins[places[0][1]])))
        if name in keys.values():
            name = f"{name} -> {node_of[reading.dests[0]] if reading.dests else reading.name}"
        while name in keys.values():
            name += "'"
        keys |= dict.fromkeys(places, name)
    return keys


def _named(links: Sequence[Link]) -> list[Link]:
    """The links with names of their own: `conv1.post -> conv2.post`."""
    named: dict[str, Link] = {}
    for link in links:
        name = f"{link.source} -> {link.dest}"
        count = sum(each == name or each.startswith(name + " #") for each in named)
        name = name if count == 0 else f"{name} #{count + 1}"
        named[name] = replace(link, name=name)
    return list(named.values())
