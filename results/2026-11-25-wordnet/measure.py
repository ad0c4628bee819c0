"""Loading, training steps and memory on the taxonomies of WordNet's nouns and ICD-10-CM. See README.md beside it."""

import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treesearch import HierarchicalSoftmax, Tree, build_tree
from treesearch.evaluation.threads import one_thread
from treesearch.exchange.softmax_nodes import to_softmax_node
from treesearch.objectives.multi_level import MultiLevelLoss
from treesearch.objectives.smoothing import HierarchicalSmoothing
from treesearch.softmax import RowwiseAdam
from treesearch.taxonomy import Taxonomy, sources

FEATURES, BATCH, ROUNDS = 128, 256, 60


def step_of(layer: HierarchicalSoftmax, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[], None]:
    optimizer = RowwiseAdam(layer.parameters(), lr=0.001)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        input_BD = torch.randn(BATCH, FEATURES, generator=generator, requires_grad=True)
        target_B = torch.randint(layer.num_classes, (BATCH,), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        loss(input_BD, target_B).backward()
        optimizer.step()

    return step


def median_ms(steps: dict[str, Callable[[], None]], rounds: int = ROUNDS) -> dict[str, float]:
    """Medians of interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for name in steps:
        steps[name]()
    gc.disable()
    for _ in range(rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - begin))
    gc.enable()
    return {name: float(np.median(values)) for name, values in times.items()}


def steps_on(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    tree = taxonomy.tree
    smoothing = HierarchicalSmoothing(tree, smoothing=0.1)
    levels = MultiLevelLoss(taxonomy, level_weights=dict.fromkeys(range(1, taxonomy.num_levels), 0.5))
    sparse = HierarchicalSoftmax(FEATURES, tree, sparse=True)
    quick = median_ms(
        {
            "hard targets": step_of(sparse, lambda x, y: sparse(x, y).loss),
            "path-local smoothing": step_of(sparse, lambda x, y: smoothing.loss(sparse, x, y)),
            "multi-level": step_of(sparse, lambda x, y: levels(sparse, x, y)),
        }
    )
    dense = HierarchicalSoftmax(FEATURES, tree)
    slow = median_ms({"exact smoothing": step_of(dense, lambda x, y: smoothing.loss(dense, x, y, exact=True))}, rounds=3)
    hard = quick["hard targets"]
    return [
        {"what": f"step, {name}", "ms": round(ms, 3), "of hard targets": round(ms / hard, 3)}
        for name, ms in {**quick, **slow}.items()
    ]


def against_hierarchicalsoftmax(name: str, tree: Tree, rounds: int) -> dict[str, Any]:
    """The package's layer with our weights: probabilities and step times, targets as its users give them."""
    from hierarchicalsoftmax import HierarchicalSoftmaxLinear, HierarchicalSoftmaxLoss
    from hierarchicalsoftmax.inference import node_probabilities

    root = to_softmax_node(tree)
    leaves = [node for node in root.node_list if node.is_leaf]
    ids = torch.tensor([root.node_to_id[node] for node in sorted(leaves, key=lambda node: node.class_id)])
    theirs, loss = HierarchicalSoftmaxLinear(root=root, in_features=FEATURES), HierarchicalSoftmaxLoss(root)
    ours = HierarchicalSoftmax(FEATURES, tree, sparse=True)
    place_of = {node: node.index_in_softmax_layer for node in root.node_list if node.parent}
    by_number = {0: root} | {int(node.name): node for node in root.node_list if not node.is_leaf}  # the list has no root
    by_class = {node.class_id: node for node in leaves}
    weight, bias = ours.weights[0].detach(), ours.biases[0].detach()
    with torch.no_grad():
        for number, node in by_number.items():
            children = tree.children(number)
            row = int(ours.layout.node_row[number])
            for place, child in enumerate(children):
                other = by_number[child] if child < tree.num_internal else by_class[tree.leaf_class[child - tree.num_internal]]
                at = place_of[other]
                if len(children) == 2:  # one row here, two there
                    sign = 0.5 if place == 0 else -0.5
                    theirs.weight[at], theirs.bias[at] = sign * weight[row], sign * bias[row]
                else:
                    theirs.weight[at], theirs.bias[at] = weight[row + place], bias[row + place]
    x = torch.randn(4, FEATURES)
    with torch.no_grad():
        probability = node_probabilities(theirs(x), root)
        places = torch.tensor([place_of[by_class[cls]] for cls in range(tree.num_classes)])
        gap = float((probability[:, places] - ours.log_prob(x).exp()).abs().max())
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.001)

    def their_step() -> None:
        input_BD = torch.randn(BATCH, FEATURES, requires_grad=True)
        target_B = ids[torch.randint(tree.num_classes, (BATCH,))]
        optimizer.zero_grad(set_to_none=True)
        loss(theirs(input_BD), target_B).backward()
        optimizer.step()

    times = median_ms({"ours": step_of(ours, lambda x, y: ours(x, y).loss), "theirs": their_step}, rounds=rounds)
    return {
        "what": f"hierarchicalsoftmax on {name}",
        "largest difference of a probability": gap,
        "our step ms": round(times["ours"], 3),
        "their step ms": round(times["theirs"], 1),
        "ratio": round(times["theirs"] / times["ours"], 1),
    }


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def memory_of_flat_smoothing() -> dict[str, Any]:
    """Run by itself: a training step of a flat softmax with smoothed targets over 100,000 classes."""
    before = peak_gb()
    num_classes, batch = 100_000, 64
    tree = build_tree("huffman", counts=np.arange(1, num_classes + 1), arity=8)
    smoothing = HierarchicalSmoothing(tree, smoothing=0.1)
    linear = torch.nn.Linear(FEATURES, num_classes)
    target_B = torch.randint(num_classes, (batch,))
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        smoothing.flat_loss(linear(torch.randn(batch, FEATURES)), target_B).backward()
        times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    smoothing.distribution(target_B)
    only = time.perf_counter() - begin
    return {
        "what": f"flat softmax with smoothed targets, {num_classes} classes, batch {batch}",
        "step ms": round(1000 * float(np.median(times)), 1),
        "of it targets ms": round(1000 * only, 1),
        "peak memory GB": round(peak_gb(), 2),
        "of it imports GB": round(before, 2),
    }


