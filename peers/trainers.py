"""Stable-Baselines3 and d3rlpy, timed beside the trainer by `cargo xtask bench-peers`.

Each line of standard input is a question, each line of standard output its answer; `trainer/examples/beside_peers.rs` answers
the same ones. Updates are asked of the peer with the same algorithm: plain DQN of Stable-Baselines3, Double DQN of d3rlpy.
Everything runs on one thread. Needs the packages of `peers/requirements.txt`.
"""

import contextlib
import json
import os
import sys
import time

# Before torch and numpy start their threads.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")

import gymnasium
import numpy
import torch

torch.set_num_threads(1)

FILLED, LENGTH, ROUND = 20_000, 20, 20
INTERVAL, EPISODES = 2_500, 20


class Spaces(gymnasium.Env):
    """What Stable-Baselines3 asks of an environment before it makes networks; it is not played."""

    def __init__(self, inputs, actions):
        self.observation_space = gymnasium.spaces.Box(0, 1, (inputs,), numpy.float32)
        self.action_space = gymnasium.spaces.Discrete(actions)

    def reset(self, seed=None, options=None):
        return numpy.zeros(self.observation_space.shape, numpy.float32), {}

    def step(self, action):
        return numpy.zeros(self.observation_space.shape, numpy.float32), 0.0, False, False, {}


def drawn(inputs, actions):
    """Steps like those of the trainer's side: drawn states, in episodes of `LENGTH` steps."""
    random = numpy.random.default_rng(1)
    states = random.random((FILLED + 1, inputs), dtype=numpy.float32)
    ends = numpy.zeros(FILLED, numpy.float32)
    ends[LENGTH - 1 :: LENGTH] = 1
    played = random.integers(0, actions, (FILLED, 1))
    return states, played, (played == 2).astype(numpy.float32), ends


def stable_baselines(asked):
    from stable_baselines3 import DQN
    from stable_baselines3.common.logger import Logger

    model = DQN(
        "MlpPolicy",
        Spaces(asked["inputs"], asked["actions"]),
        batch_size=asked["batch"],
        buffer_size=100_000,
        policy_kwargs={"net_arch": asked["hidden"]},
        device="cpu",
        seed=1,
    )
    model.set_logger(Logger(None, []))
    states, played, rewards, ends = drawn(asked["inputs"], asked["actions"])
    for i in range(FILLED):
        model.replay_buffer.add(states[i], states[i + 1], played[i], rewards[i], ends[i : i + 1], [{}])
    return lambda: model.train(ROUND, asked["batch"])


def d3rlpy(asked):
    import d3rlpy

    states, played, rewards, ends = drawn(asked["inputs"], asked["actions"])
    data = d3rlpy.dataset.MDPDataset(states[:-1], played, rewards, ends)
    encoder = d3rlpy.models.VectorEncoderFactory(asked["hidden"])
    algorithm = d3rlpy.algos.DoubleDQNConfig(batch_size=asked["batch"], encoder_factory=encoder).create(device=False)
    algorithm.build_with_dataset(data)

    def updates():
        for _ in range(ROUND):
            algorithm.update(data.sample_transition_batch(asked["batch"]))

    return updates


def updates(asked, runs={}):
    name = json.dumps(asked)
    if name not in runs:
        runs[name] = (d3rlpy if asked["double"] else stable_baselines)(asked)
        runs[name]()
    start, made = time.perf_counter(), 0
    while time.perf_counter() - start < asked["seconds"]:
        runs[name]()
        made += ROUND
    return {"updates_per_second": made / (time.perf_counter() - start)}


def greedy_returns(model, episodes, seed):
    """All episodes side by side, so that the network is asked once a step."""
    environments = [gymnasium.make("CartPole-v1") for _ in range(episodes)]
    states = numpy.array([one.reset(seed=seed + i)[0] for i, one in enumerate(environments)])
    returns, playing = numpy.zeros(episodes), numpy.ones(episodes, bool)
    while playing.any():
        actions, _ = model.predict(states, deterministic=True)
        for i in numpy.flatnonzero(playing):
            states[i], reward, terminated, truncated, _ = environments[i].step(int(actions[i]))
            returns[i] += reward
            playing[i] = not (terminated or truncated)
    return returns.mean()


def cart_pole(asked):
    """The recipe of RL Baselines3 Zoo. The clock stands still while the network is evaluated."""
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    class Selection(BaseCallback):
        highest, best, stopped = -numpy.inf, None, 0.0

        def evaluate(self):
            start = time.perf_counter()
            reached = greedy_returns(self.model, EPISODES, 10**6)
            if reached > self.highest:
                self.highest = reached
                self.best = {name: value.clone() for name, value in self.model.policy.state_dict().items()}
            self.stopped += time.perf_counter() - start

        def _on_step(self):
            if self.num_timesteps % INTERVAL == 0:
                self.evaluate()
            return True

    selection = Selection()
    start = time.perf_counter()
    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        device="cpu",
        seed=asked["seed"],
    )
    model.learn(asked["steps"], callback=selection)
    seconds = time.perf_counter() - start - selection.stopped
    selection.evaluate()
    last = greedy_returns(model, 50, 2 * 10**6)
    model.policy.load_state_dict(selection.best)
    best = greedy_returns(model, 50, 2 * 10**6)
    return {"seconds": seconds, "updates": model._n_updates, "last_return": last, "best_return": best}


def versions(_):
    from importlib.metadata import version

    return {name: version(name) for name in ("stable-baselines3", "d3rlpy", "torch")}


if __name__ == "__main__":
    answers = {"updates": updates, "cart_pole": cart_pole, "versions": versions}
    for line in sys.stdin:
        [(what, asked)] = json.loads(line).items()
        # The packages speak on standard output too.
        with contextlib.redirect_stdout(sys.stderr):
            answer = answers[what](asked)
        print(json.dumps(answer), flush=True)
