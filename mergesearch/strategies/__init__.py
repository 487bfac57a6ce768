"""Search strategies, one per file."""

STRATEGIES = {
    "cma_es": "mergesearch.strategies.cma_es:CmaEs",
    "map": "mergesearch.strategies.map:Map",
    "random": "mergesearch.strategies.random:Random",
    "tpe": "mergesearch.strategies.tpe:Tpe",
}
