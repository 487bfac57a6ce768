"""The command line, one command per file. Heavy libraries are imported inside the commands, so that help is quick."""

COMMANDS = {
    "launch": "mergesearch.cli.launch:launch",
    "resume": "mergesearch.cli.resume:resume",
    "check": "mergesearch.cli.check:check",
    "studies": "mergesearch.cli.studies:studies",
    "show": "mergesearch.cli.show:show",
    "front": "mergesearch.cli.front:front",
    "candidate": "mergesearch.cli.candidate:candidate",
    "export": "mergesearch.cli.export:export",
    "score": "mergesearch.cli.score:score",
    "report": "mergesearch.cli.report:report",
    "import": "mergesearch.cli.import_:import_",
    "list": "mergesearch.cli.list:list_plugins",
    "demo": "mergesearch.cli.demo:demo",
}
