"""What the headings of tables in the report mean, under which the page shows metrics to people."""

from __future__ import annotations

from treesearch.report.glossary_terms import EDGES, MICROSECONDS, NATS, NONE, PAGE, SHARE, UNITS, Metric

BITS = "bits"
MINUTES = "minutes"


def _on_page(name: str, unit: str, meaning: str) -> Metric:
    return Metric(name, unit, meaning, (PAGE,))


_RESULT = (
    _on_page(
        "perplexity",
        NONE,
        "exp(NLL): among how many equally likely classes the model is left to guess; lower is better.",
    ),
    _on_page(
        "against Huffman",
        SHARE,
        "Change of test perplexity against the Huffman tree in per cent, paired by seed, with a 95 % interval; below"
        " zero is better.",
    ),
    _on_page(
        "change against Huffman",
        SHARE,
        "The same change with its interval, as the plot of confirmed trees shows it.",
    ),
    _on_page("significant", NONE, "Whether the 95 % interval of that change leaves out zero, and on which side."),
    _on_page(
        "test NLL",
        NATS,
        "Negative log-likelihood of the test split after joint training, mean over seeds; lower is better.",
    ),
    _on_page("valid NLL", NATS, "The same on the validation split, by which rates and trees were chosen."),
    _on_page(
        "accuracy",
        SHARE,
        "Test examples whose most probable class is the right one, mean over seeds; higher is better.",
    ),
    _on_page("HR@10", SHARE, "Test users whose next item is among the ten most probable; higher is better."),
    _on_page("NDCG@10", SHARE, "The same, with a lower rank counting less: 1 / log2(1 + rank); higher is better."),
    _on_page(
        "cost",
        UNITS,
        "Analytic cost of an example: 1 for a binary decision, 1 + k / 20 for one among k, mean over the training data;"
        " lower is better. Where the reward charges measured time, the front shows that time in the same units.",
    ),
    _on_page(
        "measured cost",
        MICROSECONDS,
        "What the nodes on an example's path take on this device, by the cost table; lower is better.",
    ),
    _on_page(
        "depth",
        EDGES,
        "Decisions on the way to a class: of a tree the mean over the training data, in a path the number of the"
        " decision.",
    ),
    _on_page("expected depth", EDGES, "Decisions on the way to a class, mean over the training data."),
    _on_page(
        "reward over the best builder of at most its cost",
        NATS,
        "Test reward less that of the builder with the best validation reward of those that cost no more, by seed;"
        " above zero is better.",
    ),
    _on_page(
        "output layer",
        MICROSECONDS,
        "Forward, backward and update of the output layer, measured side by side; lower is better.",
    ),
    _on_page(
        "training step",
        MICROSECONDS,
        "The whole training step, encoder included, measured side by side; lower is better.",
    ),
)

