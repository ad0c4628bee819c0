"""The one table that explains every metric; `treesearch.report.glossary` reads it.

A name may stand here several times where it means different things in different places, but once for each place. A test
runs searches and asks for an entry for everything that they write.
"""

from __future__ import annotations

from dataclasses import dataclass

# Where a metric appears.
LEDGER = "ledger"  # column of the table `evaluations` in search.db
TRACKER = "tracker"  # W&B and TensorBoard
COMPARISON = "comparison"  # comparison.json, all but its fronts
FRONT = "front"  # the same, below `fronts`
RUNS = "runs"  # `treesearch compare DIR DIR`
STUDY = "study"  # rows of `treesearch study`
SWEEP = "sweep"  # sweep.json
PAGE = "page"  # headings of tables in report.html, without their units
PLACES = (LEDGER, TRACKER, COMPARISON, FRONT, RUNS, STUDY, SWEEP, PAGE)

# Units.
NATS = "nats per token"
NATS_IN_ALL = "nats"
UNITS = "binary nodes"  # dot products of a binary node
MICROSECONDS = "µs per example"
SECONDS = "seconds"
EDGES = "edges"
SHARE = "share"
NONE = "none"


@dataclass(frozen=True)
class Metric:
    """One entry of the glossary.

    Attributes:
        name: As it is written.
        unit: ``none`` for names, counts and what has no unit.
        meaning: One to three plain sentences: what, how, which direction is good, averaged over what.
        where: Some of `PLACES`.
    """

    name: str
    unit: str
    meaning: str
    where: tuple[str, ...]


_SCORES = (
    Metric(
        "reward",
        NATS,
        "-valid_nll - cost_weight * cost charged, at the λ of the row; higher is better. On the frozen rung NLL is that"
        " of held-out features, above it that of the validation split.",
        (LEDGER,),
    ),
    Metric(
        "reward",
        NATS,
        "Of the evaluation that has just finished: -valid_nll - λ * cost charged, at the λ that the run reports"
        " (cost.weight), whichever λ the tree was proposed for; higher is better.",
        (TRACKER,),
    ),
    Metric(
        "reward",
        NATS,
        "-(mean test NLL over seeds) - λ * cost charged, at the λ that the run reports; higher is better. In a"
        " comparison of runs it is that of the best found tree, which validation data chose.",
        (COMPARISON, RUNS),
    ),
    Metric("best_reward", NATS, "Largest reward so far under the current encoder; higher is better.", (TRACKER,)),
    Metric(
        "batch_rewards",
        NATS,
        "Distribution of the rewards of a batch at the λ that the run reports; evaluations without a score are left"
        " out. It should move up as the agent learns.",
        (TRACKER,),
    ),
    Metric(
        "valid_nll",
        NATS,
        "Negative log-likelihood of data not trained on, mean over tokens; lower is better. Frozen rung: held-out"
        " features of the frozen encoder; rungs above: the validation split.",
        (LEDGER, TRACKER),
    ),
    Metric(
        "valid_nll",
        NATS,
        "Negative log-likelihood of the validation split after joint training, mean over tokens and over the fresh"
        " seeds; lower is better.",
        (COMPARISON,),
    ),
    Metric(
        "valid_nll",
        NATS,
        "Negative log-likelihood of data not trained on, mean over tokens, on the rung of the front; lower is better."
        " On the joint rung at the tree's best learning rate, the mean over the seeds; for a tree that was not trained"
        " with them all what it would be by how kind they were to the others.",
        (FRONT, SWEEP),
    ),
    Metric(
        "subset_nll",
        NATS,
        "The frozen rung's NLL after training on a subset of the tokens, which decides whether to stop early; lower is"
        " better.",
        (LEDGER,),
    ),
    Metric(
        "test_nll",
        NATS,
        "Negative log-likelihood of the test split, mean over tokens, of one training with one seed; rung confirm only."
        " Lower is better.",
        (LEDGER,),
    ),
    Metric(
        "test_nll",
        NATS,
        "Negative log-likelihood of the test split, mean over tokens and over fresh seeds, with Student's 95 % interval"
        " over the seeds; lower is better.",
        (COMPARISON, RUNS),
    ),
    Metric(
        "perplexity",
        NONE,
        "exp of the mean test NLL: among how many equally likely classes the model is left to guess; lower is better.",
        (COMPARISON,),
    ),
    Metric(
        "frozen_nll",
        NATS,
        "Negative log-likelihood of the same tree on the frozen rung, mean over tokens of held-out features; lower is"
        " better.",
        (COMPARISON,),
    ),
    Metric(
        "frozen_reward",
        NATS,
        "-frozen_nll - λ * cost charged, at the λ that the run reports; higher is better.",
        (COMPARISON,),
    ),
    Metric(
        "frozen_reward",
        NATS,
        "Best -valid_nll - λ * cost charged of a search's frozen front, at the λ that the searches share; higher is"
        " better.",
        (SWEEP,),
    ),
    Metric(
        "joint_reward",
        NATS,
        "The same on the joint front, on validation data; higher is better. Empty where nothing was trained jointly.",
        (SWEEP,),
    ),
    Metric(
        "metrics",
        NONE,
        "What was asked of predictions on the test split beside their likelihood, by name: nothing for text.",
        (COMPARISON,),
    ),
    Metric(
        "accuracy",
        SHARE,
        "Test examples whose most probable class is theirs, mean over fresh seeds with its interval; higher is better."
        " For labels and features.",
        (COMPARISON,),
    ),
    Metric(
        "hit_rate@10",
        SHARE,
        "Test users whose next item is among the ten most probable ones that they have not seen, mean over fresh seeds;"
        " higher is better. For interactions.",
        (COMPARISON,),
    ),
    Metric(
        "ndcg@10",
        SHARE,
        "1 / log2(rank + 1) of the next item in that list of ten, 0 beyond it, mean over test users and fresh seeds;"
        " higher is better. For interactions.",
        (COMPARISON,),
    ),
)

