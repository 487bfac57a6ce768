"""Sinks, one per file: other programs' places that a running study is written to beside its store."""

SINKS = {
    "mlflow": "mergesearch.observe.sinks.mlflow:Mlflow",
    "tensorboard": "mergesearch.observe.sinks.tensorboard:TensorBoard",
    "wandb": "mergesearch.observe.sinks.wandb:Wandb",
}
