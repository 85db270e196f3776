"""Compares a trajectory of a control task with the published Gymnasium package, step by step.

    cargo run -p bellwether-trainer --example control_trace -- cart_pole 100 3 > TRACE
    python check_control.py CartPole-v1 TRACE

Each step starts from the state that the trace gives, since a last bit would grow without bound over an episode that is
played with given actions. Needs the package gymnasium. Exit code 1 on the first step that differs.
"""

import json
import sys

import gymnasium
import numpy

# The sine and cosine of two libraries may differ in the last bit, which the four stages of Acrobot's step carry on.
TOLERANCES = {"CartPole-v1": 1e-14, "Acrobot-v1": 1e-12, "MountainCar-v0": 1e-14}


def check(name: str, path: str) -> str:
    env = gymnasium.make(name)
    tolerance = TOLERANCES[name]
    steps = random_steps = bits = terminated = truncated = 0
    episode = None
    with open(path, encoding="utf-8") as trace:
        for number, line in enumerate(trace, start=1):
            step = json.loads(line)
            if step["episode"] != episode:
                episode = step["episode"]
                env.reset(seed=0)
            env.unwrapped.state = numpy.array(step["state"])
            observation, reward, ends, cut, _ = env.step(step["action"])
            state = [float(value) for value in env.unwrapped.state]
            close = all(abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in zip(step["next_state"], state, strict=True))
            assert close, f"line {number}: the next state is {state}, not {step['next_state']}"
            shown = [float(value) for value in observation]
            # A last bit of the state may be one of the observation, which has fewer.
            near = all(abs(a - b) <= 1e-7 * max(1.0, abs(b)) for a, b in zip(step["observation"], shown, strict=True))
            assert near, f"line {number}: {shown} is observed, not {step['observation']}"
            found = (step["reward"], step["terminated"], step["truncated"])
            assert found == (reward, ends, cut), f"line {number}: {(reward, ends, cut)}, not {found}"
            steps += 1
            random_steps += episode % 2
            bits += step["next_state"] != state
            terminated += ends
            truncated += cut
    assert random_steps >= 1000 and terminated >= 20 and truncated >= 20, "the trace is too short to say anything"
    return (
        f"{steps} steps as in {name} of Gymnasium {gymnasium.__version__}, {random_steps} of them random, {bits} off in a "
        f"last bit; {terminated} episodes terminated, {truncated} truncated"
    )


if __name__ == "__main__":
    print(check(*sys.argv[1:3]))