_COSTS = (
    Metric(
        "cost",
        UNITS,
        "Analytic cost of the path to a class, averaged over training counts; lower is better. A binary node costs 1, a"
        " node of k > 2 children 1 + k / 20, less under a projection, which costs some itself.",
        (LEDGER, TRACKER, COMPARISON, RUNS),
    ),
    Metric(
        "cost",
        UNITS,
        "What the reward charges, averaged over training counts; lower is better. Where cost_kind is measured, time in"
        " units of the mean time of a decision in the Huffman tree.",
        (FRONT, SWEEP),
    ),
    Metric(
        "cost_measured_us",
        MICROSECONDS,
        "Time of the tree's nodes on the path to a class, from the run's table of node times on this device, averaged"
        " over training counts; lower is better. Empty where cost.kind is analytic.",
        (LEDGER, COMPARISON),
    ),
    Metric(
        "cost_kind",
        NONE,
        "Which cost the reward charges: analytic (binary nodes) or measured (time on the device).",
        (COMPARISON, FRONT),
    ),
    Metric(
        "cost_weight",
        "nats per unit",
        "λ: how much reward one unit of cost takes. In the ledger the one that the tree was proposed for, in a"
        " comparison the one that the run reports, in its gains each further one.",
        (LEDGER, COMPARISON),
    ),
    Metric(
        "cost_model",
        NONE,
        "What makes costs of runs comparable: cost.kind, cost.weight and cost.phase.",
        (RUNS,),
    ),
    Metric("cost_table", NONE, "Hash of the node times that the reward charges, where they are measured.", (RUNS,)),
    Metric(
        "expected_depth",
        EDGES,
        "Length of the path from the root to a class, averaged over training counts; lower is cheaper.",
        (LEDGER, COMPARISON),
    ),
    Metric("max_depth", EDGES, "Longest path from the root to a class.", (LEDGER, COMPARISON)),
    Metric(
        "dot_products",
        "dot products",
        "Rows of weights that are multiplied on the path to a class (1 for a binary node, k for one of k > 2 children),"
        " averaged over training counts; lower is cheaper.",
        (LEDGER, COMPARISON),
    ),
    Metric(
        "head_us",
        MICROSECONDS,
        "Training step of the output layer alone: forward, backward and update, median over rounds in which all trees"
        " take turns on this device; lower is better.",
        (COMPARISON,),
    ),
    Metric(
        "head_spread_us",
        MICROSECONDS,
        "Distance between the quartiles of head_us over the rounds: how much to trust it.",
        (COMPARISON,),
    ),
    Metric(
        "step_us",
        MICROSECONDS,
        "Whole training step: encoder, output layer and all updates, median over the same rounds; lower is better.",
        (COMPARISON,),
    ),
    Metric(
        "step_spread_us",
        MICROSECONDS,
        "Distance between the quartiles of step_us over the rounds: how much to trust it.",
        (COMPARISON,),
    ),
)

