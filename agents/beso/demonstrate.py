"""Where demonstrations come from: an environment's own controller, or a folder."""

from rl_interp.agents.beso.config import BESOConfig
from rl_interp.agents.beso.data import Demonstrations
from rl_interp.agents.beso.files import load_demonstrations
from rl_interp.core.envs import EnvConfig, TwoWaysConfig
from rl_interp.core.envs.gym.config import GymConfig
from rl_interp.core.errors import UserError


def demonstrations_of(config: BESOConfig, seed: int) -> Demonstrations:
    """What a training learns from.

    Raises:
        UserError: an environment without a controller and no folder, or demonstrations that do not fit it.
    """
    found = load_demonstrations(config.data) if config.data else demonstrate(config.env, config.demonstrations, seed)
    goals = config.env.goals
    assert goals is not None
    wanted = len(goals.state), len(config.env.action_names)
    have = found.states.shape[1], found.actions.shape[1]
    if have != wanted:
        raise UserError(
            f"{config.data} has states of {have[0]} numbers and actions of {have[1]}, and {config.env.id} has "
            f"{wanted[0]} and {wanted[1]}; give demonstrations of that environment."
        )
    return found


def demonstrate(env: EnvConfig, episodes: int, seed: int) -> Demonstrations:
    """Episodes of an environment's controller, the same for the same seed.

    Raises:
        UserError: there is none for this environment.
    """
    if isinstance(env, TwoWaysConfig):
        from rl_interp.core.envs.two_ways.demonstrate import demonstrate as both_ways

        return Demonstrations.of(both_ways(env, episodes, seed), env.id)
    if isinstance(env, GymConfig) and "PointMaze" in env.id:
        from rl_interp.agents.beso.point_maze import demonstrate as through_the_maze

        return Demonstrations.of(through_the_maze(env, episodes, seed), env.id)
    raise UserError(
        f"{env.id} has no controller that demonstrates it, as rl_interp/TwoWays-v0 and PointMaze of gymnasium-robotics "
        "do; give a folder of demonstrations (--data)."
    )
