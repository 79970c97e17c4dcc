"""The commands on a Sokoban agent."""

from pathlib import Path

import pytest

TRAIN = (
    "train impala --env rl_interp/Sokoban-v0 --env.observation symbols --env.levels unfiltered --env.min-steps 12 "
    "--env.max-steps 12 --channels 12 --layers 1 --ticks 2 --hidden 16 --num-envs 4 --unroll 10 --minibatches 1 "
    "--agent-steps 40 --eval-episodes 1 --actors 0 --precision fp32 --name pusher"
)


@pytest.mark.full
def test_a_plan_is_read_written_filmed_and_given_time(run, place):
    assert run(TRAIN)[0] == 0
    status, _, error = run("sokoban film pusher")
    assert status == 1
    assert "run `rl-interp sokoban probe runs/pusher --checkpoint 40` first" in error
    status, probed, error = run("sokoban probe pusher --episodes 8 --hooks layer1.c layer1.h")
    assert status == 0, error
    for concept in ("agent", "box"):
        scores = probed["concepts"][concept]
        where = {(each["layer"], each["tick"], each["kernel"]) for each in scores}
        assert where == {
            (layer, tick, side) for layer in ("layer1.c", "layer1.h") for tick in (0, 1) for side in (1, 3)
        }
        assert set(scores[0]["controls"]) == {"observation", "shuffled_weights", "shuffled_labels"}
    status, found, error = run("sokoban channels pusher --episodes 8 --played 2 --draws 1")
    assert status == 0, error
    assert [each["ablated"] for each in found["ablations"]] == ["nothing"] + ["path channels", "other channels"] * 2
    status, steered, error = run("sokoban steer pusher --symmetries 1 --doses 1 --draws 2")
    assert status == 0, error
    assert set(steered["agent_shortcut"]["doses"]) == {"probe", "random", "path_channels", "other_channels", "opposite"}
    assert {"success", "interval", "random", "alpha"} <= set(steered["box_shortcut"])
    status, thought, error = run("sokoban think pusher --episodes 4 --thinking 0 1 --sizes 12")
    assert status == 0, error
    assert [each["thinking"] for each in thought["thinking"]] == [0, 1]
    assert {"success_rate", "cycles", "substituted"} <= set(thought)
    assert {each["kind"] for each in thought["larger"]["levels"]} == {"generated", "zigzag"}
    status, film, error = run("sokoban film pusher --level unfiltered:7 --thinking 1")
    assert status == 0, error
    assert film["frames"] == 2 * film["steps"]
    assert Path(film["video"]).stat().st_size > 10_000


def test_another_agent_is_told_that_it_plays_no_sokoban(run):
    status, _, error = run("sokoban probe tiny")
    assert status == 1
    assert "runs/tiny plays ALE/MsPacman-v5; give a run of an agent in Sokoban" in error