_GAINS = (
    Metric(
        "difference",
        NATS,
        "Test NLL minus Huffman's, paired by seed, mean over fresh seeds with Student's 95 % interval; below 0 is"
        " better than Huffman.",
        (COMPARISON,),
    ),
    Metric(
        "difference_over_tokens",
        NATS,
        "The same difference with a bootstrap interval over blocks of 100 tokens of the test text: how far it holds for"
        " other text, not for other seeds. Below 0 is better than Huffman.",
        (COMPARISON,),
    ),
    Metric(
        "perplexity_change",
        SHARE,
        "exp(difference) - 1: change of perplexity as a share of Huffman's, with its interval; below 0 is better.",
        (COMPARISON,),
    ),
    Metric(
        "reward_gain",
        NATS,
        "Test reward less that of best_builder, paired by seed, mean over fresh seeds with Student's 95 % interval;"
        " significant where the whole interval is above 0.",
        (COMPARISON,),
    ),
    Metric(
        "best_builder",
        NONE,
        "The builder of at most the tree's cost with the best mean validation reward: the rival that a found tree must"
        " beat.",
        (COMPARISON,),
    ),
    Metric(
        "gains",
        NONE,
        "For each λ of a search over several: the found tree with the best validation reward under it, its best_builder"
        " and its reward_gain.",
        (COMPARISON,),
    ),
    Metric("mean", "of the value", "Middle of an interval: the mean over seeds or tokens.", (COMPARISON, RUNS, STUDY)),
    Metric("low", "of the value", "Lower end of the 95 % interval.", (COMPARISON, RUNS, STUDY)),
    Metric("high", "of the value", "Upper end of the 95 % interval.", (COMPARISON, RUNS, STUDY)),
    Metric(
        "n",
        NONE,
        "Number of values that the mean is over, seeds or tokens; with one the interval has no width.",
        (COMPARISON, RUNS, STUDY),
    ),
)

_TRUST = (
    Metric("noise", NONE, "How much results vary where nothing but the seed does.", (COMPARISON,)),
    Metric(
        "test_nll_deviation",
        NATS,
        "Standard deviation of test NLL over the fresh seeds of one tree, pooled over trees: differences far below it"
        " mean nothing for a single training.",
        (COMPARISON,),
    ),
    Metric(
        "rank_correlation",
        NONE,
        "Whether the frozen rung ranks trees as joint training does, over the trees that were on both.",
        (COMPARISON,),
    ),
    Metric(
        "screen_correlation",
        NONE,
        "Whether the warm rung ranks trees as joint training does, over the trees that were on both.",
        (COMPARISON,),
    ),
    Metric("rungs", NONE, "The two rungs that are compared.", (COMPARISON,)),
    Metric(
        "kendall_tau",
        NONE,
        "Kendall's rank correlation of validation NLL on the two rungs: 1 is the same order, 0 no relation, -1 the"
        " opposite one.",
        (COMPARISON,),
    ),
    Metric("trees", NONE, "Number of trees that the correlation is over.", (COMPARISON,)),
    Metric(
        "correction",
        NONE,
        "What frozen scores owe to choosing, learned on the warm rung; empty where nothing was screened.",
        (COMPARISON,),
    ),
    Metric(
        "slope",
        NATS,
        "By how much frozen NLL is too low for each e-fold of different actions in a tree; 0 where choosing adds no"
        " luck.",
        (COMPARISON,),
    ),
    Metric("num_trees", NONE, "Number of trees that the slope was learned from.", (COMPARISON,)),
)

_FRONTS = (
    Metric("fronts", NONE, "By rung, the trees that no other one beats in both NLL and cost.", (COMPARISON,)),
    Metric("frozen", NONE, "Front of the frozen rung, under the latest encoder.", (FRONT,)),
    Metric("joint", NONE, "Front of the joint rung; no points where nothing was trained jointly.", (FRONT,)),
    Metric("points", NONE, "Trees of a front, by rising cost.", (FRONT,)),
    Metric(
        "hypervolume",
        "nats x e-folds of cost",
        "Area that a group of trees dominates, up to reference_nll and, on a logarithmic scale, reference_cost; higher"
        " is better.",
        (FRONT,),
    ),
    Metric("found", "nats x e-folds of cost", "Hypervolume of the trees that the agent found.", (FRONT,)),
    Metric("baseline", "nats x e-folds of cost", "Hypervolume of the builders' trees.", (FRONT,)),
    Metric("reference_cost", UNITS, "Largest cost on either group's front: where hypervolumes end.", (FRONT,)),
    Metric("reference_nll", NATS, "Largest NLL on either group's front: where hypervolumes end.", (FRONT,)),
    Metric("config", NONE, "The resolved configuration of the search, at the start.", (TRACKER,)),
    Metric("best_tree", NONE, "Where the file of the best tree lies, at the end.", (TRACKER,)),
    Metric("comparison", NONE, "Table of the confirmed trees, at the end.", (TRACKER,)),
    Metric("pareto_front", NONE, "Table of the joint front, or of the frozen one without any, at the end.", (TRACKER,)),
)

