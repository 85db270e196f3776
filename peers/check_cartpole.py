"""Compares a trajectory of the pole on the cart with the published Gymnasium package, step by step.

    cargo run -p bellwether-trainer --example cartpole_trace -- 100 3 > TRACE
    python check_cartpole.py TRACE

Each step starts from the state that the trace gives, since a last bit would grow without bound over an episode that is
played with given actions. Needs the package gymnasium. Exit code 1 on the first step that differs.
"""

import json
import sys

import gymnasium

# The sine and cosine of two libraries may differ in the last bit.
TOLERANCE = 1e-14


def check(path: str) -> str:
    env = gymnasium.make("CartPole-v1")
    steps = random_steps = bits = terminated = truncated = 0
    episode = None
    with open(path, encoding="utf-8") as trace:
        for number, line in enumerate(trace, start=1):
            step = json.loads(line)
            if step["episode"] != episode:
                episode = step["episode"]
                env.reset(seed=0)
            env.unwrapped.state = step["state"]
            observation, reward, falls, cut, _ = env.step(step["action"])
            state = [float(value) for value in env.unwrapped.state]
            close = all(abs(a - b) <= TOLERANCE * max(1.0, abs(b)) for a, b in zip(step["next_state"], state, strict=True))
            assert close, f"line {number}: the next state is {state}, not {step['next_state']}"
            shown = [float(value) for value in observation]
            assert step["observation"] == shown, f"line {number}: {shown} is observed, not {step['observation']}"
            found = (step["reward"], step["terminated"], step["truncated"])
            assert found == (reward, falls, cut), f"line {number}: {(reward, falls, cut)}, not {found}"
            steps += 1
            random_steps += episode % 2
            bits += step["next_state"] != state
            terminated += falls
            truncated += cut
    assert random_steps >= 1000 and terminated >= 20 and truncated >= 20, "the trace is too short to say anything"
    return (
        f"{steps} steps as in Gymnasium {gymnasium.__version__}, {random_steps} of them random, {bits} off in a last bit; "
        f"{terminated} episodes terminated, {truncated} truncated"
    )


if __name__ == "__main__":
    print(check(sys.argv[1]))
