"""Names of the metrics of `treesearch.evaluation.predictions`, for who only reads them: without torch."""

ACCURACY, HIT_RATE, NDCG = "accuracy", "hit_rate@10", "ndcg@10"