_AGENT = (
    Metric(
        "agent/entropy",
        NATS_IN_ALL,
        "Entropy of the policy, mean over the decisions of the batch. It falls as the policy commits itself; near 0 the"
        " search explores no more.",
        (TRACKER,),
    ),
    Metric(
        "agent/policy_loss",
        NONE,
        "PPO's clipped surrogate, last epoch of the update, mean over decisions weighted by mass; advantages have mean"
        " 0 and variance 1. Its sign says little.",
        (TRACKER,),
    ),
    Metric(
        "agent/value_loss",
        NONE,
        "Half the mean squared error of the value, in units of the returns' variance, last epoch; lower is better.",
        (TRACKER,),
    ),
    Metric(
        "agent/approx_kl",
        NATS_IN_ALL,
        "KL divergence of the policy that proposed from the updated one, mean over decisions, last epoch; large values"
        " mean steps too long.",
        (TRACKER,),
    ),
    Metric(
        "agent/clip_fraction",
        SHARE,
        "Decisions whose probability ratio was clipped, last epoch; large values mean steps too long.",
        (TRACKER,),
    ),
    Metric(
        "agent/explained_variance",
        NONE,
        "1 - variance of what the value missed / variance of the returns, before the update: 1 is a perfect value, 0 no"
        " better than the mean.",
        (TRACKER,),
    ),
    Metric(
        "agent/replay_loss",
        NONE,
        "Self-imitation loss on the best trees so far, last epoch: how much the policy has still to learn from them."
        " Only with replay.",
        (TRACKER,),
    ),
)

_PROGRESS = (
    Metric(
        "evaluations",
        NONE,
        "Number of evaluations on the frozen rung, builders, failures and repeated trees included: the budget, and the"
        " step of every tracked metric.",
        (TRACKER, COMPARISON, RUNS, STUDY),
    ),
    Metric(
        "evaluations_per_second",
        "1 / second",
        "Evaluations of a batch by its wall time, the agent's own time included; higher is better.",
        (TRACKER,),
    ),
    Metric("failures", NONE, "Number of failed evaluations so far, or in all; 0 is best.", (TRACKER, COMPARISON)),
    Metric("stopped", NONE, "Number of evaluations that were stopped early as not worth finishing.", (COMPARISON,)),
    Metric("seconds", SECONDS, "Wall time of the evaluation in its worker; lower is better.", (LEDGER, TRACKER)),
    Metric("seconds", SECONDS, "Wall time of the whole search, since it was last resumed.", (SWEEP,)),
    Metric("finished_at", SECONDS, "When the evaluation was recorded, Unix time.", (LEDGER,)),
    Metric(
        "attempts",
        NONE,
        "How often the evaluation was sent to a worker: above 1 a worker was lost, 0 where nothing was left to train.",
        (LEDGER,),
    ),
    Metric("worker", NONE, "Name of the worker that evaluated.", (LEDGER,)),
    Metric(
        "staleness",
        "updates",
        "Updates of the agent between a proposal and its verdict: 0 in a synchronous search, more in an asynchronous"
        " one. Rung frozen.",
        (LEDGER,),
    ),
    Metric(
        "nodes_trained",
        NONE,
        "Number of the tree's nodes that no earlier tree had trained; the others came from the memo. Rung frozen.",
        (LEDGER,),
    ),
)

