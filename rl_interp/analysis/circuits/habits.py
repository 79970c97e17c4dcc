"""Habits to break: states in which an agent shows one, others in which it does not, and how often it does at play."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count as count_from
from itertools import takewhile
from typing import Protocol

import numpy as np
import torch

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.steps import Step, play_steps
from rl_interp.analysis.mazes.choices import ask, at_decision_square, choices_of, draw_mazes, towards
from rl_interp.analysis.mazes.goals import play
from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent, evaluating, joined
from rl_interp.core.envs import TextConfig, make_labelled
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.envs.maze.vector import MazeVector
from rl_interp.core.envs.text.game import Reader, TextLabelled
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.interventions import Intervention, intervened
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import evaluate
from rl_interp.core.stats import Estimate, bootstrap, mean, wilson

CORNER = "corner"
"""The habit of maze agents: to walk past the cheese to the top right."""
RIGHT = "right"
"""The habit of transformers: to complete prompts rightly."""
_GOOD = 300
_SEARCHED = 1000
_ENVS = 64
_APART = 5
"""Steps from one kept state to the next, which would be much like it."""
_PATIENCE = 200
"""Steps for each state that is wanted, after which the search ends."""


@dataclass(frozen=True)
class Shown:
    """States in which an agent shows a habit, the clearest first, and others."""

    bad: States
    actions: torch.Tensor
    """bool `[N, A]`: the bad actions in each of the bad states."""
    good: States


@dataclass(frozen=True)
class Scored:
    """How an agent plays: how often it shows the habit, and how well it does otherwise."""

    bad: Estimate
    good: Estimate


class Habit(Protocol):
    """What `circuit break` breaks."""

    @property
    def bad_is(self) -> str:
        """What `Scored.bad` counts."""
        ...

    @property
    def good_is(self) -> str:
        """What `Scored.good` counts."""
        ...

    def shown(self, count: int, seed: int, progress: Progress = SILENT) -> Shown:
        """States, `count` of them bad."""
        ...

    def scored(
        self, agent: Agent, episodes: int, seed: int, interventions: Sequence[Intervention] = (),
        progress: Progress = SILENT,
    ) -> Scored:  # fmt: skip
        """At play, in episodes that begin alike for equal seeds."""
        ...


def habit(loaded: Loaded, name: str) -> Habit:
    """The habit of that name: `corner` of maze agents, or `CONCEPT:ACTION`, or `CONCEPT:ACTION,ACTION`; of transformers
    also `right`, or `CONCEPT:right`.

    Raises:
        UserError: the environment has no such concept or action, or is no maze.
    """
    if name == CORNER:
        if not isinstance(loaded.env, MazeConfig):
            raise UserError(f"{CORNER!r} is a habit of maze agents, and {loaded.env.id} is none; give CONCEPT:ACTION.")
        return _Corner(loaded, loaded.env)
    concept, colon, actions = name.rpartition(":")
    completes = actions == RIGHT and isinstance(loaded.env, TextConfig)
    if not colon and not completes:
        raise UserError(
            f"habit {name!r} given; it is {CORNER!r}, of transformers {RIGHT!r}, or CONCEPT:ACTION, such as "
            "ghost_near:left."
        )
    env = make_labelled(loaded.env)
    if completes and not concept:
        return _Completion(loaded)
    if concept not in env.concepts or env.concepts[concept].kind != "boolean":
        raise UserError(
            unknown("yes-or-no concept", concept, [k for k, c in env.concepts.items() if c.kind == "boolean"])
        )
    if completes:
        return _Completion(loaded, concept)
    numbers = {name.lower(): number for number, name in enumerate(env.action_names)}
    for action in actions.split(","):
        if action.lower() not in numbers:
            raise UserError(unknown("action", action, env.action_names))
    return _ActionWhere(loaded, concept, [numbers[each.lower()] for each in actions.split(",")])


@dataclass(frozen=True)
class _Corner:
    """Langosco et al. 2022, §3.3: at the square where the ways part, towards the corner instead of the cheese."""

    loaded: Loaded
    env: MazeConfig
    bad_is: str = "P(no cheese | decision square reached), in mazes with the cheese anywhere"
    good_is: str = "fraction solved, in mazes as in training"

    def shown(self, count: int, seed: int, progress: Progress = SILENT) -> Shown:
        agent, anywhere = self.loaded.agent, MazeConfig(min_side=self.env.min_side, max_side=self.env.max_side)
        mazes = at_decision_square(draw_mazes(replace(anywhere.scored, decision=True), _SEARCHED, seed))
        steps = towards(mazes)
        cheese, corner = choices_of(ask(agent, mazes), steps)
        worst = np.argsort(-corner, kind="stable")[:count]
        actions = torch.zeros(count, len(self.loaded.env.action_names), dtype=torch.bool)
        actions[:, :4] = torch.from_numpy(steps[1][worst] > 0)
        # What is to stay: where it goes for the cheese, and how it walks elsewhere, here and in mazes as in training.
        rng = np.random.default_rng(seed)
        seen = [mazes[np.flatnonzero(cheese > corner)[:_GOOD]].observations()]
        for i, env in enumerate((anywhere, self.env), 1):
            others = draw_mazes(env.scored, _GOOD, seed + i * _SEARCHED)
            mice = np.array([rng.choice(np.argwhere(~walls)) for walls in others.walls])
            seen.append(others.edit(mouse=mice).observations())
        device = agent.device
        return Shown(
            States(torch.from_numpy(mazes.observations()[worst]).to(device)),
            actions.to(device),
            States(torch.from_numpy(np.concatenate(seen)).to(device)),
        )

    def scored(
        self, agent: Agent, episodes: int, seed: int, interventions: Sequence[Intervention] = (),
        progress: Progress = SILENT,
    ) -> Scored:  # fmt: skip
        anywhere = MazeConfig(min_side=self.env.min_side, max_side=self.env.max_side)
        with progress.bar("Playing", 2 * episodes, "episodes") as update:
            played = play(agent, anywhere, episodes, seed, interventions, update=update)
            alone = MazeVector(self.env.scored, min(_ENVS, episodes))
            done = evaluate(
                agent, alone, episodes, seed=seed, epsilon=0.0, interventions=interventions,
                progress=lambda finished: update(episodes + finished),
            )  # fmt: skip
        return Scored(wilson(~played.cheese[played.decision]), wilson(done.returns > 0))


@dataclass(frozen=True)
class _ActionWhere:
    """An action, or one of several, in states of a concept."""

    loaded: Loaded
    concept: str
    actions: Sequence[int]
    good_is: str = "return"

    @property
    def bad_is(self) -> str:
        names = ", ".join(self.loaded.env.action_names[each] for each in self.actions)
        return f"share of the steps with {self.concept} in which it chooses {names}"

    def shown(self, count: int, seed: int, progress: Progress = SILENT) -> Shown:
        bad, good, last = [], [], -_APART
        agent, env, rng = self.loaded.agent, make_labelled(self.loaded.env), np.random.default_rng(seed)
        with evaluating(agent), progress.bar("Playing", count, "bad states") as update:
            for total, step in enumerate(play_steps(agent, env, seed, rng)):
                if self._here(step) and step.greedy in self.actions:
                    if total - last >= _APART:
                        bad.append(step)
                        last = total
                        update(min(len(bad), count))
                elif step.number % _APART == 0:
                    good.append(step)
                if (len(bad) >= count and len(good) >= _GOOD) or total >= _PATIENCE * max(count, _GOOD):
                    break
        if len(bad) < count or not good:
            raise UserError(
                f"in {_PATIENCE * max(count, _GOOD)} steps the agent was in {len(bad)} states with {self.concept} in "
                f"which it prefers so, and {count} are wanted; it lacks this habit: give another, or fewer states."
            )
        rows = torch.zeros(count, len(self.loaded.env.action_names), dtype=torch.bool, device=self.loaded.agent.device)
        rows[:, list(self.actions)] = True
        return Shown(_states(bad[:count], self.loaded), rows, _states(good, self.loaded))

    def scored(
        self, agent: Agent, episodes: int, seed: int, interventions: Sequence[Intervention] = (),
        progress: Progress = SILENT,
    ) -> Scored:  # fmt: skip
        shares, returns = [], []
        bar = progress.bar("Playing", episodes, "episodes")
        with bar as update, evaluating(agent), intervened(agent, interventions):
            for episode in range(episodes):
                env, rng = make_labelled(self.loaded.env), np.random.default_rng(seed + episode)
                played = play_steps(agent, env, seed + episode, rng)
                steps = list(takewhile(lambda step, of=seed + episode: step.episode == of, played))
                here = [step.action in self.actions for step in steps if self._here(step)]
                shares.append(np.mean(here) if here else np.nan)
                returns.append(steps[-1].returned)
                update(episode + 1)
        known = np.array(shares)[~np.isnan(shares)]
        return Scored(bootstrap([known], mean), bootstrap([np.array(returns)], mean))

    def _here(self, step: Step) -> bool:
        return bool(step.labels[self.concept])


@dataclass(frozen=True)
class _Completion:
    """Prompts, or those of a concept, completed rightly; beside other prompts, and texts that break off elsewhere."""

    loaded: Loaded
    concept: str = ""
    good_is: str = "loss on other text, nats"

    @property
    def bad_is(self) -> str:
        return f"share of prompts{f' of {self.concept}' * bool(self.concept)} that it completes rightly"

    def shown(self, count: int, seed: int, progress: Progress = SILENT) -> Shown:
        prompts, others = self._texts(_PATIENCE * count // 10, seed)
        probability = self._probabilities(self.loaded.agent, prompts.obs)
        right = prompts.right.gather(1, probability.argmax(-1, keepdim=True))[:, 0]
        clearest = torch.where(right, (probability * prompts.right).sum(-1), -1.0).argsort(descending=True)[:count]
        if int(right.sum()) < count:
            raise UserError(
                f"of {len(right)} prompts the agent completes {int(right.sum())} rightly, and {count} are wanted; it "
                "lacks this habit: give fewer states, or an agent that has it."
            )
        return Shown(States(prompts.obs[clearest]), prompts.right[clearest], States(others.obs[:_GOOD]))

    def scored(
        self, agent: Agent, episodes: int, seed: int, interventions: Sequence[Intervention] = (),
        progress: Progress = SILENT,
    ) -> Scored:  # fmt: skip
        prompts, others = self._texts(episodes, seed)
        with intervened(agent, interventions):
            said = self._probabilities(agent, prompts.obs).argmax(-1, keepdim=True)
            probability = (self._probabilities(agent, others.obs) * others.right).sum(-1)
        losses = -probability.clamp(min=1e-30).log().numpy()
        return Scored(wilson(prompts.right.gather(1, said)[:, 0].cpu().numpy()), bootstrap([losses], mean))

    def _texts(self, count: int, seed: int) -> "tuple[_Texts, _Texts]":
        """So many prompts with the habit's concept; and as many beginnings of texts, each broken off at random before
        the word that the prompt asks for, with the prompts between them that lack the concept."""
        assert isinstance(self.loaded.env, TextConfig)
        env, rng = TextLabelled(self.loaded.env.scored), np.random.default_rng(seed)
        reader, prompts, others = Reader(self.loaded.env), [], []
        for episode in count_from(seed):
            _, info = env.reset(seed=episode)
            words, right = env.prompt.words, env.prompt.right
            end = int(rng.integers(2, len(words)))
            others.append((words[:end], words[end : end + 1]))
            here = not self.concept or bool(info["labels"][self.concept])
            (prompts if here else others).append((words, right))
            if len(prompts) == count or episode - seed > _PATIENCE * count:
                break
        order = rng.permutation(len(others))[:count]
        return self._as_numbers(reader, prompts), self._as_numbers(reader, [others[i] for i in order])

    def _as_numbers(self, reader: Reader, texts: Sequence[tuple[Sequence[str], Sequence[str]]]) -> "_Texts":
        device = self.loaded.agent.device
        obs = torch.from_numpy(np.stack([reader.observation(words) for words, _ in texts])).to(device)
        right = torch.zeros(len(texts), len(reader.words), dtype=torch.bool, device=device)
        for row, (_, follows) in zip(right, texts, strict=True):
            row[[reader.number(word) for word in follows]] = True
        return _Texts(obs, right)

    @torch.no_grad()
    def _probabilities(self, agent: Agent, obs: torch.Tensor) -> torch.Tensor:
        with evaluating(agent):
            return torch.cat([agent.step(some).preferences.softmax(-1) for some in obs.split(_ENVS)])


@dataclass(frozen=True)
class _Texts:
    """Beginnings of texts."""

    obs: torch.Tensor
    right: torch.Tensor
    """bool `[N, A]`: words that may follow."""


def _states(steps: Sequence[Step], loaded: Loaded) -> States:
    memory = joined([step.memory for step in steps])
    obs = torch.from_numpy(np.stack([step.obs for step in steps])).to(loaded.agent.device)
    return States(obs, memory, torch.tensor([step.number for step in steps]))
