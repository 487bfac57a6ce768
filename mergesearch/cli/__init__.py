"""The command line, one command per file. Heavy libraries are imported inside the commands, so that help is quick."""

COMMANDS = {
    "launch": "mergesearch.cli.launch:launch",
    "resume": "mergesearch.cli.resume:resume",
    "status": "mergesearch.cli.status:status",
    "pause": "mergesearch.cli.pause:pause",
    "cancel": "mergesearch.cli.cancel:cancel",
    "check": "mergesearch.cli.check:check",
    "studies": "mergesearch.cli.studies:studies",
    "show": "mergesearch.cli.show:show",
    "front": "mergesearch.cli.front:front",
    "candidate": "mergesearch.cli.candidate:candidate",
    "coefficients": "mergesearch.cli.coefficients:coefficients",
    "export": "mergesearch.cli.export:export",
    "score": "mergesearch.cli.score:score",
    "report": "mergesearch.cli.report:report",
    "serve": "mergesearch.cli.serve:serve",
    "store info": "mergesearch.cli.store:info",
    "store gc": "mergesearch.cli.store:gc",
    "store export": "mergesearch.cli.store:export",
    "store export-optuna": "mergesearch.cli.store:export_optuna",
    "import": "mergesearch.cli.import_:import_",
    "list": "mergesearch.cli.list:list_plugins",
    "demo": "mergesearch.cli.demo:demo",
}

GROUPS = {"store": "Look into a store, clean it up, take its studies elsewhere."}
"""What commands of two words begin with."""