_IDENTITY = (
    Metric("id", NONE, "Number of the evaluation, from 1.", (LEDGER,)),
    Metric(
        "rung",
        NONE,
        "How an evaluation trains: frozen (tree alone, on frozen features), warm (an epoch from the search's encoder),"
        " joint, confirm (joint, fresh seeds, test split).",
        (LEDGER,),
    ),
    Metric(
        "batch",
        NONE,
        "Number of the batch on the frozen rung, one for each start under an encoder included; 0 on all other rungs.",
        (LEDGER,),
    ),
    Metric(
        "agent",
        NONE,
        'Who proposed the tree ("builder" for builders), or whose search it is.',
        (LEDGER, COMPARISON, RUNS),
    ),
    Metric("label", NONE, "The builder's name with its options; above the frozen rung the tree's name.", (LEDGER,)),
    Metric("tree_hash", NONE, "Hash of the tree's canonical form and projections.", (LEDGER,)),
    Metric("tree", NONE, "Hash of the tree, which is its tree_hash in the ledger.", (COMPARISON, FRONT)),
    Metric(
        "status",
        NONE,
        "ok, failed, cached (the tree had been evaluated before) or stopped (not worth finishing).",
        (LEDGER,),
    ),
    Metric("reason", NONE, "Why it failed or was stopped.", (LEDGER,)),
    Metric("num_nodes", NONE, "Number of the tree's internal nodes.", (LEDGER,)),
    Metric(
        "learning_rate",
        NONE,
        "Learning rate of joint training; in a comparison the tree's best of the grid, by validation. Not frozen.",
        (LEDGER, COMPARISON),
    ),
    Metric("seed", NONE, "Seed of the training; all rungs but frozen.", (LEDGER,)),
    Metric(
        "epochs", NONE, "Epochs trained, up to the one in which validation NLL rose; all rungs but frozen.", (LEDGER,)
    ),
    Metric("actions", NONE, "The actions that built the tree, a JSON list; empty for a builder's tree.", (LEDGER,)),
    Metric(
        "decisions",
        SHARE,
        "JSON list of [depth, share of the training mass] of the node that each action decided, in their order.",
        (LEDGER,),
    ),
    Metric("encoder", NONE, "Hash of the features; NLL is comparable under one encoder only. Rung frozen.", (LEDGER,)),
    Metric("rows", NONE, "One row for each confirmed tree, Huffman first.", (COMPARISON,)),
    Metric(
        "name",
        NONE,
        "Name of the tree: a builder with its options, or found #ID with its evaluation's id; a run's is its folder.",
        (COMPARISON, FRONT, RUNS),
    ),
    Metric(
        "kind",
        NONE,
        "baseline (a builder's tree), found (best of the search by validation reward, of any cost or of at most"
        " Huffman's), candidate (confirmed too, to guard against luck) or diverse (to compare rungs).",
        (COMPARISON, FRONT),
    ),
    Metric("seeds", NONE, "Number of fresh seeds of each confirmed tree.", (COMPARISON,)),
)

_SIDE_BY_SIDE = (
    Metric("best", NONE, "Name of the best tree: found, by validation reward.", (RUNS,)),
    Metric("corpus", NONE, "Hash of the data; runs on other data are not comparable.", (RUNS,)),
    Metric(
        "training",
        NONE,
        "Settings of the encoder and of joint training, which runs must share to be comparable.",
        (RUNS,),
    ),
    Metric("variant", NONE, "Name of the configuration.", (STUDY,)),
    Metric("seeds", NONE, "Number of searches of the variant, each with its own seed of the agent.", (STUDY,)),
    Metric(
        "best_reward",
        NATS,
        "Best frozen reward at the full budget, mean over seeds with its interval; higher is better.",
        (STUDY,),
    ),
    Metric(
        "mean_best_so_far",
        NATS,
        "Best reward so far, averaged over the evaluations of a search, mean over seeds with its interval: higher is"
        " better, sooner too.",
        (STUDY,),
    ),
    Metric("by_seed", NATS, "Best frozen reward at the full budget, for each seed.", (STUDY,)),
    Metric(
        "to_reach_reference",
        "evaluations",
        "For each seed, evaluations until the best reward of the first variant at its full budget is reached, empty"
        " where it is not; lower is better.",
        (STUDY,),
    ),
    Metric(
        "gain",
        NATS,
        "best_reward less that of the first variant, paired by seed, with its interval; above 0 is better.",
        (STUDY,),
    ),
    Metric(
        "gain_curve",
        NATS,
        "mean_best_so_far less that of the first variant, paired by seed, with its interval; above 0 is better.",
        (STUDY,),
    ),
    Metric("search", NONE, "Name of the trial, and of its run folder below runs/.", (SWEEP,)),
    Metric("settings", NONE, "The settings that the sweep varies, with this search's values.", (SWEEP,)),
    Metric("best", NONE, "Name of the best tree by validation reward, on the highest rung of the search.", (SWEEP,)),
    Metric("error", NONE, "Why the search failed; empty where it has not.", (SWEEP,)),
)

TERMS: tuple[Metric, ...] = (
    *_SCORES,
    *_COSTS,
    *_GAINS,
    *_TRUST,
    *_FRONTS,
    *_AGENT,
    *_PROGRESS,
    *_IDENTITY,
    *_SIDE_BY_SIDE,
)