_SEARCH = (
    _on_page("reward", NATS, "-NLL - λ * cost at the λ that the run reports; higher is better."),
    _on_page("NLL", NATS, "Negative log-likelihood of held-out examples on the frozen rung; lower is better."),
    _on_page("evaluation", NONE, "The number of an evaluation of the search, from 1."),
    _on_page("evaluations", NONE, "How many trees were evaluated so far, or in all."),
    _on_page("minutes", MINUTES, "Search time when it was recorded; pauses between two processes do not count."),
    _on_page("mean reward", NATS, "Mean reward of the trees that the agent proposed in a batch; higher is better."),
    _on_page(
        "best reward",
        NATS,
        "The best reward of a batch, or of a run (its mean over runs); higher is better.",
    ),
    _on_page("least", NATS, "The lowest best reward among the runs of a group; of times the shortest, in seconds."),
    _on_page("greatest", NATS, "The highest best reward among the runs of a group."),
    _on_page("runs", NONE, "Searches of a group that differ in their seed alone, of several those that have finished."),
    _on_page("searches", NONE, "The same: searches of a variant of a study that have finished."),
    _on_page("95 % interval", NATS, "Student's interval of the mean over the searches of a variant."),
    _on_page(
        "best reward, frozen rung",
        NATS,
        "The best reward of a search; comparable where encoders are the same.",
    ),
    _on_page("trees on its front", NONE, "Trees that none of the same run beats in both cost and NLL."),
    _on_page("of these on the common front", NONE, "Of those, the ones that no tree of any run shown beats."),
    _on_page("lowest NLL", NATS, "The lowest validation NLL on the front of a run."),
    _on_page("taken", NONE, "How often the agent took the action, over all its trees."),
    _on_page("all", SHARE, "Share of the agent's decisions that took the action."),
    _on_page("at the root", SHARE, "The same of decisions at the root."),
    _on_page("below", SHARE, "The same of decisions below the root."),
    _on_page("first third", SHARE, "The same in the first third of the agent's trees."),
    _on_page("last third", SHARE, "The same in the last third: what it has learned to prefer."),
    _on_page(
        "NLL on the frozen encoder",
        NATS,
        "Validation NLL of nodes trained on fixed features; lower is better.",
    ),
    _on_page(
        "NLL after warm training",
        NATS,
        "Validation NLL after an epoch of joint training from the search's encoder; lower is better.",
    ),
    _on_page(
        "NLL after joint training",
        NATS,
        "Validation NLL after joint training at the tree's best rate; lower is better.",
    ),
    _on_page("1st quartile", "seconds", "A quarter of the evaluations took at most so long in their worker."),
    _on_page("median", "seconds", "Half of the evaluations took at most so long."),
    _on_page("3rd quartile", "seconds", "Three quarters of the evaluations took at most so long."),
    _on_page("most", "seconds", "The longest evaluation."),
    _on_page("in all", MINUTES, "Time of all these evaluations together, whichever workers they ran on."),
)

VIEWER_TERMS = (
    _on_page(
        "mean depth",
        EDGES,
        "Decisions on the way to a class, mean over the training data; lower is cheaper.",
    ),
    _on_page(
        "mean code length",
        BITS,
        "Sum of log2(arity) along the path of a class, mean over the training data; never below the entropy.",
    ),
    _on_page("mean cost", UNITS, "Analytic cost, mean over the training data; lower is better."),
    _on_page("longest path", EDGES, "Decisions to the deepest class."),
    _on_page("internal nodes", NONE, "Decisions that the tree has in all."),
    _on_page(
        "nearest neighbour is a sibling",
        SHARE,
        "Share of the examples whose class has the same parent as its nearest neighbour by class vectors; higher"
        " where a tree goes by similarity.",
    ),
    _on_page("ways", NONE, "Children of the node: what the decision chooses among."),
    _on_page("share taken", SHARE, "Examples that take this child, of those that pass the node."),
    _on_page("mass so far", SHARE, "Examples that come this far down, of all."),
    _on_page("share", SHARE, "Examples of the class, of all in the training data."),
    _on_page("depth here", EDGES, "Decisions to the class in the tree that is shown."),
    _on_page("depth in Huffman's tree", EDGES, "Decisions to the class in the Huffman tree."),
    _on_page("change of depth", EDGES, "Depth here less depth in the Huffman tree."),
    _on_page(
        "change of code length",
        BITS,
        "Code length here less that in the Huffman tree, where it is the depth.",
    ),
    _on_page("change of cost", UNITS, "Cost of the class's path here less that in the Huffman tree."),
    _on_page("share of the class", SHARE, "Examples of the first class of the pair, of all."),
    _on_page("cosine", NONE, "Of the two class vectors; 1 is the same direction."),
    _on_page(
        "edges between them here",
        EDGES,
        "Edges from one class to the other in the tree that is shown; 2 for siblings.",
    ),
    _on_page("in Huffman's tree", EDGES, "The same in the Huffman tree."),
)

PAGE_TERMS: tuple[Metric, ...] = (*_RESULT, *_SEARCH, *VIEWER_TERMS)
