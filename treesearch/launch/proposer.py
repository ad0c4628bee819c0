"""An agent as the search loop sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agents import Agent, Evaluated, PolicyGradient, Proposal, make_agent
from envs import DEFAULT_ACTIONS, ConstructionTask, Evaluation
from treesearch.config import Config, EnvironmentConfig, WeightRange
from treesearch.cost import CostWeights
from treesearch.errors import ConfigError, RunError
from treesearch.evaluation.scores import TreeScore
from treesearch.search.frozen_rung import Candidate
from treesearch.search.loop import Told
from treesearch.search.run_folder import RunFolder
from treesearch.state import pack_state, unpack_state

AGENT = "agent"  # key of its state
CARRIED = 8  # best trees, over all λs, whose decisions are repeated after a refresh of the encoder


class AgentProposer:
    """An agent as the search loop sees it: a `treesearch.search.loop.Proposer`.

    Args:
        agent: Asked and told.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._under_way: dict[int, tuple[Proposal, Candidate]] = {}  # by the candidate's number, in order
        self._shown: list[Proposal] = []
        weights = agent.cost_weights.grid()
        self._num_carried = max(1, CARRIED // len(weights))
        self._best: dict[float, list[tuple[float, Proposal]]] = {weight: [] for weight in weights}  # by λ, best first

    def demonstrate(self) -> list[Candidate]:
        """The builders' trees that the agent can build, and after `use_task` also its best decisions, repeated."""
        carried = {
            (proposal.tree.hash, weight): (proposal.actions, weight)
            for weight, best in self._best.items()
            for _, proposal in best
        }
        self._shown = [*self.agent.demonstrate(), *(self.agent.replay(*what) for what in carried.values())]
        self._best = {weight: [] for weight in self._best}
        return [self._candidate(proposal) for proposal in self._shown]

    def warm_start(self, scores: Sequence[TreeScore | None]) -> None:
        """Pass the scores of the demonstrations on."""
        self.agent.warm_start(self._judged(self._shown, scores))

    def ask(self, num: int, batch: int) -> list[Candidate]:
        """Propose ``num`` trees for a batch."""
        return [self._begin(proposal, batch) for proposal in self.agent.ask(num)]

    def tell(self, told: Told) -> dict[str, float]:
        """Pass the scores on."""
        items = [(self._under_way.pop(_number(candidate))[0], score) for candidate, score in told]
        exact = [(score, one) for one, score in items if score is not None and score.exact]
        for weight, best in self._best.items():
            known = {proposal.tree.hash for _, proposal in best}
            new = {one.tree.hash: (score.reward(weight), one) for score, one in exact if one.tree.hash not in known}
            self._best[weight] = sorted([*best, *new.values()], key=lambda one: -one[0])[: self._num_carried]
        return self.agent.tell(self._judged([one for one, _ in items], [score for _, score in items]))

    def under_way(self) -> list[Candidate]:
        """What was asked for and not told of."""
        return [candidate for _, candidate in self._under_way.values()]

    def use_task(self, task: ConstructionTask) -> None:
        """Go on with new class vectors."""
        self.agent.use_task(task)

    def pack(self) -> bytes:
        """The agent's state, the decisions that are to be repeated, and the proposals that are under way."""
        best = [
            [weight, reward, list(proposal.actions), proposal.cost_weight]
            for weight, known in self._best.items()
            for reward, proposal in known
        ]
        under_way = [
            [candidate.batch, list(proposal.actions), proposal.cost_weight, proposal.log_probs]
            for proposal, candidate in self._under_way.values()
        ]
        return pack_state({AGENT: self.agent.state_dict(), "best": best, "under_way": under_way})

    def unpack(self, state: bytes) -> None:
        """Go back to a state; the agent's task is that of then."""
        unpacked = unpack_state(state)
        self.agent.load_state_dict(unpacked[AGENT])
        self._best = {weight: [] for weight in self._best}
        for weight, reward, actions, cost_weight in unpacked["best"]:
            self._best[weight].append((reward, self.agent.replay(actions, cost_weight)))
        self._under_way.clear()
        for batch, actions, cost_weight, log_probs in unpacked["under_way"]:
            self._begin(replace(self.agent.replay(actions, cost_weight), log_probs=log_probs), batch)

    def _begin(self, proposal: Proposal, batch: int) -> Candidate:
        number = max(self._under_way, default=-1) + 1
        candidate = replace(self._candidate(proposal), number=number, batch=batch)
        self._under_way[number] = proposal, candidate
        return candidate

    def _candidate(self, proposal: Proposal) -> Candidate:
        tree = proposal.tree
        depths = tree.node_depths[proposal.decision_nodes].tolist()
        return Candidate(
            tree,
            self.agent.name,
            actions=tuple(self.agent.actions[action].name for action in proposal.actions),
            decisions=tuple(
                (depth, round(mass, 6)) for depth, mass in zip(depths, proposal.masses.tolist(), strict=True)
            ),
            cost_weight=proposal.cost_weight,
        )

    def _judged(self, proposals: Sequence[Proposal], scores: Sequence[TreeScore | None]) -> list[Evaluated]:
        return [
            Evaluated(proposal, None)
            if score is None
            else Evaluated(proposal, make_evaluation(score, proposal.cost_weight), score.exact)
            for proposal, score in zip(proposals, scores, strict=True)
        ]


def _number(candidate: Candidate) -> int:
    assert candidate.number is not None, "what is told was asked for"
    return candidate.number


def make_evaluation(score: TreeScore, cost_weight: float) -> Evaluation:
    """What an agent is told of a score."""
    node_loss = score.node_nll + cost_weight * score.node_cost
    return Evaluation.of_nodes(node_loss, score.node_mass, node_cost=score.node_cost, cost_weight=cost_weight)


def listed_weights(config: Config) -> tuple[float, ...]:
    """The λs of a list, or some of a range; none where the run has one λ."""
    return () if config.cost.weights is None else cost_weights(config).grid()


def cost_weights(config: Config) -> CostWeights:
    """The λs that the search draws from."""
    weights = config.cost.weights
    if isinstance(weights, WeightRange):
        return CostWeights(low=weights.low, high=weights.high)
    return CostWeights((config.cost.weight,) if weights is None else weights)


def make_proposer(
    config: Config, task: ConstructionTask, policy: Path | None = None, *, seed: int | None = None
) -> AgentProposer:
    """The configured agent.

    Args:
        config: Names it.
        task: What its trees are for.
        policy: A run folder, or a packed state, whose policy it starts from.
        seed: Of the agent; None takes the run's.

    Raises:
        ConfigError: Unknown agent, setting or action, or an agent without a policy.
        RunError: The policy cannot be read, or is for other actions.
    """
    environment, settings = config.environment, config.search.settings
    try:
        agent = make_agent(
            config.search.agent,
            task=task,
            actions=_default_actions(environment) if environment.actions is None else environment.actions,
            max_decisions=environment.max_decisions,
            closer=environment.closer,
            seed=config.seed if seed is None else seed,
            cost_weights=cost_weights(config),
            **settings,
        )
    except TypeError as error:  # a value of the wrong type, or a key that is an argument above
        raise ConfigError(f"search.settings {settings} do not fit agent {config.search.agent!r}: {error}") from None
    if policy is not None:
        if not isinstance(agent, PolicyGradient):
            raise ConfigError(f"--policy needs an agent with a policy, but search.agent is {config.search.agent!r}")
        agent.load_policy(unpack_state(_policy_bytes(policy)).get(AGENT, {}))
    return AgentProposer(agent)


def _default_actions(environment: EnvironmentConfig) -> tuple[str, ...]:
    splits_by_taxonomy = environment.taxonomy is not None and environment.refine is None
    return (*DEFAULT_ACTIONS, *(("taxonomy",) if splits_by_taxonomy else ()))


def _policy_bytes(source: Path) -> bytes:
    if not source.is_dir():
        try:
            return source.read_bytes()
        except OSError as error:
            raise RunError(f"policy {source} cannot be read ({error.strerror}); give a run folder") from None
    with RunFolder(source).read() as ledger:
        last = ledger.last_batch()
    if last is None:
        raise RunError(f"{source} holds no finished batch and so no policy; give a run that got further")
    return last.agent_state