def icd10cm() -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        begin = time.perf_counter()
        taxonomy = sources.icd10cm()
        taxonomy.tree
        seconds = time.perf_counter() - begin
    words = sources.icd10cm_descriptions(taxonomy)
    # Codes from their own descriptions: does it train at all?
    texts = [words[node].casefold().split() for node in taxonomy.class_node]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(word for text in texts for word in text))}
    table = torch.nn.EmbeddingBag(len(vocabulary), FEATURES, sparse=True)
    layer = HierarchicalSoftmax(FEATURES, taxonomy.tree, sparse=True)
    optimizer = RowwiseAdam([*table.parameters(), *layer.parameters()], lr=0.02)
    generator = torch.Generator().manual_seed(0)
    losses, start = [], time.perf_counter()
    for epoch in range(3):
        total = 0.0
        for rows in torch.randperm(len(texts), generator=generator).split(BATCH):
            ids = [vocabulary[word] for row in rows.tolist() for word in texts[row]]
            offsets = np.cumsum([0, *(len(texts[row]) for row in rows.tolist()[:-1])])
            optimizer.zero_grad(set_to_none=True)
            loss = layer(table(torch.tensor(ids), torch.from_numpy(offsets)), rows).loss
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        losses.append(round(total / len(texts), 3))
    return [
        {"what": "ICD-10-CM: load and build", "s": round(seconds, 2), "nodes": taxonomy.num_nodes, "classes": taxonomy.num_classes},
        {
            "what": "ICD-10-CM: codes from their descriptions, three epochs",
            "nats by epoch": losses,
            "uniform": round(float(np.log(taxonomy.num_classes)), 3),
            "s": round(time.perf_counter() - start, 1),
        },
    ]


def main() -> None:
    data = Path(os.environ["TREESEARCH_DATA"])
    if sys.argv[1:] == ["memory"]:
        print(json.dumps(memory_of_flat_smoothing()))
        return
    rows: list[dict[str, Any]] = []
    begin = time.perf_counter()
    wordnet = sources.wordnet_nouns(data / "wordnet/noun_synsets.tsv")
    wordnet.tree
    seconds = round(time.perf_counter() - begin, 2)
    rows.append({"what": "WordNet: load and build", "s": seconds, "nodes": wordnet.num_nodes, "classes": wordnet.num_classes})
    rows += steps_on(wordnet)
    rows.append(against_hierarchicalsoftmax("CLINC150", sources.clinc150(data / "clinc150").tree, rounds=10))
    rows.append(against_hierarchicalsoftmax("WordNet", wordnet.tree, rounds=3))
    rows += icd10cm()
    memory = subprocess.run([sys.executable, __file__, "memory"], capture_output=True, text=True, check=True)
    rows.append(json.loads(memory.stdout))
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    with one_thread():
        main()
