"""How often the guard of a roll-out is wrong, and how soon it is right, on simulated traffic.

    python -m bench.rollouts [--roll-outs 400]

No harm: both policies fail, take and cost the same, in bad weather (an outage in which half of all requests fail; then
everything three times as slow and dear), nothing is tolerated, and the guard is asked after each of the candidate's
answers. Harm: the candidate fails, takes or costs more by a factor, under the default bounds; how many of its requests
it is given until it is rolled back.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from random import Random
from statistics import median

from farthing.policies.guard import Bounds, Guard, Outcome, Word
from farthing.policies.rollout import DEFAULT_STEPS

STEPS = DEFAULT_STEPS[:-1]
STRICT = Bounds(error_ratio=1.0, error_points=0.0, latency_ratio=1.0, cost_ratio=1.0, rating_points=0.0)
LENGTHS = {0.01: 10_000, 0.1: 2000, 0.5: 1000}
Draw = Callable[[Random, bool, float], Outcome]


def alike(rng: Random, candidate: bool, when: float) -> Outcome:
    """No difference, whatever the weather. `when`: the share of the step that is over."""
    failed = rng.random() < (0.5 if 0.4 < when < 0.45 else 0.01)
    slow = 3.0 if when > 0.5 else 1.0
    cost = slow * rng.lognormvariate(-6, 1.5)
    return Outcome(candidate, failed, None if failed else slow * rng.lognormvariate(6, 1), None if failed else cost)


def worse(errors: float = 1.0, latency: float = 1.0, cost: float = 1.0) -> Draw:
    """The candidate is worse by these factors."""

    def draw(rng: Random, candidate: bool, when: float) -> Outcome:
        by = (errors, latency, cost) if candidate else (1.0, 1.0, 1.0)
        failed = rng.random() < min(1.0, 0.01 * by[0])
        took_ms, paid = by[1] * rng.lognormvariate(6, 1), by[2] * rng.lognormvariate(-6, 1.5)
        return Outcome(candidate, failed, None if failed else took_ms, None if failed else paid)

    return draw


def traffic(rng: Random, share: float, count: int, draw: Draw) -> Iterator[Outcome]:
    """So many requests, given to the arms by chance."""
    return (draw(rng, rng.random() < share, number / count) for number in range(count))


def rolled_back(guard: Guard, outcomes: Iterator[Outcome]) -> bool:
    """Whether the guard ever says so, asked after each of the candidate's."""
    for outcome in outcomes:
        guard.seen(outcome)
        if outcome.candidate and guard.verdict().word is Word.BACK:
            return True
    return False


def false_alarms(count: int) -> int:
    """Of so many whole roll-outs without harm, how many were rolled back."""
    found = 0
    for seed in range(count):
        rng, guard = Random(seed), Guard(STRICT, len(STEPS))
        for share in STEPS:
            guard.begin(share)
            if rolled_back(guard, traffic(rng, share, LENGTHS[share], alike)):
                found += 1
                break
    return found


def until_caught(share: float, draw: Draw, seeds: int = 15, most: int = 1_000_000) -> float:
    """The candidate's requests in a step until it is rolled back: the median, infinite where it isn't by `most`."""
    needed = []
    for seed in range(seeds):
        guard = Guard(Bounds(), len(STEPS))
        guard.begin(share)
        count = min(most, int(20_000 / share))
        caught = rolled_back(guard, traffic(Random(seed), share, count, draw))
        needed.append(guard.candidate.requests if caught else math.inf)
    return median(needed)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--roll-outs", type=int, default=400)
    count = parser.parse_args().roll_outs
    back = false_alarms(count)
    print(f"no harm: {back} of {count} roll-outs were rolled back ({back / count:.1%}; level {STRICT.level:.0%})")
    print("harm: the candidate's requests until it is rolled back (median of 15)")
    for name, draw in (
        ("errors 1 % -> 100 %", worse(errors=100)),
        ("errors 1 % -> 10 %", worse(errors=10)),
        ("errors 1 % -> 3 %", worse(errors=3)),
        ("latency x 3", worse(latency=3)),
        ("cost x 2", worse(cost=2)),
        ("cost x 1.5", worse(cost=1.5)),
    ):
        print(f"  {name:22}" + "".join(f"  {share:4.0%}: {until_caught(share, draw):7.0f}" for share in STEPS[1:]))


if __name__ == "__main__":
    main()
