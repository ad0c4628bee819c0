"""Rows of this folder: python measure.py synthetic | real | context | command; each writes NAME.json beside itself."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from treesearch.applications.autocomplete import (
    CompletionIndex,
    Completions,
    ContextIndex,
    ContextSettings,
    completion_tree,
    load_contexts,
    train_context_model,
)
from treesearch.bench import autocomplete as bench

DATA = Path(os.environ.get("TREESEARCH_DATA", "../shared/data"))
PREFIXES, REPEATS = 1000, 5


def wikitext(split: str) -> list[list[str]]:
    """Words of each line."""
    lines = (DATA / "wikitext-2" / f"wiki.{split}.tokens").read_text().splitlines()
    return [words for line in lines if (words := line.split()) and words[0] != "="]


def phrases(num: int, sizes: tuple[int, ...]) -> Completions:
    """The most frequent phrases of so many words in WikiText-2, ties by text."""
    counts: Counter[str] = Counter()
    for words in wikitext("train"):
        for size in sizes:
            counts.update(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
    best = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:num]
    return Completions.of(dict(best))


def wordnet() -> Completions:
    """Lemmas of WordNet's nouns; a lemma has the SemCor counts of its synsets, and one."""
    counts: Counter[str] = Counter()
    lines = (DATA / "wordnet" / "noun_synsets.tsv").read_text().splitlines()[1:]
    for fields in (line.split("\t") for line in lines):
        for lemma in fields[4].split():
            counts[lemma.replace("_", " ")] += int(fields[3])
    return Completions.of({lemma: count + 1.0 for lemma, count in counts.items()})


def synthetic() -> list[dict]:
    return bench.run(num_prefixes=PREFIXES, repeats=REPEATS)


def real() -> list[dict]:
    rows = []
    for name, completions in (("wordnet lemmas", wordnet()), ("wikitext phrases", phrases(1_000_000, (2, 3)))):
        for tree in ("huffman", "balanced"):
            own = completion_tree(tree, completions)
            row = bench.measure(completions, own, num_prefixes=PREFIXES, repeats=REPEATS)
            rows.append({"data": name, "tree": tree, **row})
    return rows


def context() -> list[dict]:
    """Phrases of two words after the five words before them: NLL held out, and the top ten of a prefix in a context."""
    rows = []
    rng = np.random.default_rng(0)
    lines = wikitext("train")
    for num, sizes, epochs in ((100_000, (2,), 5), (1_000_000, (2, 3), 1)):
        completions = phrases(num, sizes)
        tree = completion_tree("huffman", completions)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "contexts.tsv")
            with path.open("w") as file:
                for words in lines:
                    for i in range(5, len(words) - 2, 3):
                        file.write(f"{' '.join(words[i - 5 : i])}\t{' '.join(words[i : i + 2])}\n")
            contexts = load_contexts(path, completions)
        begin = perf_counter()
        trained = train_context_model(tree, completions, contexts, settings=ContextSettings(epochs=epochs))
        seconds = perf_counter() - begin
        index = CompletionIndex(completions, trained.model.layer.tree)
        in_context = ContextIndex(index, trained.model)
        queries = []
        for _ in range(500):
            words = lines[rng.integers(len(lines))]
            if len(words) > 8:
                i = int(rng.integers(5, len(words) - 2))
                queries.append((" ".join(words[i : i + 2])[: rng.integers(1, 9)], " ".join(words[i - 5 : i])))
        with torch.no_grad():  # checked against all classes
            for prefix, before in queries[:20]:
                scores = trained.model.layer.log_prob(trained.model.hidden(before))[0].double().numpy()
                low, high = index.matches(prefix)
                best = np.sort(scores[low:high])[::-1][:10]
                np.testing.assert_allclose(in_context.search(prefix, 10, context=before).scores, best, atol=1e-4)
        times, visited = [], []
        for prefix, before in queries:
            turns = []
            for _ in range(REPEATS):
                begin = perf_counter()
                found = in_context.search(prefix, 10, context=before)
                turns.append(1e3 * (perf_counter() - begin))
            times.append(float(np.median(turns)))
            visited.append(found.num_visited)
        rows.append(
            {
                "completions": num,
                "examples": len(contexts.split),
                "epochs": epochs,
                "seconds": seconds,
                "count_nll": trained.count_nll,
                "nll": trained.nll,
                "epoch": trained.epoch,
                "median_ms": float(np.median(times)),
                "p99_ms": float(np.quantile(times, 0.99)),
                "max_ms": max(times),
                "visited": float(np.median(visited)),
            }
        )
    return rows


def command() -> list[dict]:
    """The command on a file of a million lines, from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "queries.tsv")
        queries = bench.synthetic_queries(1_000_000, np.random.default_rng(0))
        path.write_text("".join(f"{query}\t{count:g}\n" for query, count in queries.items()))
        arguments = ["apply", "autocomplete", "--queries", str(path), "--prefix", "ba", "--json"]
        begin = perf_counter()
        done = subprocess.run([sys.executable, "-m", "treesearch.cli", *arguments], capture_output=True, check=True)
        seconds = perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    return [{"seconds": seconds, "peak_megabytes": peak, "completions": len(json.loads(done.stdout))}]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        load = os.getloadavg()[0]
        rows = {"synthetic": synthetic, "real": real, "context": context, "command": command}[name]()
        result = {"rows": rows, "load_before": load, "load_after": os.getloadavg()[0]}
        Path(__file__).with_name(f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result, indent=1))
