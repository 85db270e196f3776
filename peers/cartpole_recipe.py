"""The CartPole recipe of RL Baselines3 Zoo, written once more in numpy and played in the published Gymnasium package.

    python cartpole_recipe.py [SEED]...

It shares neither code nor random numbers with the trainer, so what both show is the recipe's own. One line per seed: the
mean and smallest return of 50 greedy episodes with the last network, and the mean of 10 such episodes every 5,000 steps.
Needs the packages gymnasium and numpy.
"""

import json
import sys

import gymnasium
import numpy

STEPS, BATCH, UPDATES, INTERVAL, WARM_UP = 50_000, 64, 128, 256, 1_000
WIDTHS = (4, 256, 256, 2)


def forward(parameters, states):
    layers = [states]
    for number, (weights, bias) in enumerate(parameters):
        sums = layers[-1] @ weights + bias
        layers.append(numpy.maximum(sums, 0) if number < len(parameters) - 1 else sums)
    return layers


def gradient(parameters, layers, upstream):
    gradients = []
    for number in reversed(range(len(parameters))):
        gradients += [upstream.sum(axis=0), layers[number].T @ upstream]
        if number > 0:
            upstream = (upstream @ parameters[number][0].T) * (layers[number] > 0)
    return gradients[::-1]


def update(parameters, target, moments, count, batch):
    states, actions, rewards, following, ended = batch
    goal = rewards + numpy.float32(0.99) * (1 - ended) * forward(target, following)[-1].max(axis=1)
    layers = forward(parameters, states)
    rows = numpy.arange(BATCH)
    upstream = numpy.zeros_like(layers[-1])
    # The derivative of Huber's error is the error, cut off at 1.
    upstream[rows, actions] = numpy.clip(layers[-1][rows, actions] - goal, -1, 1) / BATCH
    gradients = gradient(parameters, layers, upstream)
    norm = numpy.sqrt(sum(float((part * part).sum()) for part in gradients))
    scale = numpy.float32(min(1.0, 10.0 / (norm + 1e-6)))
    flat = [part for layer in parameters for part in layer]
    for part, slope, (first, second) in zip(flat, gradients, moments, strict=True):
        slope = slope * scale
        first += (slope - first) * numpy.float32(0.1)
        second += (slope * slope - second) * numpy.float32(0.001)
        root = numpy.sqrt(second / numpy.float32(1 - 0.999**count)) + numpy.float32(1e-8)
        part -= numpy.float32(2.3e-3 / (1 - 0.9**count)) * first / root


def play(parameters, env, episodes, seed):
    returns = []
    for episode in range(episodes):
        state, _ = env.reset(seed=seed + episode)
        total, over = 0.0, False
        while not over:
            state, reward, terminated, truncated, _ = env.step(int(forward(parameters, state)[-1].argmax()))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return numpy.array(returns)


def train(seed):
    draw = numpy.random.default_rng(seed)
    parameters = []
    for inputs, outputs in zip(WIDTHS, WIDTHS[1:]):
        shapes, bound = ((inputs, outputs), (outputs,)), inputs**-0.5
        parameters.append([draw.uniform(-bound, bound, shape).astype(numpy.float32) for shape in shapes])
    copy = lambda: [[part.copy() for part in layer] for layer in parameters]
    moments = [[numpy.zeros_like(part), numpy.zeros_like(part)] for layer in parameters for part in layer]
    target, count, curve = copy(), 0, []
    states, following = numpy.zeros((2, STEPS, 4), numpy.float32)
    actions, (rewards, ended) = numpy.zeros(STEPS, int), numpy.zeros((2, STEPS), numpy.float32)
    env, judge = gymnasium.make("CartPole-v1"), gymnasium.make("CartPole-v1")
    state, _ = env.reset(seed=seed)
    for step in range(STEPS):
        epsilon = 1.0 if step < WARM_UP else max(0.04, 1 - 0.96 * step / 8000)
        explores = draw.random() < epsilon
        action = int(draw.integers(2)) if explores else int(forward(parameters, state)[-1].argmax())
        after, reward, terminated, truncated, _ = env.step(action)
        # A truncated episode could have gone on, so it counts as one that did.
        states[step], actions[step], rewards[step], following[step], ended[step] = state, action, reward, after, terminated
        state = env.reset()[0] if terminated or truncated else after
        done = step + 1
        if done % 10 == 0:
            target = copy()
        if done % INTERVAL == 0 and done > WARM_UP:
            for _ in range(UPDATES):
                count += 1
                rows = draw.integers(done, size=BATCH)
                update(parameters, target, moments, count, [part[rows] for part in (states, actions, rewards, following, ended)])
        if done % 5000 == 0:
            curve.append(float(play(parameters, judge, 10, 10**6).mean()))
    last = play(parameters, judge, 50, 2 * 10**6)
    return {"seed": seed, "mean_return": float(last.mean()), "min_return": float(last.min()), "curve": curve}


if __name__ == "__main__":
    for argument in sys.argv[1:] or ["1"]:
        print(json.dumps(train(int(argument))), flush=True)
