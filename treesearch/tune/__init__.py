"""Ray Tune on both sides of a search.

`treesearch.tune.searcher` proposes trees to Tune's trials, `treesearch.tune.sweep` runs whole searches as trials.
Nothing is imported here: the sweep chooses where Ray listens before ray is imported, which the searcher needs at once.
"""
