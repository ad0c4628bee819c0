"""The benchmarks behind `treesearch bench`, each a module with a `run` that returns the rows of its table."""
