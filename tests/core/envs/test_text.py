"""Texts: what a grammar says follows is what the text itself says."""

import numpy as np
import pytest
import torch

from rl_interp.core.envs import TextConfig, env_config, make_labelled, make_vector
from rl_interp.core.envs.text import words as w
from rl_interp.core.envs.text.config import PREFIX, TASKS
from rl_interp.core.errors import UserError


def prompts(task, count=300, split="training"):
    grammar = env_config(PREFIX + task).grammar
    rng = np.random.default_rng(0)
    return [grammar.prompt(rng, split) for _ in range(count)]


@pytest.mark.parametrize("task", TASKS)
def test_texts_and_prompts_fit_and_are_of_the_vocabulary(task):
    grammar, rng = env_config(PREFIX + task).grammar, np.random.default_rng(1)
    for prompt in prompts(task):
        assert {*prompt.words, *prompt.twin, *prompt.right, *prompt.wrong} <= set(grammar.vocabulary)
        assert len(prompt.words) == len(prompt.twin) < grammar.length
        assert prompt.words != prompt.twin
        assert not set(prompt.right) & set(prompt.wrong)
        assert len(grammar.text(rng, "training")) <= grammar.length


def test_a_repeated_symbol_is_followed_by_what_followed_it():
    for prompt in prompts("induction"):
        *before, last = prompt.words
        assert prompt.right == (prompt.words[before.index(last) + 1],)
        *before, last = prompt.twin
        assert prompt.twin[before.index(last) + 1] not in prompt.right


def test_the_indirect_object_is_the_name_that_is_said_once():
    orders = set()
    for prompt in prompts("ioi"):
        (indirect,), (subject,) = prompt.right, prompt.wrong
        assert (prompt.words.count(indirect), prompt.words.count(subject)) == (1, 2)
        assert prompt.twin.count(subject) == 1
        first = prompt.words.index(subject) < prompt.words.index(indirect)
        assert prompt.labels == {"subject_first": first}
        orders.add(first)
    assert orders == {True, False}


def test_the_docstring_goes_on_with_the_next_argument():
    for prompt in prompts("docstring"):
        said = [prompt.words[i + 1] for i, word in enumerate(prompt.words[:-1]) if word == ":param"]
        arguments = [word for word in prompt.words[prompt.words.index("self") : prompt.words.index(")")] if word != ","]
        assert prompt.right == (arguments[arguments.index(said[-1]) + 1],)


def test_a_later_year_is_right_and_no_earlier_one():
    for prompt in prompts("greater-than"):
        start = int(prompt.words[prompt.words.index("from") + 4])
        assert sorted(map(int, prompt.right)) == list(range(start + 1, 100))
        assert sorted(map(int, prompt.wrong)) == list(range(start + 1))


@pytest.mark.parametrize("task", TASKS)
def test_no_text_that_is_trained_on_begins_as_a_held_out_prompt_does(task):
    grammar, rng = env_config(PREFIX + task).grammar, np.random.default_rng(1)
    held_out = {prompt.words for prompt in prompts(task, 2000, "held-out")}
    lengths = {len(words) for words in held_out}
    for _ in range(6000):
        text = tuple(grammar.text(rng, "training"))
        assert not any(text[:length] in held_out for length in lengths)
    assert env_config(PREFIX + task).scored == TextConfig(PREFIX + task, "held-out")


def test_what_a_held_out_story_says_of_who_plays_with_what_and_where_no_other_says():
    grammar, said = env_config(f"{PREFIX}stories").grammar, {}
    for split in ("training", "held-out"):
        rng = np.random.default_rng(0)
        stories = [grammar.text(rng, split) for _ in range(6000)]
        said[split] = {
            tuple(next(word for word in story if word in words) for words in (w.PEOPLE, w.SPOTS, w.TOYS))
            for story in stories
        }
    assert len(said["held-out"]) > 1000
    assert not said["training"] & said["held-out"]


def test_the_right_word_is_rewarded_and_ends_the_episode():
    config = env_config(f"{PREFIX}ioi")
    env = make_labelled(config)
    obs, info = env.reset(seed=3)
    words = [config.action_names[number] for number in obs if number >= 0]
    assert tuple(words) == env.prompt.words
    assert set(obs[len(words) :]) <= {-1}
    assert "subject_first" in info["labels"]
    right, wrong = (config.action_names.index(word) for word in (env.prompt.right[0], env.prompt.wrong[0]))
    assert env.step(right)[1:4] == (1.0, True, False)
    env.reset(seed=3)
    assert env.step(wrong)[1:4] == (0.0, True, False)


def test_many_texts_are_those_of_one_and_go_on_after_a_restart():
    config = env_config(f"{PREFIX}stories")
    vector, again = make_vector(config, 3), make_vector(config, 3)
    assert not np.array_equal(*vector.reset(0)[:2])
    for _ in range(3):
        vector.send(np.zeros(3, np.int64))
        step = vector.recv()
    assert np.array_equal(again.restore(vector.state()), step.obs)


def test_an_unknown_task_is_refused():
    with pytest.raises(UserError, match="unknown environment 'rl_interp/Text-ios'.*rl_interp/Text-ioi"):
        env_config(f"{PREFIX}ios")
    with pytest.raises(UserError, match="split='test' given"):
        TextConfig(split="test")


def test_observations_are_numbers_and_torch_takes_them():
    obs = torch.from_numpy(make_vector(env_config(f"{PREFIX}ioi"), 2).reset(0))
    assert obs.dtype == torch.int64
    assert obs.shape == (2, 19)
